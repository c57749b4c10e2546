//! The writer: a thread of its own that takes records from the queue and writes them in large pieces.
//!
//! A piece stays in memory until all of it is written, and is tried again from where it stopped; so a
//! line that was written by half is completed, and nothing is glued to it. Where the rest would go to
//! another file, the line is written there anew.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::chain::{Head, Sealed};
use super::log::{Destination, Missing, OnLoss, Params, Shared};
use super::names;
use super::reader::Lines;
use super::record;
use super::sink::{Found, Sink, Standing, Tail};

/// How long the writer lets records gather after it has written some. A few are written often: that takes so little
/// time that a request which meets it on its core hardly waits. In a rush there are fewer wake-ups and larger writes.
const GATHER: Duration = Duration::from_millis(1);
const GATHER_IN_RUSH: Duration = Duration::from_millis(10);

/// From so many bytes of records in each millisecond on, it is a rush.
const RUSH: u128 = 8 * 1024;

/// How long it rests after a failure before it tries again.
const RETRY: Duration = Duration::from_millis(200);

/// How long it goes on with a file that could not be set aside, before it tries that again.
const ROTATE_AGAIN: Duration = Duration::from_mins(1);

/// About how much is written at once, in bytes.
const PIECE: usize = 64 * 1024;

/// How many bytes the writer keeps room for once a rush is over.
const USUAL: usize = 2 * 1024 * 1024;

/// The writer's side of the log.
#[derive(Debug)]
pub(super) struct Writing {
    shared: Arc<Shared>,
    sink: Sink,
    /// The last link, where records are chained.
    chain: Option<Head>,
    piece: Piece,
    /// Lost records that the log does not tell of yet.
    missing: Option<Missing>,
    rotate_again: Option<Instant>,
    /// How long records wait for a destination that fails; none: as long as it does.
    patience: Option<Duration>,
    failing_since: Option<Instant>,
}

/// Records that were taken from the queue: a line each, with its end.
#[derive(Debug)]
struct Batch<'b>(&'b [u8]);

impl<'b> Iterator for Batch<'b> {
    type Item = &'b [u8];

    fn next(&mut self) -> Option<&'b [u8]> {
        let (line, rest) = self.0.split_at_checked(memchr::memchr(b'\n', self.0)? + 1)?;
        self.0 = rest;
        Some(line)
    }
}

/// What is being written.
#[derive(Debug, Default)]
struct Piece {
    text: Vec<u8>,
    /// How much of it has been written.
    done: usize,
    /// Where the part begins that went to the file that is open.
    since: usize,
    /// How many records are in it.
    records: usize,
    /// The link before its first record.
    before: Option<Head>,
    /// The lost records that it tells of.
    missing: Option<Missing>,
}

impl Piece {
    fn rest(&self) -> &[u8] {
        self.text.get(self.done..).unwrap_or_default()
    }

    /// Goes back to the beginning of the line that was written by half.
    fn rewind(&mut self) {
        let done = self.text.get(..self.done).unwrap_or_default();
        self.done = memchr::memrchr(b'\n', done).map_or(0, |end| end + 1);
        self.since = self.done;
    }

    /// Has the line that was written by half followed by an end, and written anew.
    fn begin_a_line(&mut self) {
        let done = self.done;
        self.rewind();
        if self.done < done {
            self.text.insert(self.done, b'\n');
        }
    }
}

impl Writing {
    /// Opens the destination and finds the end of the chain.
    pub(super) fn open(params: &Params, shared: Arc<Shared>) -> io::Result<Self> {
        let sink = Sink::open(params)?;
        let mut writing = Self {
            shared,
            sink,
            chain: params.chain.then_some(Head::START),
            piece: Piece::default(),
            missing: None,
            rotate_again: None,
            // where nothing is served without a record, nothing more comes, and what is there is kept
            patience: (params.on_loss == OnLoss::Count).then_some(params.patience),
            failing_since: None,
        };
        if let Destination::File(path) = &params.destination
            && fs::metadata(path).is_ok_and(|metadata| metadata.is_file())
        {
            writing.resume(path)?;
        }
        Ok(writing)
    }

