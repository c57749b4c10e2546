//! Where the token list comes from, and how a change of it becomes the directory that requests ask.

mod edit;
mod facts;
mod fetch;
mod file;
mod find;
mod http;
pub mod last_used;
mod lines;
mod lookup;
mod page;
mod publish;
mod reloads;
mod trial;
mod trouble;
mod url;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use edit::{Draft, EditError, edit, moment};
pub use facts::CacheCounts;
pub use fetch::ClientParams;
pub use file::exposed;
pub use find::Finder;
pub use http::HttpParams;
pub use last_used::LastUsed;
pub use lookup::LookupParams;
pub use page::{Fields, Section};
pub use publish::{Published, Publisher};
pub use reloads::{Reloads, Results};
pub use trouble::Trouble;
pub use url::{ListUrl, LookupUrl};

use crate::access::{DenyList, Directory, Policy};
use crate::document::{Problem, Problems};
use crate::token::{Prefix, TokenList};
use crate::watch::{self, Reload};

/// The settings of the token source.
#[derive(Clone, Debug)]
pub struct Params {
    /// Where the list is.
    pub origin: Origin,
    /// Tokens that are dead whatever the list says.
    pub deny_list: Option<PathBuf>,
    /// How often files are compared by content when the system tells nothing of changes.
    pub poll: Duration,
    /// Where the last use of each token is kept, if it is.
    pub last_used: Option<PathBuf>,
    /// Whether a list may become empty; otherwise that is taken for a mishap.
    pub allow_empty: bool,
    /// Whether a token file is refused that everybody on this machine can read or write.
    pub refuse_exposed: bool,
    /// How many bcrypt hashes are tried at the same time.
    pub parallel_trials: usize,
}

/// Where a list can be.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A token file, or a folder of them.
    File(PathBuf),
    /// The whole list over HTTP.
    Http(HttpParams),
    /// One token at a time over HTTP.
    Lookup(LookupParams),
}

impl Origin {
    /// What is wrong if the file with the bearer token for the source is not there: until then it cannot be asked.
    pub fn missing_bearer_file(&self) -> Option<Problem> {
        let (key, client) = match self {
            Self::File(_) => return None,
            Self::Http(params) => ("tokens.http.bearer_file", &params.client),
            Self::Lookup(params) => ("tokens.lookup.bearer_file", &params.client),
        };
        let file = client.bearer_file.as_ref()?;
        let error = file.metadata().err().filter(|error| error.kind() == ErrorKind::NotFound)?;
        let message = format!("{} cannot be read ({error}): make it, or correct its name", file.display());
        Some(Problem::outside(key, message))
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Http(params) => params.url.fmt(f),
            Self::Lookup(params) => params.url.fmt(f),
        }
    }
}

/// The token source: what publishes directories, and what it follows to do so.
#[derive(Debug)]
pub struct Source {
    publisher: Arc<Publisher>,
    list: List,
    denied: Option<file::DenyFile>,
    last_used: Option<LastUsed>,
}

#[derive(Debug)]
enum List {
    File(file::FileSource),
    Http(Box<http::HttpSource>),
    /// Nothing to follow, once it has ever answered: who wants to know asks.
    Lookup,
}

impl Source {
    /// Reads all files for the first time. Nothing is asked of anybody over the network yet.
    ///
    /// # Errors
    /// Every mistake in the files.
    pub fn open(params: &Params, policy: &Policy) -> Result<Self, Problems> {
        let policy = Arc::new(policy.clone());
        let troubles = Arc::default();
        let lookup = match &params.origin {
            Origin::Lookup(params) => Some(lookup::Lookup::new(params, &policy, &troubles)),
            Origin::File(_) | Origin::Http(_) => None,
        };
        let finder = Finder::new(params.parallel_trials, lookup);
        let publisher = Arc::new(Publisher::new(&policy, params.allow_empty, &troubles, finder));
        let list = List::open(params, &publisher);
        let denied = params.deny_list.as_deref().map(|path| file::DenyFile::open(path, params.poll, &publisher));
        let (list, denied) = match (list, denied.transpose()) {
            (Ok(list), Ok(denied)) => (list, denied),
            (list, denied) => {
                let problems = [list.err(), denied.err()].into_iter().flatten();
                return Err(Problems(problems.flat_map(|problems| problems.0).collect()));
            }
        };
        let last_used = params.last_used.as_deref().map(|path| LastUsed::open(path, publisher.published()));
        Ok(Self { publisher, list, denied, last_used })
    }

    /// Where the directory can be read from.
    pub fn published(&self) -> &Published {
        self.publisher.published()
    }

    /// What keeps the last use of each token, to be run beside [`Self::follow`].
    pub fn take_last_used(&mut self) -> Option<LastUsed> {
        self.last_used.take()
    }

    /// Follows everything and never ends. `changed` is told of each new directory, before the
    /// next one can come; at the operator's word all is read at once.
    pub async fn follow(self, reload: &Reload, changed: impl Fn(&Directory) + Send + Sync + 'static) {
        self.publisher.on_change(Box::new(changed));
        let denied = async {
            if let Some(denied) = self.denied {
                denied.follow(reload.clone()).await;
            }
        };
        let finder = self.publisher.published().finder.clone();
        tokio::join!(self.list.follow(reload.clone(), &finder), denied);
    }
}

impl List {
    fn open(params: &Params, publisher: &Arc<Publisher>) -> Result<Self, Problems> {
        Ok(match &params.origin {
            Origin::File(path) => Self::File(file::FileSource::open(path, params, publisher)?),
            Origin::Http(params) => Self::Http(Box::new(http::HttpSource::new(params, publisher))),
            Origin::Lookup(_) => {
                publisher.look_elsewhere();
                Self::Lookup
            }
        })
    }

    async fn follow(self, reload: Reload, finder: &Finder) {
        match self {
            Self::File(file) => file.follow(reload).await,
            Self::Http(http) => http.follow(reload).await,
            Self::Lookup => finder.look_until_known().await,
        }
    }
}

/// What a token file or a folder of them says now, for callers that follow nothing.
///
/// # Errors
/// It cannot be read, or every mistake in it.
pub fn read_list(path: &Path, prefix: &Prefix) -> Result<TokenList, Problems> {
    file::read_list(&watch::read(path)?, prefix)
}

/// What a deny list says now, for callers that follow nothing.
///
/// # Errors
/// It cannot be read, or every mistake in it.
pub fn read_deny_list(path: &Path) -> Result<DenyList, Problems> {
    file::read_deny_list(path, &watch::read(path)?)
}
