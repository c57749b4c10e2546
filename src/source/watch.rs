//! Following a file, or a folder of files, by its content: told by the system where it can, and by a
//! slow comparison where it cannot.

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use crate::document::{Problem, Problems};

/// A file that was just changed is read again after this pause, until two readings agree: what is
/// being written in place is not judged half-way.
const SETTLE: Duration = Duration::from_millis(30);
const SETTLE_ROUNDS: usize = 60;

/// Files and what is in them, in the order of their names.
pub(super) type Content = Vec<(PathBuf, Vec<u8>)>;

/// Follows one path.
#[derive(Debug)]
pub(super) struct Watch {
    path: PathBuf,
    poll: Duration,
    /// What was told last, good or bad.
    told: Result<Content, Problems>,
}

impl Watch {
    /// Begins with what was just read.
    pub(super) fn new(path: &Path, poll: Duration, content: Content) -> Self {
        Self { path: path.to_owned(), poll, told: Ok(content) }
    }

    /// Tells `changed` of each new content, or of each new reason why there is none. It is called on a
    /// thread of its own, for it may take its time.
    pub(super) async fn follow(mut self, changed: impl Fn(Result<Content, Problems>) + Send + Sync + 'static) {
        let changed = Arc::new(changed);
        let (notice, mut noticed) = mpsc::channel(1);
        // the watcher lives as long as this function
        let _watcher = self.watcher(notice);
        let mut poll = self.interval();
        loop {
            tokio::select! {
                Some(()) = noticed.recv() => {}
                _ = poll.tick() => {}
            }
            if let Some(content) = self.settled().await {
                self.told.clone_from(&content);
                let changed = Arc::clone(&changed);
                blocking(move || changed(content)).await;
            }
        }
    }

    fn interval(&self) -> Interval {
        let mut poll = interval(self.poll);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        poll
    }

    /// Watches the folder, not the file, and without a filter by name: editors and Kubernetes swap
    /// files and links, and a watch on the file itself would follow the old one.
    fn watcher(&self, notice: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
        let folder = if self.path.is_dir() { Some(self.path.as_path()) } else { self.path.parent() };
        let folder = folder.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let tell = move |event: notify::Result<Event>| {
            if event.as_ref().is_ok_and(|event| is_mere_reading(event.kind)) {
                return;
            }
            // a notice that waits already says as much
            let _ = notice.try_send(());
        };
        let watcher = notify::recommended_watcher(tell)
            .and_then(|mut watcher| watcher.watch(folder, RecursiveMode::NonRecursive).map(|()| watcher));
        watcher
            .inspect_err(|error| {
                let path = self.path.display();
                tracing::warn!(%path, %error, poll = ?self.poll, "no notices of changes: comparing the content only");
            })
            .ok()
    }

    /// The content once it no longer changes under our eyes; `None` if it is the one that was told.
    async fn settled(&self) -> Option<Result<Content, Problems>> {
        let mut content = reading(&self.path).await;
        for _ in 0..SETTLE_ROUNDS {
            if content == self.told {
                return None;
            }
            sleep(SETTLE).await;
            let again = reading(&self.path).await;
            if again == content {
                break;
            }
            content = again;
        }
        Some(content)
    }
}

/// Reads on a thread of its own: a hanging file system must not hold up signals and health.
async fn reading(path: &Path) -> Result<Content, Problems> {
    let path = path.to_owned();
    blocking(move || read(&path)).await
}

pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// Reads a file, or all `*.toml` files of a folder.
pub(super) fn read(path: &Path) -> Result<Content, Problems> {
    let read = |path: PathBuf| match fs::read(&path) {
        Ok(content) => Ok((path, content)),
        Err(error) => Err(unreadable(&path, &error)),
    };
    files(path)?.into_iter().map(read).collect()
}

/// A file, or all `*.toml` files of a folder in the order of their names.
pub(super) fn files(path: &Path) -> Result<Vec<PathBuf>, Problems> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path).map_err(|error| unreadable(path, &error))?;
    let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    // hidden entries are an orchestrator's or an editor's own business
    let wanted = |file: &PathBuf| file.extension().is_some_and(|end| end == "toml") && !is_hidden(file);
    let mut files: Vec<PathBuf> = files.filter(wanted).collect();
    files.sort();
    Ok(files)
}

/// Our own reading is noticed, too: to answer it by reading again would never end.
fn is_mere_reading(kind: EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

fn is_hidden(file: &Path) -> bool {
    file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Problems {
    let advice = match error.kind() {
        ErrorKind::NotFound => ": make it, or correct its name",
        ErrorKind::PermissionDenied => ": let the user that patgate runs as read it",
        _ => "",
    };
    Problem::in_file(path, format!("cannot be read ({error}){advice}")).into()
}

/// The SHA-256 of a content, by whose first digits people know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Revision([u8; 32]);

impl Revision {
    pub(super) fn of<'c>(content: impl IntoIterator<Item = &'c [u8]>) -> Self {
        let mut hash = Sha256::new();
        for bytes in content {
            hash.update(bytes);
        }
        Self(hash.finalize().into())
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(6).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