    /// Goes on from what an earlier process has left: the chain from its last line, and behind a line
    /// that it could not finish, a new one.
    fn resume(&mut self, path: &Path) -> io::Result<()> {
        let mut tail = Tail::read(path)?;
        let torn = tail.torn.len();
        let file = path.display();
        if self.chain.is_some() {
            let mut place = path.to_owned();
            if tail.line.is_empty()
                && let Some(found) = last_aside(path)
            {
                (place, tail.line) = found;
            }
            if let Some(sealed) = Sealed::read(&tail.line) {
                self.chain = Some(sealed.head);
            } else if !tail.line.is_empty() {
                let file = place.display();
                tracing::warn!(%file, "the last audit record is not part of a chain: a new chain begins");
            }
        }
        if torn > 0 {
            tracing::warn!(%file, bytes = torn, "the last audit record is torn: it was not written to its end");
            self.piece.text.push(b'\n');
            let start = self.piece.text.len();
            record::write_torn(&mut self.piece.text, Timestamp::now(), torn);
            self.seal(start);
        }
        Ok(())
    }

    /// Writes until the log is closed and there is nothing left, or no time.
    pub(super) fn run(mut self) {
        let mut batch = Vec::new();
        let mut gather = GATHER;
        loop {
            // the first time there is no record: a torn line is reported, and a pipe that had no reader opened
            if !self.write_out(&mut Batch(&batch)) {
                return;
            }
            let rate = batch.len() as u128 / gather.as_millis();
            gather = if rate > RUSH { GATHER_IN_RUSH } else { GATHER };
            if self.shared.lock().closed.is_none() {
                thread::sleep(gather);
            }
            batch.clear();
            batch.shrink_to(USUAL);
            if !self.take(&mut batch) {
                break;
            }
        }
        if let Err(error) = self.sink.sync() {
            tracing::error!(%error, "the audit log may not have reached its disk");
        }
        self.tell_head("the last audit record");
    }

    /// Waits for records and takes them; `false` at the end of the log.
    fn take(&mut self, batch: &mut Vec<u8>) -> bool {
        loop {
            let idle = self.shared.filled.wait_while(self.shared.lock(), |queue| {
                queue.records == 0 && queue.missing.is_none() && queue.closed.is_none() && !queue.reopen
            });
            let mut queue = idle.unwrap_or_else(PoisonError::into_inner);
            let done = queue.is_done();
            let reopen = std::mem::take(&mut queue.reopen);
            std::mem::swap(&mut queue.text, batch);
            queue.in_flight = std::mem::take(&mut queue.records);
            self.missing = queue.missing.take();
            drop(queue);
            if reopen {
                self.reopen();
            }
            if done || !batch.is_empty() || self.missing.is_some() {
                return !done;
            }
        }
    }

    /// Lets go of a file that was moved, and opens or makes the one that has its name now.
    fn reopen(&mut self) {
        match self.sink.standing() {
            Standing::Moved => self.leave(),
            Standing::Gone => self.sink.close(),
            Standing::Named | Standing::Cut => {}
        }
        // it may have been let go of already, with the last record that went into it. If there is none to be had,
        // the next record meets the same error and reports it
        if !self.sink.is_open() && self.sink.ready().is_ok() {
            tracing::info!("the audit log was moved: a new file was begun");
        }
    }

    /// Writes all records, however often it takes; `false` if time ran out.
    fn write_out(&mut self, records: &mut Batch<'_>) -> bool {
        loop {
            let written = self.fill(records).and_then(|()| self.write());
            match written {
                Ok(()) => {
                    self.succeed();
                    self.shared.lock().in_flight -= self.piece.records;
                    self.piece.records = 0;
                    if records.0.is_empty() && self.missing.is_none() {
                        return true;
                    }
                }
                Err(error) => {
                    self.fail(&error);
                    if !self.rest() {
                        return false;
                    }
                    self.look_again();
                    if self.is_out_of_patience() {
                        self.give_up(records);
                    }
                }
            }
        }
    }

