//! The token file: read whole, checked whole, swapped in whole. A bad file changes nothing.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use notify::{RecursiveMode, Watcher};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::Published;
use crate::access::{Directory, Generation, Policy};
use crate::document::{Problem, Problems};
use crate::token::TokenList;

/// A file that was just changed is read again after this pause, until two readings agree.
const SETTLE: Duration = Duration::from_millis(30);
const SETTLE_ROUNDS: usize = 30;

/// The settings of a token file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    /// The file.
    pub path: PathBuf,
    /// How often its content is compared when the system tells nothing of changes.
    pub poll: Duration,
}

/// A token file and the directory made from its last good content.
#[derive(Debug)]
pub struct FileSource {
    params: Params,
    policy: Policy,
    published: Published,
    generation: Generation,
    /// The content that was judged last, good or bad.
    seen: [u8; 32],
}

impl FileSource {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// It cannot be read, or every mistake in it.
    pub fn open(params: Params, policy: Policy) -> Result<Self, Problems> {
        let content = read(&params.path)?;
        let generation = Generation(1);
        let directory = build(&params.path, &content, &policy, generation)?;
        let published = Published {
            directory: Arc::new(ArcSwap::from_pointee(directory)),
            trouble: Arc::new(ArcSwapOption::empty()),
        };
        let seen = Sha256::digest(&content).into();
        Ok(Self { params, policy, published, generation, seen })
    }

    /// Where the directory can be read from.
    pub fn published(&self) -> &Published {
        &self.published
    }

    /// Follows the file until the process ends: by the system's notices, and by a slow comparison of
    /// its content where there are none.
    pub async fn follow(mut self) {
        let (notice, mut noticed) = mpsc::channel(1);
        // the directory, not the file, and no filter by name: editors and Kubernetes swap files and links
        let folder =
            self.params.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let tell = move |_| {
            // a notice that waits already says as much
            let _ = notice.try_send(());
        };
        let watcher = notify::recommended_watcher(tell)
            .and_then(|mut watcher| watcher.watch(folder, RecursiveMode::NonRecursive).map(|()| watcher));
        if let Err(error) = &watcher {
            tracing::warn!(%error, poll = ?self.params.poll, "no notices of changes to the token file: polling only");
        }
        let mut poll = interval(self.params.poll);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(()) = noticed.recv() => {}
                _ = poll.tick() => {}
            }
            self = self.refresh().await;
        }
    }

    /// Reads the file again and, if it has changed, judges it.
    async fn refresh(mut self) -> Self {
        let Some(content) = self.settled().await else { return self };
        let judging = tokio::task::spawn_blocking(move || {
            self.judge(content);
            self
        });
        match judging.await {
            Ok(source) => source,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// The content of the file once it no longer changes under our eyes; `None` if it is the known one.
    async fn settled(&self) -> Option<Result<Vec<u8>, Problems>> {
        let mut content = reading(&self.params.path).await;
        if matches!(&content, Ok(content) if self.seen == *Sha256::digest(content)) {
            return None;
        }
        for _ in 0..SETTLE_ROUNDS {
            sleep(SETTLE).await;
            let again = reading(&self.params.path).await;
            if again == content {
                break;
            }
            content = again;
        }
        Some(content)
    }

    fn judge(&mut self, content: Result<Vec<u8>, Problems>) {
        let path = &self.params.path;
        let judged = content.and_then(|content| {
            self.seen = Sha256::digest(&content).into();
            build(path, &content, &self.policy, Generation(self.generation.0 + 1))
        });
        match judged {
            Ok(directory) => {
                self.generation = directory.generation();
                let tokens = directory.token_count().unwrap_or_default();
                tracing::info!(generation = self.generation.0, revision = %directory.revision(), tokens, "token list loaded");
                self.published.directory.store(Arc::new(directory));
                self.published.trouble.store(None);
            }
            Err(problems) => {
                let known = self.published.trouble.load();
                let text = problems.to_string();
                if known.as_ref().is_none_or(|known| **known != text) {
                    tracing::error!(problems = text, "the token list is unusable: the last good one stays in force");
                    self.published.trouble.store(Some(Arc::new(text)));
                }
            }
        }
    }
}

async fn reading(path: &Path) -> Result<Vec<u8>, Problems> {
    let path = path.to_owned();
    // a hanging file system must not hold up signals and health
    match tokio::task::spawn_blocking(move || read(&path)).await {
        Ok(content) => content,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Problems> {
    fs::read(path).map_err(|error| {
        let advice = match error.kind() {
            std::io::ErrorKind::NotFound => ": make it with `patgate token create`",
            std::io::ErrorKind::PermissionDenied => ": let the user that patgate runs as read it",
            _ => "",
        };
        Problem::in_file(path, format!("cannot be read ({error}){advice}")).into()
    })
}

fn build(path: &Path, content: &[u8], policy: &Policy, generation: Generation) -> Result<Directory, Problems> {
    let text = str::from_utf8(content)
        .map_err(|error| Problem::in_file(path, format!("not UTF-8 from byte {} on", error.valid_up_to())))?;
    let list = TokenList::parse(path, text)?;
    Ok(Directory::new(&list, policy, generation, &revision(content)))
}

/// A short name for a content: the beginning of its SHA-256.
fn revision(content: &[u8]) -> String {
    Sha256::digest(content).iter().take(6).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
