//! Where an answer's body ends (RFC 9112 sections 6 and 7.1). Whatever two readers could see differently
//! is an error; nothing here does I/O.

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};

/// The longest line of a chunk's size, with its extensions.
const MAX_SIZE_LINE: usize = 256;

/// The largest trailer section, in bytes.
const MAX_TRAILERS: usize = 16 * 1024;

/// Reads a body out of the bytes as they come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes are still to come; with 0 it is over.
    Length(u64),
    /// Chunks, and where in them the reader is.
    Chunked(Chunk),
    /// All that comes, until the connection ends.
    UntilClose,
}

/// The place between and within chunks.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Chunk {
    Size,
    Data(u64),
    /// The line's end behind the data.
    DataEnd,
    /// Trailer fields, of which so many bytes have been passed over.
    Trailers(usize),
}

/// What the bytes hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    Data(Bytes),
    /// More has to be read first.
    Nothing,
    End,
}

impl Framing {
    /// The framing that the head of an answer announces; the error says what is wrong with it.
    pub(super) fn of(
        method: &Method,
        status: StatusCode,
        version: Version,
        headers: &HeaderMap,
    ) -> Result<Self, &'static str> {
        let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
        let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
        let (coding, length) = (codings.next(), lengths.next());
        if codings.next().is_some() || lengths.next().is_some() {
            return Err("the upstream's answer has a length or a coding twice");
        }
        let length = match length.map(parse_length) {
            Some(None) => return Err("the upstream's answer has a length that is no number"),
            Some(Some(length)) => Some(length),
            None => None,
        };
        match coding {
            Some(_) if version == Version::HTTP_10 => Err("the upstream's answer has a coding that HTTP/1.0 lacks"),
            Some(coding) if !coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {
                Err("the upstream's answer has a coding that is not understood")
            }
            _ if *method == Method::HEAD || matches!(status.as_u16(), 204 | 304) => Ok(Self::Length(0)),
            Some(_) => Ok(Self::Chunked(Chunk::Size)),
            None => Ok(length.map_or(Self::UntilClose, Self::Length)),
        }
    }

    /// Whether all of the body has been read.
    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Length(0))
    }

    /// How many bytes are known to be still to come, in one piece.
    pub(super) fn ahead(&self) -> Option<u64> {
        match self {
            Self::Length(left) | Self::Chunked(Chunk::Data(left)) => Some(*left),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }

    /// How long the whole is, where that is known.
    pub(super) fn length(&self) -> Option<u64> {
        if let Self::Length(left) = self { Some(*left) } else { None }
    }

    /// Takes the next part of the body out of `buffer`, and with the last of it what ends it.
    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> Result<Part, &'static str> {
        let part = self.step(buffer)?;
        if matches!(part, Part::Data(_)) {
            // the end mostly comes along: whoever passes the data on can say so
            while matches!(self, Self::Chunked(Chunk::DataEnd | Chunk::Size | Chunk::Trailers(_)))
                && !buffer.is_empty()
                && self.pass_line(buffer)?
            {}
        }
        Ok(part)
    }

    fn step(&mut self, buffer: &mut BytesMut) -> Result<Part, &'static str> {
        loop {
            match self {
                Self::Length(0) => return Ok(Part::End),
                Self::Length(left) | Self::Chunked(Chunk::Data(left)) => {
                    let data = take(buffer, *left);
                    *left -= data.len() as u64;
                    if let Self::Chunked(chunk @ Chunk::Data(0)) = self {
                        *chunk = Chunk::DataEnd;
                    }
                    return Ok(if data.is_empty() { Part::Nothing } else { Part::Data(data) });
                }
                Self::UntilClose if buffer.is_empty() => return Ok(Part::Nothing),
                Self::UntilClose => return Ok(Part::Data(buffer.split().freeze())),
                Self::Chunked(_) => {
                    if !self.pass_line(buffer)? {
                        return Ok(Part::Nothing);
                    }
                }
            }
        }
    }

    /// Passes over one line between the data of chunks; says whether there was one as a whole.
    fn pass_line(&mut self, buffer: &mut BytesMut) -> Result<bool, &'static str> {
        let Self::Chunked(chunk) = self else { return Ok(false) };
        let limit = match chunk {
            Chunk::Size => MAX_SIZE_LINE,
            Chunk::DataEnd => 2,
            Chunk::Trailers(passed) => MAX_TRAILERS.saturating_sub(*passed),
            Chunk::Data(_) => return Ok(false),
        };
        let window = buffer.get(..limit).unwrap_or(buffer);
        let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
            return if window.len() < limit { Ok(false) } else { Err("the upstream's chunks are out of joint") };
        };
        let line = window.get(..end).and_then(|line| line.strip_suffix(b"\r"));
        let line = line.filter(|line| !line.contains(&b'\r')).ok_or("the upstream's chunks have a bare line end")?;
        let next = match chunk {
            Chunk::Size => match parse_size(line).ok_or("the upstream's chunks have a size that is no number")? {
                0 => Self::Chunked(Chunk::Trailers(0)),
                size => Self::Chunked(Chunk::Data(size)),
            },
            Chunk::DataEnd if line.is_empty() => Self::Chunked(Chunk::Size),
            Chunk::DataEnd => return Err("the upstream's chunks are longer than they say"),
            Chunk::Trailers(_) if line.is_empty() => Self::Length(0),
            Chunk::Trailers(passed) if is_field(line) => Self::Chunked(Chunk::Trailers(*passed + end + 1)),
            Chunk::Trailers(_) => return Err("the upstream's trailers are no header fields"),
            Chunk::Data(_) => return Ok(false),
        };
        buffer.advance(end + 1);
        *self = next;
        Ok(true)
    }
}

