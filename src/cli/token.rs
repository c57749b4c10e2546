//! `patgate token …`: the life of a token, in the token file.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use jiff::{Timestamp, Unit};
use serde_json::json;
use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, value};

use super::Exit;
use crate::config::{Overrides, TokenSettings};
use crate::document::{Problem, Problems};
use crate::source::{EditError, edit};
use crate::token::{Lifetime, Minted, Scope, TokenList};

/// What can be done with tokens.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a token and print it, once; only its hash is kept
    Create(Create),
}

#[derive(Args, Debug)]
pub(super) struct Create {
    /// Whom the token stands for
    #[arg(long, value_name = "USER")]
    user: String,
    /// What its owner calls it, such as "Claude Code on laptop"
    #[arg(long, value_name = "NAME")]
    name: String,
    /// How long it lives: 45s, 12h, 90d, 1y, a date such as 2027-01-31, or never
    #[arg(long, value_name = "LIFETIME", default_value = "90d")]
    expires: Lifetime,
    /// What it may do at most; may be given several times [default: all that the user may]
    #[arg(long = "scope", value_name = "SCOPE", value_parser = Scope::parse)]
    scopes: Vec<Scope>,
    /// The token file, made if there is none [default: the configuration's, or tokens.toml]
    #[arg(long, value_name = "FILE", env = "PATGATE_TOKENS")]
    tokens: Option<String>,
    /// The configuration file, for the token file's place and the prefix
    #[arg(long, value_name = "FILE", env = "PATGATE_CONFIG")]
    config: Option<PathBuf>,
    /// Print one JSON object instead of the token alone
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: Command) -> Result<(), Exit> {
    match command {
        Command::Create(create) => create.run(),
    }
}

impl Create {
    fn run(self) -> Result<(), Exit> {
        let overrides = Overrides { tokens: self.tokens.clone(), config: self.config.clone(), ..Overrides::default() };
        let settings = TokenSettings::load(&overrides)?;
        let now = Timestamp::now().round(Unit::Second).map_err(Exit::failure)?;
        let expires_at = self.expires.end(now).map_err(|error| Exit::usage(format!("--expires: {error}")))?;
        let minted =
            settings.policy.prefix.mint().map_err(|error| Exit::failure(format!("no random numbers: {error}")))?;
        edit(&settings.file, |list, document| self.add(list, document, &settings.file, &minted, now, expires_at))
            .map_err(|error| match error {
                EditError::Invalid(problems) => problems.into(),
                EditError::Io { .. } => Exit::failure(error),
            })?;
        self.print(&minted, &settings.file, expires_at).map_err(|error| Exit::failure(format!("cannot print: {error}")))
    }

    fn add(
        &self,
        list: &TokenList,
        document: &mut DocumentMut,
        file: &Path,
        minted: &Minted,
        now: Timestamp,
        expires_at: Option<Timestamp>,
    ) -> Result<(), Problems> {
        if list.users.as_ref().is_some_and(|users| users.iter().all(|user| *user.id != *self.user)) {
            let message =
                format!("user `{}` is not in [[users]], so the token would be dead: add the user first", self.user);
            return Err(Problem::in_file(file, message).into());
        }
        let mut record = Table::new();
        record.insert("id", value(minted.id.as_str()));
        record.insert("hash", value(minted.token.digest().to_string()));
        record.insert("user", value(&self.user));
        record.insert("name", value(&self.name));
        if !self.scopes.is_empty() {
            record.insert("scopes", value(self.scopes.iter().map(Scope::as_str).collect::<Array>()));
        }
        record.insert("created_at", moment(now));
        if let Some(expires_at) = expires_at {
            record.insert("expires_at", moment(expires_at));
        }
        let tokens = document.entry("tokens").or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
        let Some(tokens) = tokens.as_array_of_tables_mut() else {
            let message = "`tokens` is written as an inline list: write each token as a [[tokens]] table";
            return Err(Problem::in_file(file, message).into());
        };
        tokens.push(record);
        Ok(())
    }

    /// The token goes to standard output, everything else to standard error.
    fn print(&self, minted: &Minted, file: &Path, expires_at: Option<Timestamp>) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.json {
            let scopes: Vec<&str> = self.scopes.iter().map(Scope::as_str).collect();
            let object = json!({
                "token": minted.token.expose(),
                "id": minted.id.as_str(),
                "user": self.user,
                "name": self.name,
                "scopes": if scopes.is_empty() { None } else { Some(scopes) },
                "expires_at": expires_at.map(|end| end.to_string()),
            });
            writeln!(out, "{object}")?;
        } else {
            writeln!(out, "{}", minted.token.expose())?;
        }
        out.flush()?;
        let end = expires_at.map_or_else(|| "never expires".to_owned(), |end| format!("expires at {end}"));
        anstream::eprintln!(
            "token {} of {} is in {}; it {end} and will not be shown again",
            minted.id,
            self.user,
            file.display()
        );
        Ok(())
    }
}

fn moment(at: Timestamp) -> Item {
    // RFC 3339 is what TOML date-times are
    at.to_string().parse::<toml_edit::Datetime>().map_or_else(|_| value(at.to_string()), value)
}
