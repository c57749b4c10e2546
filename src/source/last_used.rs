//! When each token was used last: kept in memory, written rarely beside the token file, read by the
//! token commands. Losing it loses no safety.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tempfile::NamedTempFile;
use tokio::time::sleep;

use super::Published;
use crate::access::Directory;

/// Last uses by token id.
pub type LastUses = BTreeMap<String, Timestamp>;

/// The file that goes with a token file, or with a folder of them.
pub fn beside(tokens: &Path) -> PathBuf {
    let mut name = tokens.as_os_str().to_owned();
    name.push(".last-used.json");
    name.into()
}

/// Reads what was written last. Without a file nothing is known.
///
/// # Errors
/// The file cannot be read, or is not one of ours.
pub fn read(path: &Path) -> io::Result<Option<LastUses>> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(Into::into),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Keeps the file up to date.
#[derive(Debug)]
pub struct LastUsed {
    path: PathBuf,
    directory: Arc<ArcSwap<Directory>>,
    written: LastUses,
    failing: bool,
}

/// How often the file is written, at most.
const PACE: Duration = Duration::from_secs(30);

impl LastUsed {
    /// Tells the directory what was written last. A file that cannot be read is begun anew.
    pub fn open(path: &Path, published: &Published) -> Self {
        let written = read(path).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "the last uses of tokens cannot be read: begun anew");
            None
        });
        let written = written.unwrap_or_default();
        for grant in published.directory.load().grants() {
            if let Some(at) = written.get(grant.token_id().as_str()) {
                grant.touch(*at);
            }
        }
        Self { path: path.to_owned(), directory: Arc::clone(&published.directory), written, failing: false }
    }

    /// Writes now and then, until `ended`, and once more then.
    pub async fn keep(mut self, ended: impl Future<Output = ()>) {
        let mut ended = std::pin::pin!(ended);
        loop {
            let last = tokio::select! {
                () = ended.as_mut() => true,
                () = sleep(PACE) => false,
            };
            let writing = tokio::task::spawn_blocking(move || {
                self.write();
                self
            });
            self = match writing.await {
                Ok(this) => this,
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            };
            if last {
                return;
            }
        }
    }

    fn write(&mut self) {
        let directory = self.directory.load_full();
        let grants = directory.grants().filter_map(|grant| Some((grant.token_id().to_string(), grant.last_used()?)));
        let uses: LastUses = grants.collect();
        if uses == self.written {
            return;
        }
        match write(&self.path, &uses) {
            Ok(()) => (self.written, self.failing) = (uses, false),
            Err(error) if !self.failing => {
                self.failing = true;
                let path = self.path.display();
                tracing::warn!(%path, %error, "the last uses of tokens cannot be written: they are kept in memory only");
            }
            Err(_) => {}
        }
    }
}

/// Writes the file whole, beside itself and then into place.
fn write(path: &Path, uses: &LastUses) -> io::Result<()> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut beside = NamedTempFile::new_in(folder)?;
    serde_json::to_writer(&mut beside, uses)?;
    beside.write_all(b"\n")?;
    beside.persist(path)?;
    Ok(())
}
