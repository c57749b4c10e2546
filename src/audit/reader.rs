//! Reading logs back: plain or compressed, line by line, in memory that does not grow.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Stdin};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use flate2::bufread::MultiGzDecoder;

/// The longest line that is read. Records are shorter by far.
const LONGEST: usize = 1024 * 1024;
const BUFFER: usize = 256 * 1024;

/// A line that is being written is looked at again after this long.
const GROWTH: Duration = Duration::from_millis(100);

/// A log that is read line by line.
pub struct Lines {
    text: Box<dyn BufRead>,
    line: Vec<u8>,
    number: u64,
    read: Arc<AtomicU64>,
    /// Whether it may be written at this moment.
    may_grow: bool,
}

/// One line.
#[derive(Debug, PartialEq, Eq)]
pub struct Line<'l> {
    /// Counted from 1.
    pub number: u64,
    /// Without its end; cut, if it is longer than any record.
    pub text: &'l [u8],
    /// Whether it has an end.
    pub ended: bool,
}

impl Lines {
    /// Opens a file, and tells by its first bytes whether it is compressed.
    ///
    /// # Errors
    /// It cannot be opened or read.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::of(File::open(path)?)
    }

    /// Reads standard input.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn stdin(stdin: Stdin) -> io::Result<Self> {
        Self::of(stdin)
    }

    /// Reads what begins with the first byte of a file.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn of(source: impl Read + 'static) -> io::Result<Self> {
        let read = Arc::<AtomicU64>::default();
        let mut raw = BufReader::with_capacity(BUFFER, Counted { source, read: Arc::clone(&read) });
        let mut may_grow = false;
        let text: Box<dyn BufRead> = match raw.fill_buf()? {
            [0x1f, 0x8b, ..] => Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(raw))),
            // a frame, or a frame that is to be skipped, as parallel compressors write first
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                Box::new(BufReader::with_capacity(BUFFER, zstd::Decoder::with_buffer(raw)?))
            }
            _ => {
                may_grow = true;
                Box::new(raw)
            }
        };
        Ok(Self { text, line: Vec::new(), number: 0, read, may_grow })
    }

    /// How many bytes of the file have been read.
    pub fn position(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// The next line; `None` at the end.
    ///
    /// # Errors
    /// The file cannot be read, or its compression is broken.
    pub fn next_line(&mut self) -> io::Result<Option<Line<'_>>> {
        self.line.clear();
        let mut ended = self.fill()?;
        if !ended && !self.line.is_empty() && self.may_grow {
            // perhaps the rest is on its way
            thread::sleep(GROWTH);
            ended = self.fill()?;
        }
        if !ended && self.line.is_empty() {
            return Ok(None);
        }
        self.number += 1;
        Ok(Some(Line { number: self.number, text: &self.line, ended }))
    }

    /// Reads to the end of the line, or of what there is; whether it was the end of the line.
    fn fill(&mut self) -> io::Result<bool> {
        loop {
            let buffer = match self.text.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                buffer => buffer?,
            };
            if buffer.is_empty() {
                return Ok(false);
            }
            let end = memchr::memchr(b'\n', buffer);
            let part = &buffer[..end.unwrap_or(buffer.len())];
            let room = LONGEST - self.line.len();
            self.line.extend_from_slice(part.get(..room).unwrap_or(part));
            let used = part.len() + usize::from(end.is_some());
            self.text.consume(used);
            if end.is_some() {
                return Ok(true);
            }
        }
    }
}

/// Counts what is read, for those who want to see progress.
struct Counted<R> {
    source: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use super::*;

    fn lines(bytes: Vec<u8>) -> Vec<(u64, Vec<u8>, bool)> {
        let mut lines = Lines::of(Cursor::new(bytes)).unwrap();
        let mut all = Vec::new();
        while let Some(line) = lines.next_line().unwrap() {
            all.push((line.number, line.text.to_vec(), line.ended));
        }
        all
    }

    #[test]
    fn plain_and_compressed_files_read_alike() {
        let text = "one\n\nthree ".repeat(100_000);
        let plain = lines(text.clone().into_bytes());
        assert_eq!(plain.len(), 200_001);
        assert_eq!(plain[1], (2, Vec::new(), true));
        assert_eq!(plain[200_000], (200_001, b"three ".to_vec(), false));
        let (first, second) = text.split_at(500_001);
        let gzip = [first, second].map(|part| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(part.as_bytes()).unwrap();
            encoder.finish().unwrap()
        });
        assert_eq!(lines(gzip.concat()), plain);
        let skipped = b"\x50\x2a\x4d\x18\x02\0\0\0xx".to_vec();
        let zstd = [first, second].map(|part| zstd::encode_all(part.as_bytes(), 1).unwrap());
        assert_eq!(lines([&skipped, &zstd[0], &zstd[1]].into_iter().flatten().copied().collect()), plain);
    }

    #[test]
    fn a_broken_archive_is_an_error_and_an_endless_line_is_cut() {
        let mut whole = zstd::encode_all(&[b'x'; 5000][..], 1).unwrap();
        whole.truncate(whole.len() - 3);
        let mut broken = Lines::of(Cursor::new(whole)).unwrap();
        assert!(broken.next_line().is_err());
        let mut endless = vec![b'x'; 3 * LONGEST];
        endless.extend(b"\nnext\n");
        let read = lines(endless);
        assert_eq!((read[0].1.len(), &*read[1].1), (LONGEST, &b"next"[..]));
    }
}
