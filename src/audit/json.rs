//! JSON as the log is made of: one flat object a line, of what is mostly plain text and small numbers.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::digits;
use crate::trace::Hex;

/// The name of a member as it stands behind another one. It is put together when the program is built.
macro_rules! key {
    ($name:literal) => {
        concat!(",\"", $name, "\":")
    };
}
pub(super) use key;

/// An object that is being appended, a member after the other. Absent values are absent members.
#[derive(Debug)]
pub(super) struct Object<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> Object<'o> {
    /// Begins with the moment that it tells of.
    pub(super) fn begin(out: &'o mut Vec<u8>, at: Timestamp) -> Self {
        out.push(b'{');
        let mut object = Self { out };
        object.moment("\"ts\":", at);
        object
    }

    /// Ends the object and its line.
    pub(super) fn end(self) {
        self.out.extend_from_slice(b"}\n");
    }

    /// One of our own words, in which nothing needs to be escaped.
    pub(super) fn word(&mut self, key: &'static str, value: Option<&str>) {
        let Some(value) = value else { return };
        self.out.extend_from_slice(key.as_bytes());
        self.quoted(value.as_bytes());
    }

    /// Any text.
    pub(super) fn text(&mut self, key: &'static str, value: Option<&str>) {
        match value {
            Some(text) if is_plain(text) => self.word(key, value),
            value => self.value(key, value),
        }
    }

    /// Whatever else is written as JSON.
    pub(super) fn value(&mut self, key: &'static str, value: Option<impl Serialize>) {
        let Some(value) = value else { return };
        self.out.extend_from_slice(key.as_bytes());
        // writing plain fields into memory does not fail
        let _ = serde_json::to_writer(&mut *self.out, &value);
    }

    pub(super) fn hex<const DIGITS: usize>(&mut self, key: &'static str, value: Option<Hex<DIGITS>>) {
        let Some(value) = value else { return };
        self.out.extend_from_slice(key.as_bytes());
        self.quoted(&value.digits());
    }

    pub(super) fn address(&mut self, key: &'static str, value: Option<IpAddr>) {
        let Some(value) = value else { return };
        self.out.extend_from_slice(key.as_bytes());
        self.out.push(b'"');
        digits::address(value, self.out);
        self.out.push(b'"');
    }

    pub(super) fn moment(&mut self, key: &'static str, value: Timestamp) {
        self.out.extend_from_slice(key.as_bytes());
        self.out.push(b'"');
        digits::moment(value, self.out);
        self.out.push(b'"');
    }

    /// Milliseconds, to the microsecond.
    pub(super) fn milliseconds(&mut self, key: &'static str, value: Option<Duration>) {
        self.value(key, value.map(|value| (value.as_secs_f64() * 1_000_000.0).round() / 1_000.0));
    }

    fn quoted(&mut self, text: &[u8]) {
        self.out.push(b'"');
        self.out.extend_from_slice(text);
        self.out.push(b'"');
    }
}

/// Whether nothing in a text needs to be escaped. Counting looks at many bytes at once.
fn is_plain(text: &str) -> bool {
    text.bytes().filter(|byte| *byte < b' ' || matches!(byte, b'"' | b'\\')).count() == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn line(fill: impl FnOnce(&mut Object<'_>)) -> String {
        let mut out = Vec::new();
        let mut object = Object::begin(&mut out, "2026-11-22T08:00:00.1Z".parse().unwrap());
        fill(&mut object);
        object.end();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_look_as_they_are_published() {
        let line = line(|object| {
            object.text(key!("none"), None);
            object.word(key!("word"), Some("x"));
            object.address(key!("v4"), Some([192, 0, 2, 7].into()));
            object.address(key!("v6"), Some([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into()));
            object.milliseconds(key!("whole"), Some(Duration::from_millis(3)));
            object.milliseconds(key!("part"), Some(Duration::from_nanos(1_250_499)));
            object.value(key!("number"), Some(u64::MAX));
        });
        let expected = r#"{"ts":"2026-11-22T08:00:00.100000Z","word":"x","v4":"192.0.2.7","v6":"2001:db8::1","whole":3.0,"part":1.25,"number":18446744073709551615}"#;
        assert_eq!(line, format!("{expected}\n"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_back_as_it_was(text in any::<String>()) {
            let line = line(|object| object.text(key!("text"), Some(&text)));
            prop_assert_eq!(line.bytes().filter(|byte| *byte == b'\n').count(), 1);
            prop_assert_eq!(&serde_json::from_str::<Value>(&line).unwrap()["text"], &text);
        }
    }
}
