//! Following files, or a folder of files, by their content: told by the system where it can, by a slow
//! comparison where it cannot, and by the operator's word.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
#[cfg(target_os = "linux")]
use rustix::fs::{AtFlags, CWD, FileType, StatxAttributes, StatxFlags, statx};
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, watch};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use crate::document::{Problem, Problems};

/// A file that was just changed is read again after this pause, until two readings agree: what is
/// being written in place is not judged half-way.
const SETTLE: Duration = Duration::from_millis(30);
const SETTLE_ROUNDS: usize = 60;

/// Files that have not changed for this long are not read again because something else beside them has.
const REST: Duration = Duration::from_secs(1);

/// Files and what is in them, in the order of their names.
pub type Content = Vec<(PathBuf, Vec<u8>)>;

/// The operator's word that files have changed, for everybody who follows some. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reload(watch::Sender<()>);

impl Default for Reload {
    fn default() -> Self {
        Self(watch::Sender::new(()))
    }
}

impl Reload {
    /// Gives the word.
    pub fn tell(&self) {
        self.0.send_replace(());
    }

    /// Listens from now on.
    pub fn listen(&self) -> Told {
        Told(self.0.subscribe())
    }
}

/// Where the operator's word is heard.
#[derive(Debug)]
pub struct Told(watch::Receiver<()>);

impl Told {
    /// Waits for the next word; several in a row may be heard as one.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            // nobody is left who could give it
            std::future::pending::<()>().await;
        }
    }
}

/// What a look at the files showed.
#[derive(Debug)]
pub enum Look {
    /// They are as they were at the last look, or still cannot be read for the same reason.
    Unchanged,
    /// There is something new.
    Changed {
        /// What is in the files now, or why that cannot be known.
        content: Result<Content, Problems>,
        /// When there was first a reason to look.
        noticed: Instant,
    },
}

/// Follows some paths.
#[derive(Debug)]
pub struct Watch {
    paths: Vec<PathBuf>,
    poll: Duration,
    /// What was told last, good or bad.
    told: Option<Result<Revision, Problems>>,
    /// How the files stood when they were read last, if they had been at rest.
    stat: Option<Stat>,
}

impl Watch {
    /// Begins with nothing told, so that what is there will be told as new.
    pub fn new(paths: Vec<PathBuf>, poll: Duration) -> Self {
        Self { paths, poll, told: None, stat: None }
    }

    /// Begins with what was just read of one path.
    pub fn after(path: &Path, poll: Duration, content: &Content) -> Self {
        Self { paths: vec![path.to_owned()], poll, told: Some(Ok(fingerprint(content))), stat: None }
    }

    /// Tells `looked` of each look at the files. It is called on a thread of its own, for it may take its time.
    pub async fn follow(mut self, reload: Reload, looked: impl Fn(Look) + Send + Sync + 'static) {
        let looked = Arc::new(looked);
        let mut reload = reload.listen();
        self.warn_of_mounts().await;
        let (notice, mut noticed) = mpsc::channel(1);
        // the watcher lives as long as this function
        let _watcher = self.watcher(&notice);
        let mut poll = self.interval();
        loop {
            tokio::select! {
                Some(()) = noticed.recv() => if self.is_at_rest().await {
                    // somebody writes beside the files, perhaps a log, and may go on doing so
                    sleep(SETTLE).await;
                    continue;
                },
                () = reload.next() => {}
                _ = poll.tick() => {}
            }
            let noticed = Instant::now();
            self.stat = self.stat().await.filter(Stat::has_rested);
            let look = match self.settled().await {
                Some(reading) => {
                    self.told = Some(state(&reading));
                    Look::Changed { content: reading.map(|(content, _)| content), noticed }
                }
                None => Look::Unchanged,
            };
            let looked = Arc::clone(&looked);
            blocking(move || looked(look)).await;
        }
    }

    /// Tells of files that will stay as they are: each is a mount by itself, and what replaces it elsewhere does
    /// not come here.
    async fn warn_of_mounts(&self) {
        let paths = self.paths.clone();
        for path in blocking(move || paths.into_iter().filter(|path| is_mounted_file(path))).await {
            tracing::warn!(
                path = %path.display(),
                "a file is mounted by itself (subPath in Kubernetes): when it is replaced, that is not seen here; \
                 mount the folder that it is in"
            );
        }
    }

