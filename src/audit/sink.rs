//! The destination itself: standard output, or a file that is set aside when it is full or old, and that
//! others may move or remove at any time.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::log::{Destination, Params, Rotation};
use super::names;

/// Where bytes go.
#[derive(Debug)]
pub(super) enum Sink {
    Stdout(File),
    File(LogFile),
}

/// A file by its name, open or yet to be opened.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    rotation: Rotation,
    /// Whether nobody else may write to it.
    exclusive: bool,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    identity: (u64, u64),
    size: u64,
    born: Timestamp,
    regular: bool,
}

/// What has become of the file that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has its name.
    Named,
    /// It has its name, and was cut.
    Cut,
    /// It was moved, and what is in it is kept.
    Moved,
    /// It was removed, with all that is in it.
    Gone,
}

/// What was found when a file was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It was open already.
    Open,
    /// A file without records.
    Empty,
    /// Records, or whatever else.
    Text,
}

impl Sink {
    /// Opens the destination. A pipe that nobody reads yet is opened later.
    pub(super) fn open(params: &Params) -> io::Result<Self> {
        let path = match &params.destination {
            // a descriptor of our own, for the library's would hold back what it could not write
            Destination::Stdout => return Ok(Self::Stdout(io::stdout().as_fd().try_clone_to_owned()?.into())),
            Destination::File(path) => path,
        };
        let mut file =
            LogFile { path: path.clone(), rotation: params.rotation.clone(), exclusive: params.chain, open: None };
        match file.ready() {
            Err(_) if fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo()) => {}
            found => drop(found?),
        }
        Ok(Self::File(file))
    }

    /// Sees to it that there is something to write to.
    pub(super) fn ready(&mut self) -> io::Result<Found> {
        match self {
            Self::Stdout(_) => Ok(Found::Open),
            Self::File(file) => file.ready(),
        }
    }

    /// Sets the file aside if it is time. Returns its new name.
    pub(super) fn rotate(&mut self, now: Timestamp) -> io::Result<Option<PathBuf>> {
        match self {
            Self::File(file) if file.is_due(now) => file.rotate(now).map(Some),
            _ => Ok(None),
        }
    }

    /// Whether the next byte is the first of a file.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::File(LogFile { open: Some(open), .. }) if open.size == 0)
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(file) => file.write(bytes),
            Self::File(file) => {
                let open = file.open.as_mut().ok_or(ErrorKind::NotFound)?;
                let written = open.file.write(bytes)?;
                open.size += written as u64;
                Ok(written)
            }
        }
    }

    /// Whether the file, which was there before, ends in the middle of a line.
    pub(super) fn ends_within_a_line(&self) -> io::Result<bool> {
        match self {
            Self::File(LogFile { path, open: Some(Open { regular: true, .. }), .. }) => {
                Ok(!Tail::read(path)?.torn.is_empty())
            }
            _ => Ok(false),
        }
    }

    /// What has become of the file.
    pub(super) fn standing(&mut self) -> Standing {
        match self {
            Self::Stdout(_) => Standing::Named,
            Self::File(file) => file.standing(),
        }
    }

    /// Whether there is something to write to.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self, Self::File(LogFile { open: None, .. }))
    }

    /// Lets go of the file; it is opened by its name when it is next needed.
    pub(super) fn close(&mut self) {
        if let Self::File(file) = self {
            file.open = None;
        }
    }

    /// Whether it is a pipe with a name.
    pub(super) fn is_pipe(&self) -> bool {
        let Self::File(LogFile { open: Some(open), .. }) = self else { return false };
        open.file.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo())
    }

    /// Asks the system to write what it holds in memory.
    pub(super) fn sync(&self) -> io::Result<()> {
        match self {
            Self::File(LogFile { open: Some(Open { file, regular: true, .. }), .. }) => file.sync_data(),
            _ => Ok(()),
        }
    }
}

impl LogFile {
    fn ready(&mut self) -> io::Result<Found> {
        if self.open.is_some() {
            return Ok(Found::Open);
        }
        let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        let mut options = OpenOptions::new();
        // without a reader, opening a pipe would block; writing to one may
        let file = options.append(true).create(true).mode(0o600).custom_flags(nonblocking).open(&self.path)?;
        fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
        if self.exclusive {
            file.try_lock().map_err(|_| {
                io::Error::new(ErrorKind::ResourceBusy, "another process writes to it: a chain has one writer only")
            })?;
        }
        let metadata = file.metadata()?;
        let size = metadata.len();
        let born = metadata.created().ok().and_then(|born| Timestamp::try_from(born).ok());
        self.open = Some(Open {
            file,
            identity: identity(&metadata),
            size,
            born: born.unwrap_or_else(Timestamp::now),
            regular: metadata.is_file(),
        });
        Ok(if size == 0 { Found::Empty } else { Found::Text })
    }

