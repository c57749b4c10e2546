//! The chain: each record carries a number and a hash over itself and the one before, so that a record
//! that was changed, taken out or moved is found.
//!
//! A sealed line ends in `,"seq":N,"hash":"H"}`. H is the SHA-256, in lowercase hexadecimal, of the
//! hash of the line before, as its 64 characters, followed by this line without `,"hash":"H"`. Before the
//! first line stand 64 zeros. The first line of a file also has `,"prev":"…"` after the number: the hash
//! of the line before, so that a file can be judged without the one before it.

use std::fmt;
use std::io::Write;
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// A SHA-256 in lowercase hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hash([u8; 64]);

impl Hash {
    /// What stands before the first line of all.
    pub const START: Self = Self([b'0'; 64]);

    /// The hash of a line: over the one before, and over this one up to where its hash stands.
    pub fn of(previous: &Self, body: &[u8]) -> Self {
        let digest = Sha256::new().chain_update(previous.0).chain_update(body).chain_update(b"}").finalize();
        let mut text = [0; 64];
        for (pair, byte) in text.chunks_exact_mut(2).zip(digest) {
            pair.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
        Self(text)
    }

    fn read(text: &[u8]) -> Option<Self> {
        let hash = Self(text.try_into().ok()?);
        hash.0.iter().all(|byte| HEX.contains(byte)).then_some(hash)
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.0).unwrap_or_default())
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The last link of a chain. Written as `SEQ:HASH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The number of the last record; 0 before the first.
    pub seq: u64,
    /// Its hash.
    pub hash: Hash,
}

impl Head {
    /// Before the first record.
    pub const START: Self = Self { seq: 0, hash: Hash::START };

    /// Seals the line that begins at `start` and ends with `out`, a JSON object with a member at least,
    /// and goes on to it. `first` of a file, it says what stood before.
    pub(super) fn seal(&mut self, out: &mut Vec<u8>, start: usize, first: bool) {
        // what could not be written has nothing to seal
        let Some(body) = out.get(start..).and_then(|line| line.trim_ascii_end().strip_suffix(b"}")) else { return };
        out.truncate(start + body.len());
        self.seq += 1;
        // writing into memory does not fail
        let _ = write!(out, ",\"seq\":{}", self.seq);
        if first {
            let _ = write!(out, ",\"prev\":\"{}\"", self.hash);
        }
        self.hash = Hash::of(&self.hash, out.get(start..).unwrap_or_default());
        let _ = writeln!(out, ",\"hash\":\"{}\"}}", self.hash);
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.hash)
    }
}

impl FromStr for Head {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once(':');
        parts
            .and_then(|(seq, hash)| Some(Self { seq: number(seq.as_bytes())?, hash: Hash::read(hash.as_bytes())? }))
            .ok_or_else(|| format!("`{text}` is not the head of a chain: write SEQ:HASH as `audit verify` prints it"))
    }
}

/// A line with a seal, taken apart but not yet believed.
#[derive(Clone, Copy, Debug)]
pub struct Sealed<'l> {
    body: &'l [u8],
    /// Its number and hash, as it states them.
    pub head: Head,
    /// What it says stood before it, if it says so.
    pub previous: Option<Hash>,
}

impl<'l> Sealed<'l> {
    /// Reads a line without its end. `None`: it has no seal.
    pub fn read(line: &'l [u8]) -> Option<Self> {
        let (body, hash) = quoted_end(line.strip_suffix(b"}")?, b",\"hash\":\"")?;
        let (before, previous) = match quoted_end(body, b",\"prev\":\"") {
            Some((before, previous)) => (before, Some(previous)),
            None => (body, None),
        };
        // a number has 20 digits at most
        let near = before.len().saturating_sub(b",\"seq\":".len() + 20);
        let at = near + memchr::memmem::rfind(before.get(near..)?, b",\"seq\":")?;
        let seq = number(before.get(at + b",\"seq\":".len()..)?)?;
        Some(Self { body, head: Head { seq, hash }, previous })
    }

    /// Whether it is what was sealed after `previous`.
    pub fn follows(&self, previous: &Hash) -> bool {
        Hash::of(previous, self.body) == self.head.hash
    }
}

/// Splits `…<name><64 hexadecimal digits>"` into what stands before the name, and the digits.
fn quoted_end<'l>(text: &'l [u8], name: &[u8]) -> Option<(&'l [u8], Hash)> {
    let (before, hash) = text.strip_suffix(b"\"")?.split_last_chunk::<64>()?;
    Some((before.strip_suffix(name)?, Hash::read(hash)?))
}

/// A whole number as it is written here: digits only.
fn number(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(text).ok()?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_line_has_the_published_shape() {
        let mut head = Head::START;
        let mut text = b"{\"a\":1}\n".to_vec();
        head.seal(&mut text, 0, true);
        let start = text.len();
        text.extend(b"{\"a\":2}\n");
        head.seal(&mut text, start, false);
        let text = String::from_utf8(text).unwrap();
        let lines: Vec<_> = text.lines().collect();
        let zeros = "0".repeat(64);
        // printf '%s' '<64 zeros>{"a":1,"seq":1,"prev":"<64 zeros>"}' | sha256sum
        let first = Hash::of(&Hash::START, format!(r#"{{"a":1,"seq":1,"prev":"{zeros}""#).as_bytes());
        assert_eq!(lines[0], format!(r#"{{"a":1,"seq":1,"prev":"{zeros}","hash":"{first}"}}"#));
        assert_eq!(lines[1], format!(r#"{{"a":2,"seq":2,"hash":"{}"}}"#, head.hash));
        let (first, second) = (Sealed::read(lines[0].as_bytes()).unwrap(), Sealed::read(lines[1].as_bytes()).unwrap());
        assert!(first.follows(&Hash::START) && first.previous == Some(Hash::START));
        assert!(second.follows(&first.head.hash) && second.head == head);
        assert_eq!(head.to_string().parse(), Ok(head));
    }

    #[test]
    fn what_has_no_seal_is_told() {
        let hash = "0".repeat(64);
        for line in [
            "",
            "}",
            "{}",
            "{\"seq\":1}",
            &format!(r#"{{"a":1,"hash":"{hash}"}}"#),
            &format!(r#"{{"a":1,"seq":,"hash":"{hash}"}}"#),
            &format!(r#"{{"a":1,"seq":+1,"hash":"{hash}"}}"#),
            &format!(r#"{{"a":1,"seq":1,"hash":"{}"}}"#, hash.replace('0', "A")),
            &format!(r#"{{"a":1,"seq":1,"hash":"{hash}"}} "#),
        ] {
            assert!(Sealed::read(line.as_bytes()).is_none(), "{line}");
        }
        for head in ["", "1", "1:", "x:1", &format!("-1:{hash}"), &format!("1:{hash}0")] {
            assert!(head.parse::<Head>().is_err(), "{head}");
        }
    }
}