    fn interval(&self) -> Interval {
        let mut poll = interval(self.poll);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        poll
    }

    /// Watches the folders, not the files, and without a filter by name: editors and Kubernetes swap
    /// files and links, and a watch on the file itself would follow the old one.
    fn watcher(&self, notice: &mpsc::Sender<()>) -> Option<RecommendedWatcher> {
        let notice = notice.clone();
        let tell = move |event: notify::Result<Event>| {
            if event.as_ref().is_ok_and(|event| is_mere_reading(event.kind)) {
                return;
            }
            // a notice that waits already says as much
            let _ = notice.try_send(());
        };
        let watcher = notify::recommended_watcher(tell).and_then(|mut watcher| {
            let folders: BTreeSet<&Path> = self.paths.iter().map(|path| folder_of(path)).collect();
            folders.into_iter().try_for_each(|folder| watcher.watch(folder, RecursiveMode::NonRecursive))?;
            Ok(watcher)
        });
        watcher
            .inspect_err(|error| {
                let paths = &self.paths;
                tracing::warn!(?paths, %error, poll = ?self.poll, "no notices of changes: comparing the content only");
            })
            .ok()
    }

    /// What is read once it no longer changes under our eyes; `None` if it is what was told.
    async fn settled(&self) -> Option<Reading> {
        let mut reading = self.reading().await;
        for _ in 0..SETTLE_ROUNDS {
            if self.told == Some(state(&reading)) {
                return None;
            }
            sleep(SETTLE).await;
            let again = self.reading().await;
            if again == reading {
                break;
            }
            reading = again;
        }
        Some(reading)
    }

    /// Whether a notice must be about something else: the files stand as they stood when they were read.
    async fn is_at_rest(&self) -> bool {
        self.stat.is_some() && self.stat().await == self.stat
    }

    async fn stat(&self) -> Option<Stat> {
        let paths = self.paths.clone();
        blocking(move || Stat::of(&paths)).await
    }

    /// Reads on a thread of its own: a hanging file system must not hold up signals and health.
    async fn reading(&self) -> Reading {
        let paths = self.paths.clone();
        blocking(move || {
            let contents: Vec<Content> = paths.iter().map(|path| read(path)).collect::<Result<_, _>>()?;
            let content = contents.concat();
            let fingerprint = fingerprint(&content);
            Ok((content, fingerprint))
        })
        .await
    }
}

/// The files as they were read, with their fingerprint.
type Reading = Result<(Content, Revision), Problems>;

/// What is kept of a reading.
fn state(reading: &Reading) -> Result<Revision, Problems> {
    reading.as_ref().map(|(_, fingerprint)| *fingerprint).map_err(Problems::clone)
}

/// How files stand: enough to see that they were not touched, without reading them.
#[derive(Debug, PartialEq, Eq)]
struct Stat(Vec<FileStat>);

#[derive(Debug, PartialEq, Eq)]
struct FileStat {
    path: PathBuf,
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds; a change of the content or of any attribute moves it.
    changed: (i64, i64),
}

impl Stat {
    fn of(paths: &[PathBuf]) -> Option<Self> {
        let mut found = Vec::new();
        for path in paths.iter().flat_map(|path| files(path).unwrap_or_else(|_| vec![path.clone()])) {
            let of = fs::metadata(&path).ok()?;
            let changed = (of.ctime(), of.ctime_nsec());
            found.push(FileStat { path, device: of.dev(), inode: of.ino(), size: of.size(), changed });
        }
        Some(Self(found))
    }

    /// Whether every further change must show: two within a tick of the file system's clock look like one.
    fn has_rested(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        self.0.iter().all(|file| u64::try_from(file.changed.0).is_ok_and(|changed| changed + REST.as_secs() < now))
    }
}

fn folder_of(path: &Path) -> &Path {
    let folder = if path.is_dir() { Some(path) } else { path.parent() };
    folder.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether a file, and not the folder that it is in, is what was mounted.
#[cfg(target_os = "linux")]
fn is_mounted_file(path: &Path) -> bool {
    let status = statx(CWD, path, AtFlags::empty(), StatxFlags::TYPE);
    status.is_ok_and(|status| {
        let is_folder = FileType::from_raw_mode(status.stx_mode.into()) == FileType::Directory;
        status.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) && !is_folder
    })
}