    /// Puts together the next piece, if the last one has been written.
    fn fill(&mut self, records: &mut Batch<'_>) -> io::Result<()> {
        self.rotate();
        self.ready()?;
        if !self.piece.rest().is_empty() {
            return Ok(());
        }
        self.piece.text.clear();
        (self.piece.done, self.piece.since) = (0, 0);
        (self.piece.before, self.piece.missing) = (self.chain, None);
        while self.piece.text.len() < PIECE {
            let start = self.piece.text.len();
            if let Some(line) = records.next() {
                self.piece.text.extend_from_slice(line);
                self.piece.records += 1;
            } else if let Some(missing) = self.missing.take() {
                // whatever was lost came after all that was in the queue
                let Missing { count, since } = *self.piece.missing.insert(missing);
                record::write_lost(&mut self.piece.text, Timestamp::now(), count, since);
            } else {
                break;
            }
            self.seal(start);
        }
        Ok(())
    }

    fn seal(&mut self, start: usize) {
        if let Some(head) = &mut self.chain {
            let first = start == 0 && self.sink.is_empty();
            head.seal(&mut self.piece.text, start, first);
        }
    }

    /// Writes the piece to its end.
    fn write(&mut self) -> io::Result<()> {
        loop {
            while !self.piece.rest().is_empty() {
                let rest = self.piece.text.get(self.piece.done..).unwrap_or_default();
                match self.sink.write(rest) {
                    Ok(0) => return Err(ErrorKind::WriteZero.into()),
                    Ok(written) => self.piece.done += written,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            match self.sink.standing() {
                Standing::Named | Standing::Cut => return Ok(()),
                Standing::Moved => {
                    self.leave();
                    return Ok(());
                }
                // what went into a file that nobody can open is not written
                Standing::Gone => {
                    self.sink.close();
                    self.piece.done = self.piece.since;
                    self.ready()?;
                }
            }
        }
    }

    /// Opens the destination where it is not open, and begins a line of its own there.
    fn ready(&mut self) -> io::Result<()> {
        let found = self.sink.ready()?;
        if found == Found::Open {
            return Ok(());
        }
        self.piece.rewind();
        if found == Found::Text && self.sink.ends_within_a_line()? {
            tracing::warn!("the audit log ends within a line: the next record begins a new one");
            self.piece.text.insert(self.piece.done, b'\n');
        }
        Ok(())
    }

    /// Sets the file aside if it is time. If that fails, it is written on.
    fn rotate(&mut self) {
        // between lines only
        if !self.piece.rest().is_empty() || self.rotate_again.is_some_and(|again| Instant::now() < again) {
            return;
        }
        match self.sink.standing() {
            // what has its name now is somebody else's
            Standing::Moved => return self.leave(),
            Standing::Gone => return self.sink.close(),
            Standing::Named | Standing::Cut => {}
        }
        match self.sink.rotate(Timestamp::now()) {
            Ok(None) => {}
            Ok(Some(aside)) => self.tell_rotation(&aside),
            Err(error) => {
                self.rotate_again = Some(Instant::now() + ROTATE_AGAIN);
                tracing::warn!(%error, "the audit log cannot be set aside: it is written on");
            }
        }
    }

    /// Lets go of a file that others have set aside, once all that was sealed is in it.
    fn leave(&mut self) {
        self.sink.close();
        self.tell_head("the last audit record before the log was moved");
    }

    fn tell_rotation(&self, aside: &Path) {
        tracing::info!(file = %aside.display(), "the audit log was set aside");
        self.tell_head("the last audit record before that");
    }

    /// Tells the head of the chain, for those who keep it where the log's files are not.
    fn tell_head(&self, message: &str) {
        if let Some(head) = self.chain.filter(|head| *head != Head::START) {
            tracing::info!(%head, "{message}");
        }
    }

    /// Nothing waits any more. Where there was nothing to write, as after records were given up, that proves nothing
    /// of the destination; but where nothing is served without a record, nothing would ever come to prove it.
    fn succeed(&mut self) {
        self.failing_since = None;
        let proven = self.piece.done > 0 || self.patience.is_none();
        if proven && self.shared.failing.swap(false, Ordering::Relaxed) {
            tracing::info!("the audit log is written again");
        }
    }

    fn fail(&mut self, error: &io::Error) {
        self.failing_since.get_or_insert_with(Instant::now);
        if !self.shared.failing.swap(true, Ordering::Relaxed) {
            tracing::error!(%error, "the audit log cannot be written: records wait in memory");
        }
    }

    /// Sees what has become of a file that could not be written. A pipe is opened anew: perhaps it has
    /// another reader.
    fn look_again(&mut self) {
        match self.sink.standing() {
            Standing::Named if self.sink.is_pipe() => {
                self.sink.close();
                // the next reader may find half a line in it
                self.piece.begin_a_line();
            }
            Standing::Named => {}
            Standing::Cut => self.piece.rewind(),
            Standing::Moved => self.sink.close(),
            Standing::Gone => {
                self.sink.close();
                self.piece.done = self.piece.since;
            }
        }
    }

    fn is_out_of_patience(&self) -> bool {
        self.patience.zip(self.failing_since).is_some_and(|(patience, since)| since.elapsed() >= patience)
    }

    /// Counts as lost what was not written of the piece, and all that was to follow it: memory is no place in
    /// which records are safe. The chain goes on from the last one that was written whole.
    fn give_up(&mut self, records: &mut Batch<'_>) {
        // what comes from now on has the same patience
        self.failing_since = Some(Instant::now());
        let piece = std::mem::take(&mut self.piece);
        let (written, _) = piece.text.split_at(piece.done.min(piece.text.len()));
        let end = memchr::memrchr(b'\n', written).map_or(0, |end| end + 1);
        let (whole, torn) = written.split_at(end);
        let rest = piece.text.get(end..).unwrap_or_default();
        if let Some(head) = &mut self.chain {
            let sealed = whole.trim_ascii_end().rsplit(|byte| *byte == b'\n').next().and_then(Sealed::read);
            *head = sealed.map(|sealed| sealed.head).or(piece.before).unwrap_or(*head);
        }
        if !torn.is_empty() && self.sink.is_open() {
            self.piece.text.push(b'\n');
        }
        // a line that tells of lost records is no record, and what it tells is told later
        let lines = memchr::memchr_iter(b'\n', rest).count().saturating_sub(piece.missing.iter().count());
        let lost = lines.min(piece.records) + records.by_ref().count();
        let untold = piece.missing.or(self.missing.take());
        self.shared.give_up(lost, untold);
    }

    /// Rests before another try; `false` if there is nothing more to be tried, or no time.
    fn rest(&self) -> bool {
        let queue = self.shared.lock();
        let rested = self.shared.filled.wait_timeout_while(queue, RETRY, |queue| queue.closed.is_none());
        let (queue, _) = rested.unwrap_or_else(PoisonError::into_inner);
        let Some(deadline) = queue.closed else { return true };
        let nothing = queue.in_flight == 0 && queue.records == 0 && self.piece.rest().is_empty();
        drop(queue);
        if nothing || Instant::now() >= deadline {
            return false;
        }
        thread::sleep(RETRY.min(deadline.saturating_duration_since(Instant::now())));
        true
    }
}

/// The last line of what was set aside, and its file. Of a file and its compressed copy, one does. What is
/// before a file that cannot be read is no end to go on from.
fn last_aside(path: &Path) -> Option<(PathBuf, Vec<u8>)> {
    for copies in names::copies(path).into_iter().rev() {
        let mut unread = None;
        for copy in copies {
            match last_line(&copy) {
                Ok(line) if line.is_empty() => {}
                Ok(line) => return Some((copy, line)),
                Err(error) => unread = Some((copy, error)),
            }
        }
        if let Some((copy, error)) = unread {
            let file = copy.display();
            tracing::warn!(%file, %error, "the last audit record cannot be read: a new chain begins");
            return None;
        }
    }
    None
}

/// The last line of a file that was set aside, compressed or not.
fn last_line(path: &Path) -> io::Result<Vec<u8>> {
    let mut lines = Lines::open(path)?;
    let mut last = Vec::new();
    while let Some(line) = lines.next_line()? {
        if line.ended {
            last.clear();
            last.extend_from_slice(line.text);
        }
    }
    Ok(last)
}

#[cfg(test)]
mod tests;
