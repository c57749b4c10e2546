//! Server-sent events (the event stream of the HTML standard) as whole events, wherever the chunks end.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

/// Takes chunks and gives whole events, each with the empty line that ends it.
#[derive(Debug)]
pub struct Events {
    buffer: BytesMut,
    /// How much of the buffer has been looked at.
    seen: usize,
    /// Whether the line that is being looked at is empty so far.
    at_line_start: bool,
    /// Whether a line feed would belong to the line end before it.
    after_return: bool,
}

impl Default for Events {
    fn default() -> Self {
        Self { buffer: BytesMut::new(), seen: 0, at_line_start: true, after_return: false }
    }
}

impl Events {
    /// Takes a chunk.
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next event that is whole.
    pub fn next_event(&mut self) -> Option<Bytes> {
        while let Some(byte) = self.buffer.get(self.seen).copied() {
            self.seen += 1;
            let after_return = std::mem::replace(&mut self.after_return, byte == b'\r');
            match byte {
                // the second half of a line end
                b'\n' if after_return => {}
                b'\n' | b'\r' if self.at_line_start => {
                    // a line feed that is there already goes with its line end
                    if byte == b'\r' && self.buffer.get(self.seen) == Some(&b'\n') {
                        self.seen += 1;
                        self.after_return = false;
                    }
                    let end = std::mem::take(&mut self.seen);
                    return Some(self.buffer.split_to(end).freeze());
                }
                b'\n' | b'\r' => self.at_line_start = true,
                _ => self.at_line_start = false,
            }
        }
        None
    }

    /// What is left of an event that is not whole: because the stream is over, or because it is too large
    /// to wait for its end.
    pub fn rest(&mut self) -> Bytes {
        self.seen = 0;
        self.buffer.split().freeze()
    }

    /// The beginning of the event that is not whole.
    pub fn begun(&self) -> &[u8] {
        &self.buffer
    }
}

/// The data of an event, its lines joined by line feeds; `None` if it has none, or is no UTF-8.
pub fn data(event: &[u8]) -> Option<Cow<'_, str>> {
    let mut data = None::<Cow<'_, str>>;
    for (line, _) in lines(event) {
        let Some(value) = field(line, b"data") else { continue };
        let value = str::from_utf8(value).ok()?;
        match &mut data {
            None => data = Some(Cow::Borrowed(value)),
            Some(data) => {
                let data = data.to_mut();
                data.push('\n');
                data.push_str(value);
            }
        }
    }
    data
}

/// The name of an event, if it has one; of several, the last.
pub fn name(event: &[u8]) -> Option<&[u8]> {
    lines(event).filter_map(|(line, _)| field(line, b"event")).last()
}

/// The same event with other data.
pub fn with_data(event: &[u8], data: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(event.len());
    let mut written = false;
    for (line, end) in lines(event) {
        if field(line, b"data").is_none() {
            out.extend_from_slice(line);
            out.extend_from_slice(end);
        } else if !written {
            written = true;
            for part in data.split('\n') {
                out.extend_from_slice(b"data: ");
                out.extend_from_slice(part.as_bytes());
                out.extend_from_slice(if end.is_empty() { b"\n" } else { end });
            }
        }
    }
    out.freeze()
}

/// The lines of an event, each with the characters that end it. A mark at the very beginning of a stream
/// is no part of its first line, and stands as a line of its own.
fn lines(event: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    const MARK: &[u8] = "\u{feff}".as_bytes();
    let (mark, mut rest) = event.split_at(if event.starts_with(MARK) { MARK.len() } else { 0 });
    let lines = std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let length = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(rest.len());
        let (line, ended) = rest.split_at(length);
        let end = if ended.starts_with(b"\r\n") { 2 } else { ended.len().min(1) };
        let (end, next) = ended.split_at(end);
        rest = next;
        Some((line, end))
    });
    std::iter::once((mark, &b""[..])).chain(lines)
}

/// The value of a line if it is of this field.
fn field<'l>(line: &'l [u8], name: &[u8]) -> Option<&'l [u8]> {
    let rest = line.strip_prefix(name)?;
    match rest.split_first() {
        None => Some(rest),
        Some((b':', value)) => Some(value.strip_prefix(b" ").unwrap_or(value)),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events(stream: &str, chunk: usize) -> (Vec<String>, String) {
        let mut events = Events::default();
        let mut found = Vec::new();
        for chunk in stream.as_bytes().chunks(chunk) {
            events.push(chunk);
            while let Some(event) = events.next_event() {
                found.push(String::from_utf8(event.to_vec()).unwrap());
            }
        }
        (found, String::from_utf8(events.rest().to_vec()).unwrap())
    }

    #[test]
    fn events_are_whole_whatever_ends_their_lines() {
        for end in ["\n", "\r\n", "\r"] {
            let stream = "id: 1|data: a||: ping||event: x|data: b|data:c|data||rest".replace('|', end);
            for chunk in [1, 2, 3, 1000] {
                let (found, rest) = events(&stream, chunk);
                let data: Vec<_> = found.iter().map(|event| data(event.as_bytes()).map(Cow::into_owned)).collect();
                assert_eq!(data, [Some("a".to_owned()), None, Some("b\nc\n".to_owned())], "{end:?} {chunk}");
                assert_eq!(found.concat() + &rest, stream);
                assert_eq!(rest.trim_start(), "rest");
            }
        }
    }

    #[test]
    fn a_mark_at_the_beginning_hides_nothing() {
        let event = "\u{feff}data: a\n\n".as_bytes();
        assert_eq!(data(event).as_deref(), Some("a"));
        assert_eq!(with_data(event, "b"), "\u{feff}data: b\n\n".as_bytes());
    }

    #[test]
    fn other_data_takes_the_place_of_the_old() {
        let event = b"id: 7\r\ndata: {\r\ndata: }\r\nretry: 5\r\n\r\n";
        assert_eq!(with_data(event, "[\n]"), &b"id: 7\r\ndata: [\r\ndata: ]\r\nretry: 5\r\n\r\n"[..]);
        assert_eq!(with_data(b"data: a", "b"), &b"data: b\n"[..]);
        assert_eq!(data(b"database: a\nDATA: b\n data: c\n\n"), None);
        assert_eq!(data(b"data: \xff\n\n"), None);
        assert_eq!(name(b"event:endpoint\ndata: /\n\n"), Some(&b"endpoint"[..]));
        assert_eq!(name(b"data: event: endpoint\nevent: x\n\n"), Some(&b"x"[..]));
        assert_eq!(name(b"data: event: endpoint\n\n"), None);
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_and_chunks_do_not_matter(stream in "([a:d]|data: |\n|\r|\r\n){0,40}", chunk in 1_usize..9) {
            let (found, rest) = events(&stream, chunk);
            prop_assert_eq!(found.concat() + &rest, stream.clone());
            let (whole, _) = events(&stream, 1000);
            let seen = |events: &[String]| events.iter().filter_map(|event| data(event.as_bytes()).map(Cow::into_owned)).collect::<Vec<_>>();
            prop_assert_eq!(seen(&found), seen(&whole));
        }
    }
}
