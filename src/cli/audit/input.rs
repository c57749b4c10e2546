//! Which files are read, line by line, and how far that has come.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;

use crate::audit::{self, Destination, Line, Lines};
use crate::cli::{Exit, print};
use crate::config::{Config, Overrides};

#[derive(Args, Debug)]
pub(super) struct Input {
    /// The files in the order of their time, plain or compressed (gzip, zstd); `-` is standard input
    /// [default: the file of the configuration and those that were set aside before it]
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The configuration file, for what it says under [audit]
    #[arg(long, value_name = "FILE", env = "PATGATE_CONFIG")]
    config: Option<PathBuf>,
}

/// A file to read.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) path: PathBuf,
    /// The file that is written now: while the others are read, it may be set aside.
    open: Option<File>,
    /// Which file had the name, if that is known: while others are read, it may go to another one.
    identity: Option<(u64, u64)>,
}

impl Log {
    fn named(path: PathBuf) -> Self {
        Self { path, open: None, identity: None }
    }

    fn lines(&self) -> io::Result<Lines> {
        if self.path.as_os_str() == "-" {
            return Lines::stdin(io::stdin());
        }
        let file = self.open.as_ref().map_or_else(|| File::open(&self.path), File::try_clone)?;
        if self.identity.is_some_and(|listed| file.metadata().is_ok_and(|found| identity(&found) != listed)) {
            return Err(io::Error::other("it was set aside meanwhile, and this is another one: ask again"));
        }
        Lines::of(file)
    }
}