/// At most so many of the bytes that are there.
fn take(buffer: &mut BytesMut, most: u64) -> Bytes {
    let length = usize::try_from(most).unwrap_or(usize::MAX).min(buffer.len());
    buffer.split_to(length).freeze()
}

fn parse_length(value: &HeaderValue) -> Option<u64> {
    let digits = value.as_bytes();
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok()
}

/// `chunk-size [ chunk-ext ]`; extensions mean nothing to anybody and are passed over.
fn parse_size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (size, rest) = line.split_at_checked(digits)?;
    let fits = rest.is_empty() || rest.trim_ascii_start().starts_with(b";");
    u64::from_str_radix(str::from_utf8(size).ok().filter(|_| fits)?, 16).ok()
}

fn is_field(line: &[u8]) -> bool {
    let mut parts = line.splitn(2, |byte| *byte == b':');
    let name = parts.next().is_some_and(|name| HeaderName::from_bytes(name).is_ok());
    name && parts.next().is_some_and(|value| HeaderValue::from_bytes(value).is_ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(head: &[(&'static str, &'static str)], method: &Method, status: u16) -> Result<Framing, &'static str> {
        let mut headers = HeaderMap::new();
        for (name, value) in head {
            headers.append(*name, HeaderValue::from_static(value));
        }
        Framing::of(method, StatusCode::from_u16(status).unwrap(), Version::HTTP_11, &headers)
    }

    /// Reads a body that comes in pieces of this size: what it holds, and whether it ended.
    fn read(mut framing: Framing, bytes: &[u8], piece: usize) -> Result<(Vec<u8>, bool), &'static str> {
        let (mut buffer, mut found) = (BytesMut::new(), Vec::new());
        for piece in bytes.chunks(piece) {
            buffer.extend_from_slice(piece);
            loop {
                match framing.next(&mut buffer)? {
                    Part::Data(data) => found.extend_from_slice(&data),
                    Part::Nothing => break,
                    Part::End => return Ok((found, true)),
                }
            }
        }
        Ok((found, framing.is_over()))
    }

    #[test]
    fn the_head_says_where_the_body_ends() {
        let length = ("content-length", "5");
        let chunked = ("transfer-encoding", "chunked");
        assert_eq!(of(&[length], &Method::GET, 200), Ok(Framing::Length(5)));
        assert_eq!(of(&[chunked], &Method::GET, 200), Ok(Framing::Chunked(Chunk::Size)));
        assert_eq!(of(&[chunked, length], &Method::GET, 200), Ok(Framing::Chunked(Chunk::Size)));
        assert_eq!(of(&[], &Method::GET, 200), Ok(Framing::UntilClose));
        for (method, status) in [(Method::HEAD, 200), (Method::GET, 204), (Method::GET, 304)] {
            assert_eq!(of(&[length], &method, status), Ok(Framing::Length(0)));
            assert_eq!(of(&[chunked], &method, status), Ok(Framing::Length(0)));
        }
        let lengths = ["", "+5", "-5", "5, 5", "5 5", "0x5", "18446744073709551616"];
        for head in lengths.map(|value| [("content-length", value)]) {
            assert!(of(&head, &Method::GET, 200).is_err(), "{head:?}");
        }
        let codings = ["gzip", "gzip, chunked", "chunked, chunked", "xchunked", "identity", ""];
        for head in codings.map(|value| [("transfer-encoding", value)]) {
            assert!(of(&head, &Method::GET, 200).is_err(), "{head:?}");
        }
        assert!(of(&[length, length], &Method::GET, 200).is_err());
        assert!(of(&[chunked, chunked], &Method::GET, 200).is_err());
    }

    #[test]
    fn the_end_is_known_with_the_last_of_the_data() {
        let mut framing = Framing::Chunked(Chunk::Size);
        let mut buffer = BytesMut::from("5\r\nhello\r\n0\r\n\r\nrest");
        assert_eq!(framing.next(&mut buffer), Ok(Part::Data("hello".into())));
        assert!(framing.is_over());
        assert_eq!(buffer, "rest");
    }

    #[test]
    fn chunks_are_read_strictly() {
        let body = b"5;name=\"value\"\r\nhello\r\n00a \t;x\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n";
        for piece in 1..body.len() {
            let found = read(Framing::Chunked(Chunk::Size), body, piece);
            assert_eq!(found, Ok((b"hello0123456789".to_vec(), true)), "{piece}");
        }
        let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(MAX_SIZE_LINE));
        let flood = format!("0\r\n{}\r\n", "a: b\r\n".repeat(MAX_TRAILERS / 6 + 1));
        for body in [
            "5\nhello\r\n0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhelloX\r\n0\r\n\r\n",
            "5\r\nhell\r\n0\r\n\r\n",
            "\r\nhello",
            "+5\r\nhello\r\n",
            "0x5\r\nhello\r\n",
            "5 5\r\nhello\r\n",
            " 5\r\nhello\r\n",
            "5\r\r\nhello\r\n",
            "10000000000000000\r\nhello",
            "g\r\n",
            "5\r\nhello\r\n0\r\na: b\n\r\n",
            "5\r\nhello\r\n0\r\n b\r\n\r\n",
            "5\r\nhello\r\n0\r\na\r\n\r\n",
            long.as_str(),
            flood.as_str(),
        ] {
            for piece in [1, 3, body.len()] {
                assert!(read(Framing::Chunked(Chunk::Size), body.as_bytes(), piece).is_err(), "{body}");
            }
        }
    }

    proptest! {
        #[test]
        fn what_was_sent_in_chunks_is_what_is_read(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..10),
            piece in 1..400_usize,
        ) {
            let mut bytes = Vec::new();
            for chunk in &chunks {
                bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            // short of its end it is not over
            prop_assert_eq!(read(Framing::Chunked(Chunk::Size), &bytes, piece), Ok((chunks.concat(), false)));
            bytes.extend_from_slice(b"0\r\n\r\n");
            prop_assert_eq!(read(Framing::Chunked(Chunk::Size), &bytes, piece), Ok((chunks.concat(), true)));
        }

        #[test]
        fn any_bytes_are_read_without_panic_and_alike_in_any_pieces(
            bytes in "([0-9a-f]{1,2}|\r\n|\n|\r|;|x| ){0,40}",
            piece in 1..40_usize,
        ) {
            let whole = read(Framing::Chunked(Chunk::Size), bytes.as_bytes(), bytes.len().max(1));
            let pieces = read(Framing::Chunked(Chunk::Size), bytes.as_bytes(), piece);
            prop_assert_eq!(whole.is_ok(), pieces.is_ok());
            if let Ok(whole) = whole {
                prop_assert_eq!(Ok(whole), pieces);
            }
        }
    }
}