    fn is_due(&self, now: Timestamp) -> bool {
        let Some(open) = self.open.as_ref().filter(|open| open.regular && open.size > 0) else { return false };
        self.rotation.size.is_some_and(|size| open.size >= size)
            || self.rotation.age.is_some_and(|age| now.duration_since(open.born).unsigned_abs() >= age)
    }

    fn rotate(&mut self, now: Timestamp) -> io::Result<PathBuf> {
        let aside = names::aside(&self.path, now);
        fs::rename(&self.path, &aside)?;
        self.open = None;
        if let Some(keep) = self.rotation.keep {
            for old in names::beyond(&self.path, keep) {
                fs::remove_file(&old).unwrap_or_else(|error| {
                    tracing::warn!(file = %old.display(), %error, "an old audit log cannot be removed");
                });
            }
        }
        Ok(aside)
    }

    fn standing(&mut self) -> Standing {
        let Some(open) = &mut self.open else { return Standing::Named };
        match fs::metadata(&self.path) {
            Ok(metadata) if identity(&metadata) == open.identity => {
                let cut = open.regular && metadata.len() < std::mem::replace(&mut open.size, metadata.len());
                if cut { Standing::Cut } else { Standing::Named }
            }
            Err(error) if error.kind() != ErrorKind::NotFound => Standing::Named,
            _ if open.file.metadata().is_ok_and(|metadata| metadata.nlink() == 0) => Standing::Gone,
            _ => Standing::Moved,
        }
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// The longest end of a file that is looked at for its last line.
const TAIL: u64 = 1024 * 1024;

/// The end of a file: its last whole line, and what stands behind it without an end of its own.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tail {
    pub(super) line: Vec<u8>,
    pub(super) torn: Vec<u8>,
}

impl Tail {
    /// Reads the end of a file.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        use std::io::{Read, Seek, SeekFrom};

        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(TAIL)))?;
        let mut text = Vec::new();
        file.take(TAIL).read_to_end(&mut text)?;
        let Some(end) = memchr::memrchr(b'\n', &text) else { return Ok(Self { line: Vec::new(), torn: text }) };
        let torn = text.split_off(end + 1);
        text.truncate(end);
        let line = memchr::memrchr(b'\n', &text).map_or(0, |start| start + 1);
        Ok(Self { line: text.split_off(line), torn })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::OnLoss;
    use crate::token::Prefix;

    fn params(path: &Path, rotation: Rotation) -> Params {
        Params {
            destination: Destination::File(path.to_owned()),
            queue: 1,
            on_loss: OnLoss::Count,
            patience: std::time::Duration::from_secs(2),
            rotation,
            chain: false,
            by_token: false,
            spans: None,
            prefix: Prefix::default(),
        }
    }

    #[test]
    fn a_file_is_set_aside_once_it_is_full_or_old_and_never_when_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let hour = std::time::Duration::from_hours(1);
        let rotation = Rotation { size: Some(10), age: Some(hour), keep: Some(2) };
        let mut sink = Sink::open(&params(&path, rotation)).unwrap();
        let now = Timestamp::now();
        assert_eq!(sink.rotate(now + 2 * hour).unwrap(), None);
        for (text, at, rotated) in [
            ("nine by.\n", now, false),
            ("\n", now, true),
            ("a\n", now + hour / 2, false),
            ("", now + 2 * hour, true),
            // the clock is set back: names go on
            ("0123456789", now, true),
            ("0123456789", now, true),
        ] {
            sink.ready().unwrap();
            assert_eq!(sink.write(text.as_bytes()).unwrap(), text.len());
            assert_eq!(sink.rotate(at).unwrap().is_some(), rotated, "{text}");
        }
        let left = names::siblings(&path);
        assert_eq!(left.len(), 2);
        assert!(left.iter().all(|path| fs::read_to_string(path).unwrap() == "0123456789"), "{left:?}");
    }

    #[test]
    fn the_end_of_a_file_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        for (text, line, torn) in
            [("", "", ""), ("a", "", "a"), ("a\n", "a", ""), ("a\nb", "a", "b"), ("a\nb\n", "b", ""), ("a\n\n", "", "")]
        {
            fs::write(&path, text).unwrap();
            assert_eq!(Tail::read(&path).unwrap(), Tail { line: line.into(), torn: torn.into() }, "{text:?}");
        }
    }
}
