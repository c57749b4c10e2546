//! Which files are read, line by line, and how far that has come.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
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

impl Input {
    /// The files to read, the oldest first.
    pub(super) fn files(&self) -> Result<Vec<PathBuf>, Exit> {
        if !self.files.is_empty() {
            return Ok(self.files.clone());
        }
        let overrides = Overrides { config: self.config.clone(), ..Overrides::default() };
        let Destination::File(path) = Config::load_audit(&overrides)?.destination else {
            return Err(Exit::usage("the audit log goes to standard output: name the files where it is kept, or `-`"));
        };
        let mut files = audit::siblings(&path);
        files.extend(path.exists().then(|| path.clone()));
        if files.is_empty() {
            return Err(Exit::failure(format!("there is no audit log {}: nothing was written yet", path.display())));
        }
        Ok(files)
    }
}

/// Reads all lines of all files. A file that cannot be read to its end is reported, and the others are
/// read. Returns whether all were read.
pub(super) fn each_line(
    files: &[PathBuf],
    progress: &mut Progress,
    mut look: impl FnMut(usize, &Line<'_>) -> ControlFlow<()>,
) -> bool {
    /// How many lines are read between two looks at the clock.
    const OFTEN: u64 = 1000;

    let mut whole = true;
    for (index, file) in files.iter().enumerate() {
        let read = |progress: &mut Progress, look: &mut dyn FnMut(usize, &Line<'_>) -> ControlFlow<()>| {
            let stdin = file.as_os_str() == "-";
            let mut lines = if stdin { Lines::stdin(io::stdin())? } else { Lines::open(file)? };
            while let Some(line) = lines.next_line()? {
                let number = line.number;
                if look(index, &line).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                if number.is_multiple_of(OFTEN) {
                    progress.show(file, lines.position());
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
                print::remark(format_args!("warning: {} cannot be read to its end: {error}", file.display()));
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
    pub(super) fn of(files: &[PathBuf], beside_an_answer: bool) -> Self {
        let total = files.iter().filter_map(|file| fs::metadata(file).ok()).map(|metadata| metadata.len()).sum();
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