/// Whether there is anything to be read, or refused, by that name.
fn is_there(file: &Path) -> bool {
    file.as_os_str() == "-" || fs::metadata(file).map_or_else(|error| error.kind() != ErrorKind::NotFound, |_| true)
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

impl Input {
    /// The same, if every file that was named is there: of a part, nothing can be said of the whole.
    pub(super) fn all_files(&self) -> Result<Vec<Log>, Exit> {
        let missing = self.files.iter().filter(|file| !is_there(file));
        let missing: Vec<_> =
            missing.map(|file| format!("there is no file {}: correct its name", file.display())).collect();
        if missing.is_empty() { self.files() } else { Err(Exit::usage(missing.join("\n"))) }
    }

    /// The files to read, the oldest first.
    pub(super) fn files(&self) -> Result<Vec<Log>, Exit> {
        if !self.files.is_empty() {
            return Ok(self.files.iter().cloned().map(Log::named).collect());
        }
        let overrides = Overrides { config: self.config.clone(), ..Overrides::default() };
        let Destination::File(path) = Config::load_audit(&overrides)?.destination else {
            return Err(Exit::usage("the audit log goes to standard output: name the files where it is kept, or `-`"));
        };
        // opened before the others are looked for, it is not missed if it becomes one of them
        let open = File::open(&path).ok();
        let live = open.as_ref().and_then(|file| file.metadata().ok()).as_ref().map(identity);
        let listed = |path: PathBuf| {
            let identity = fs::metadata(&path).ok().as_ref().map(identity);
            Log { identity, ..Log::named(path) }
        };
        let mut files: Vec<_> = audit::siblings(&path).into_iter().map(listed).collect();
        files.retain(|file| live.is_none() || file.identity != live);
        if open.is_some() || path.exists() {
            files.push(Log { open, ..Log::named(path.clone()) });
        }
        if files.is_empty() {
            return Err(Exit::failure(format!("there is no audit log {}: nothing was written yet", path.display())));
        }
        Ok(files)
    }
}

/// Reads all lines of all files. A file that cannot be read to its end is reported, and the others are
/// read. Returns whether all were read.
pub(super) fn each_line(
    files: &[Log],
    progress: &mut Progress,
    mut look: impl FnMut(usize, &Line<'_>) -> ControlFlow<()>,
) -> bool {
    /// How many lines are read between two looks at the clock.
    const OFTEN: u64 = 1000;

    let mut whole = true;
    for (index, file) in files.iter().enumerate() {
        let read = |progress: &mut Progress, look: &mut dyn FnMut(usize, &Line<'_>) -> ControlFlow<()>| {
            let mut lines = file.lines()?;
            while let Some(line) = lines.next_line()? {
                let number = line.number;
                if look(index, &line).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                if number.is_multiple_of(OFTEN) {
                    progress.show(&file.path, lines.position());
                }
            }
            progress.done += lines.position();
            Ok::<_, io::Error>(ControlFlow::Continue(()))
        };
        match read(progress, &mut look) {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => break,
            Err(error) => {
                whole = false;
                progress.clear();
                print::remark(format_args!("warning: {} cannot be read to its end: {error}", file.path.display()));
            }
        }
    }
    progress.clear();
    whole
}

/// How far the reading has come, for a person who waits.
#[derive(Debug)]
pub(super) struct Progress {
    total: u64,
    done: u64,
    next: Option<Instant>,
    shown: bool,
}

impl Progress {
    const PAUSE: Duration = Duration::from_millis(200);
    /// Nobody has to be told of what takes no longer.
    const PATIENCE: Duration = Duration::from_secs(1);

    /// Shows it if standard error is a terminal, unless the answer is written there meanwhile.
    pub(super) fn of(files: &[Log], beside_an_answer: bool) -> Self {
        let total = files.iter().filter_map(|file| fs::metadata(&file.path).ok()).map(|metadata| metadata.len()).sum();
        let visible = io::stderr().is_terminal() && !(beside_an_answer && io::stdout().is_terminal());
        Self { total, done: 0, next: visible.then(|| Instant::now() + Self::PATIENCE), shown: false }
    }

    fn show(&mut self, file: &Path, position: u64) {
        let Some(next) = self.next.filter(|next| Instant::now() >= *next) else { return };
        self.next = Some(next + Self::PAUSE);
        self.shown = true;
        let percent = (100 * (self.done + position)).checked_div(self.total).unwrap_or(0).min(100);
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        // nobody has to be there to read it
        let _ = write!(io::stderr(), "\r\x1b[K{percent} % {}", audit::harmless(&name));
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log with the records 1 and 2 in a file that was set aside and 3 in the one that is written.
    fn written(aside: &str) -> (tempfile::TempDir, Input) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let config = folder.path().join("patgate.toml");
        fs::write(&config, format!("[audit]\npath = \"{}\"\n", path.display())).unwrap();
        fs::write(folder.path().join(aside), "1\n2\n").unwrap();
        fs::write(path, "3\n").unwrap();
        (folder, Input { files: Vec::new(), config: Some(config) })
    }

    fn read(files: &[Log]) -> (bool, String) {
        let mut text = String::new();
        let whole = each_line(files, &mut Progress::of(files, false), |_, line| {
            text += str::from_utf8(line.text).unwrap();
            ControlFlow::Continue(())
        });
        (whole, text)
    }

    #[test]
    fn a_file_that_is_set_aside_while_others_are_read_is_read_once() {
        let (folder, input) = written("log.20261122T080000.000000Z");
        let in_folder = |name: &str| folder.path().join(name);
        let files = input.files().unwrap();
        fs::rename(in_folder("log"), in_folder("log.20261123T080000.000000Z")).unwrap();
        fs::write(in_folder("log"), "4\n").unwrap();
        assert_eq!(read(&files), (true, "123".to_owned()));
        assert_eq!(read(&input.files().unwrap()), (true, "1234".to_owned()));
        // it was opened by its own name, and then has the other one as well
        fs::hard_link(in_folder("log"), in_folder("log.20261124T080000.000000Z")).unwrap();
        assert_eq!(read(&input.files().unwrap()), (true, "1234".to_owned()));
    }

    #[test]
    fn a_name_that_goes_to_another_file_meanwhile_is_told_of() {
        let (folder, input) = written("log.1");
        let files = input.files().unwrap();
        for (from, to) in [("log.1", "log.2"), ("log", "log.1")] {
            fs::rename(folder.path().join(from), folder.path().join(to)).unwrap();
        }
        assert_eq!(read(&files), (false, "3".to_owned()));
        assert_eq!(read(&input.files().unwrap()), (true, "123".to_owned()));
    }
}
