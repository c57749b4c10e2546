//! JSON texts that follow one another in a body that goes on, wherever the chunks end.

use bytes::{Bytes, BytesMut};

/// Takes chunks and gives whole texts, and white space between them as it comes.
#[derive(Debug, Default)]
pub struct Texts {
    buffer: BytesMut,
    /// How much of the buffer has been looked at.
    seen: usize,
    /// How many arrays and objects are open.
    depth: usize,
    in_string: bool,
    /// Whether the next byte of a string belongs to an escape.
    escaped: bool,
}

impl Texts {
    /// Takes a chunk.
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next piece that is whole: an array, an object or a string to its end, or anything else to a white space.
    /// What no string may have ends a piece as well, for behind it nobody can tell what is in a string.
    pub fn next_text(&mut self) -> Option<Bytes> {
        while let Some(byte) = self.buffer.get(self.seen).copied() {
            self.seen += 1;
            if self.ends_with(byte) {
                let end = std::mem::take(&mut self.seen);
                return Some(self.buffer.split_to(end).freeze());
            }
        }
        None
    }

    /// Whether a piece is whole with this byte.
    fn ends_with(&mut self, byte: u8) -> bool {
        if self.in_string {
            let escaped = std::mem::take(&mut self.escaped);
            self.escaped = byte == b'\\' && !escaped;
            self.in_string = (byte != b'"' || escaped) && byte >= b' ';
            if byte < b' ' {
                self.depth = 0;
            }
            return !self.in_string && self.depth == 0;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            b' ' | b'\t' | b'\n' | b'\r' => return self.depth == 0,
            _ => {}
        }
        false
    }

    /// What is left of a text that is not whole: because the body is over, or because it is too large to wait
    /// for its end.
    pub fn rest(&mut self) -> Bytes {
        self.seen = 0;
        self.buffer.split().freeze()
    }

    /// The beginning of the text that is not whole.
    pub fn begun(&self) -> &[u8] {
        &self.buffer
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn texts(body: &str, chunk: usize) -> (Vec<String>, String) {
        let mut texts = Texts::default();
        let mut found = Vec::new();
        for chunk in body.as_bytes().chunks(chunk) {
            texts.push(chunk);
            while let Some(text) = texts.next_text() {
                found.push(String::from_utf8(text.to_vec()).unwrap());
            }
        }
        (found, String::from_utf8(texts.rest().to_vec()).unwrap())
    }

    #[test]
    fn a_text_is_whole_wherever_its_chunks_end() {
        let body = "{\"a\":[\"}\\\"\\\\\",{}]}\n[{}] 3 {\n\"b\": 1}\"{\"{}[{";
        for chunk in [1, 2, 3, 1000] {
            let (found, rest) = texts(body, chunk);
            let expected = ["{\"a\":[\"}\\\"\\\\\",{}]}", "\n", "[{}]", " ", "3 ", "{\n\"b\": 1}", "\"{\"", "{}"];
            assert_eq!((found, &*rest), (expected.map(str::to_owned).to_vec(), "[{"), "{chunk}");
        }
    }

    #[test]
    fn a_string_that_is_none_hides_nothing_behind_it() {
        for control in ["\n", "\r", "\0", "\u{1f}", "\\\n"] {
            let body = format!("[{{\"a\":\"b{control}{{\"c\":\"\\\"\"}}");
            for chunk in [1, 2, 1000] {
                let (found, rest) = texts(&body, chunk);
                assert_eq!((found[0].clone(), &*rest), (format!("[{{\"a\":\"b{control}"), ""), "{control:?}");
                assert_eq!(found[1..], ["{\"c\":\"\\\"\"}"], "{control:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_and_chunks_do_not_matter(body in "([{}a\"\\\\]|\\[|\\]| |\n){0,40}", chunk in 1_usize..9) {
            let (found, rest) = texts(&body, chunk);
            prop_assert_eq!(found.concat() + &rest, body.clone());
            prop_assert_eq!((found, rest), texts(&body, 1000));
        }

        #[test]
        fn what_serde_json_wrote_comes_whole(
            strings in proptest::collection::vec(".{0,12}", 0..6), pretty in any::<bool>(), chunk in 1_usize..9,
        ) {
            let values: Vec<Value> = strings.iter().map(|text| json!({"result": {text: [text, {}]}})).collect();
            let written = |value: &Value| if pretty { format!("{value:#}") } else { value.to_string() };
            let body: String = values.iter().map(written).collect();
            let (found, rest) = texts(&body, chunk);
            let read: Vec<Value> = found.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
            prop_assert_eq!((read, &*rest), (values, ""));
        }
    }
}