/// Other systems have no such mounts.
#[cfg(not(target_os = "linux"))]
fn is_mounted_file(_: &Path) -> bool {
    false
}

/// Tells one content from another, and a file that is exposed from one that no longer is; the content itself may
/// be large, or secret, and is not kept.
fn fingerprint(content: &Content) -> Revision {
    let lengths: Vec<[u8; 8]> = content.iter().map(|(_, bytes)| (bytes.len() as u64).to_le_bytes()).collect();
    let mark: fn(&Path) -> &'static [u8] = |path| if is_exposed(path) { b"\0!" } else { b"\0." };
    let parts = content
        .iter()
        .zip(&lengths)
        .flat_map(|((path, bytes), length)| [path.as_os_str().as_encoded_bytes(), mark(path), length, bytes]);
    Revision::of(parts)
}

/// Whether everybody on this machine can read or write a file.
pub fn is_exposed(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.mode() & 0o006 != 0)
}

/// Work that may take its time, on a thread of its own.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// Reads a file, or all `*.toml` files of a folder.
///
/// # Errors
/// One of them cannot be read.
pub fn read(path: &Path) -> Result<Content, Problems> {
    let read = |path: PathBuf| match fs::read(&path) {
        Ok(content) => Ok((path, content)),
        Err(error) => Err(unreadable(&path, &error)),
    };
    files(path)?.into_iter().map(read).collect()
}

/// A file, or all `*.toml` files of a folder in the order of their names.
///
/// # Errors
/// The folder cannot be read.
pub fn files(path: &Path) -> Result<Vec<PathBuf>, Problems> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path).map(|entries| entries.map(|entry| Ok(entry?.path())));
    entries.and_then(listed).map_err(|error| unreadable(path, &error))
}

/// The files among a folder's entries. Without one that cannot be told, a part would pass for the whole.
fn listed(entries: impl Iterator<Item = io::Result<PathBuf>>) -> io::Result<Vec<PathBuf>> {
    let mut files = entries.collect::<io::Result<Vec<_>>>()?;
    // hidden entries are an orchestrator's or an editor's own business
    files.retain(|file| file.extension().is_some_and(|end| end == "toml") && !is_hidden(file));
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

fn unreadable(path: &Path, error: &io::Error) -> Problems {
    let advice = match error.kind() {
        ErrorKind::NotFound => ": make it, or correct its name",
        ErrorKind::PermissionDenied => ": let the user that patgate runs as read it",
        _ => "",
    };
    Problem::in_file(path, format!("cannot be read ({error}){advice}")).into()
}

/// The SHA-256 of a content, by whose first digits people know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revision([u8; 32]);

impl Revision {
    /// The revision of these bytes, one after the other.
    pub fn of<'c>(content: impl IntoIterator<Item = &'c [u8]>) -> Self {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_breaks_off_is_not_taken_for_a_short_one() {
        let entry = |name: &str| Ok(PathBuf::from(name));
        let names = ["b.toml", ".hidden.toml", "a.toml", "notes.txt"];
        assert_eq!(listed(names.into_iter().map(entry)).unwrap(), [Path::new("a.toml"), Path::new("b.toml")]);
        let broken = [entry("a.toml"), Err(ErrorKind::Other.into()), entry("b.toml")];
        assert!(listed(broken.into_iter()).is_err());
    }

    #[test]
    fn every_touch_of_a_file_shows_once_it_has_rested() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.toml");
        fs::write(&path, "one").unwrap();
        let stat = || Stat::of(std::slice::from_ref(&path));
        let first = stat().unwrap();
        assert!(!first.has_rested(), "two changes at one moment look like one");
        fs::write(folder.path().join("beside.log"), "line").unwrap();
        assert_eq!(stat().as_ref(), Some(&first));

        fs::write(folder.path().join("next"), "two").unwrap();
        fs::rename(folder.path().join("next"), &path).unwrap();
        assert_ne!(stat().unwrap(), first);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed();
        let rested = |seconds| {
            let changed = (now - seconds, 0);
            Stat(vec![FileStat { changed, ..stat().unwrap().0.remove(0) }]).has_rested()
        };
        assert!(rested(3) && !rested(0) && !rested(-3));
        fs::remove_file(&path).unwrap();
        assert_eq!(stat(), None);
    }
}
