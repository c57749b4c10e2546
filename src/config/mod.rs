//! The configuration: what flags, environment and file say, checked as a whole and turned into each
//! component's own settings. Whatever is wrong is reported at once.

mod audit;
mod bounds;
mod diagnostics;
mod file;
mod origin;
mod otlp;
mod policy;
mod tls;
mod units;

use std::path::{Path, PathBuf};

pub use bounds::CONNECTIONS;
pub use diagnostics::{Diagnostics, Format};

use crate::access::Policy;
use crate::document::{Document, Problem, Problems};
use crate::source::Origin;
use crate::token::Prefix;
use crate::{proxy, server, source};

/// What stands above the file: flags, or else the environment. No secret is ever among them.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// The configuration file.
    pub config: Option<PathBuf>,
    /// `listen`
    pub listen: Option<String>,
    /// `upstream`
    pub upstream: Option<String>,
    /// `tokens.file`, or the `url` of `tokens.http`
    pub tokens: Option<String>,
    /// `admin`
    pub admin: Option<String>,
    /// `log_level`
    pub log_level: Option<String>,
    /// `log_format`
    pub log_format: Option<String>,
}

/// Where the token commands look when nothing else is said.
pub const DEFAULT_TOKEN_FILE: &str = "tokens.toml";

/// What the token commands need to know.
#[derive(Clone, Debug)]
pub struct TokenSettings {
    /// The token file, or a folder of them.
    pub file: PathBuf,
    /// Tokens that are dead whatever the file says.
    pub deny_list: Option<PathBuf>,
    /// Where the last use of each token is kept, if it is.
    pub last_used: Option<PathBuf>,
    /// What holds for every token.
    pub policy: Policy,
}

/// A configuration that can be run.
#[derive(Clone, Debug)]
pub struct Config {
    /// The listening side.
    pub server: server::Params,
    /// Health, on an address of its own; none if turned off.
    pub admin: Option<server::ListenAddress>,
    /// How the upstream is asked whether it is well, if it is.
    pub health: Option<proxy::HealthParams>,
    /// The gate and the way to the upstream.
    pub proxy: proxy::Params,
    /// Where tokens come from.
    pub source: source::Params,
    /// What holds for every token.
    pub policy: Policy,
    /// The audit log.
    pub audit: crate::audit::Params,
    /// What is said on standard error.
    pub diagnostics: Diagnostics,
}

impl Config {
    /// Reads the file, lays the overrides over it and checks everything.
    ///
    /// # Errors
    /// Every mistake, with its place.
    pub fn load(overrides: &Overrides) -> Result<Self, Problems> {
        let (path, text) = text_of(overrides)?;
        let document = Document::parse(path, &text)?;
        let mut outside = Vec::new();
        let config = file::read(&document.root(), path, overrides, &mut outside);
        let inside = document.finish().err().unwrap_or_default();
        match (config, inside.0.is_empty() && outside.is_empty()) {
            (Some(config), true) => Ok(config),
            (_, _) => Err(Problems(inside.0.into_iter().chain(outside).collect())),
        }
    }
}

impl Config {
    /// Reads only where tokens come from, to judge them even if the rest is wrong.
    ///
    /// # Errors
    /// Every mistake in that part, with its place.
    pub fn load_source(overrides: &Overrides) -> Result<(source::Params, Policy), Problems> {
        let (path, text) = text_of(overrides)?;
        let document = Document::parse(path, &text)?;
        let mut outside = Vec::new();
        let (source, policy) = file::read_tokens(&document.root(), path, overrides, false, &mut outside);
        // what is wrong beside it is reported by `load`
        let _ = document.finish();
        source.map(|source| (source, policy)).ok_or(Problems(outside))
    }
}

impl Config {
    /// Reads only what concerns the audit log; the rest of the file may be unfinished.
    ///
    /// # Errors
    /// Every mistake in the file as far as it is read, with its place.
    pub fn load_audit(overrides: &Overrides) -> Result<crate::audit::Params, Problems> {
        let (path, text) = text_of(overrides)?;
        let document = Document::parse(path, &text)?;
        let (params, _) = audit::read(&document.root(), file::base(path), Prefix::default());
        document.finish()?;
        Ok(params)
    }
}

impl TokenSettings {
    /// Reads only what the token commands need; the rest of the file may be unfinished.
    ///
    /// # Errors
    /// Every mistake in that part, with its place.
    pub fn load(overrides: &Overrides) -> Result<Self, Problems> {
        let (path, text) = text_of(overrides)?;
        let document = Document::parse(path, &text)?;
        let mut outside = Vec::new();
        let mut read = |overrides| file::read_tokens(&document.root(), path, overrides, true, &mut outside);
        let (source, policy) = match (read(overrides), &overrides.tokens) {
            // a token file that nobody named has its usual name
            ((None, _), None) => read(&Overrides { tokens: Some(DEFAULT_TOKEN_FILE.to_owned()), ..overrides.clone() }),
            (read, _) => read,
        };
        document.finish()?;
        let source::Params { origin, deny_list, last_used, .. } = source.ok_or(Problems(outside))?;
        let Origin::File(file) = origin else {
            let message = format!("tokens come from {origin}: name the file to work on by --tokens");
            return Err(Problem::outside("tokens", message).into());
        };
        Ok(Self { file, deny_list, last_used, policy })
    }
}

/// The configuration file and its text; an empty one where none was named.
fn text_of(overrides: &Overrides) -> Result<(&Path, String), Problems> {
    let Some(path) = &overrides.config else { return Ok((Path::new("(no configuration file)"), String::new())) };
    match std::fs::read_to_string(path) {
        Ok(text) => Ok((path, text)),
        Err(error) => {
            let message = format!("cannot be read ({error}): name a configuration file, or leave out --config");
            Err(Problem::in_file(path, message).into())
        }
    }
}
