//! JSON read where it stands: strict as RFC 8259 has it, bounded in depth, in one pass, and nothing is
//! copied but strings with escapes. Whoever reads with it knows the place of every value.

use std::borrow::Cow;

/// What cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// It is no JSON, from this byte on.
    #[error("it is not JSON, from byte {0} on")]
    Syntax(usize),
    /// Arrays and objects stand in each other too often.
    #[error("it is nested too deeply")]
    TooDeep,
    /// A string that decides something stands for no text: half of a surrogate pair.
    #[error("a string in it is no text: it has half of a surrogate pair")]
    NoText,
}

/// One pass over a text.
#[derive(Clone, Debug)]
pub struct Reader<'t> {
    text: &'t str,
    at: usize,
    /// How many more levels may be opened.
    depth: usize,
}

impl<'t> Reader<'t> {
    /// Begins at the start of `text`; values may be nested in `depth` levels.
    pub fn new(text: &'t str, depth: usize) -> Self {
        Self { text, at: 0, depth }
    }

    /// The kind of the next value, by its first byte.
    ///
    /// # Errors
    /// There is none.
    pub fn peek(&mut self) -> Result<u8, JsonError> {
        while let Some(byte) = self.byte() {
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Ok(byte);
            }
            self.at += 1;
        }
        Err(self.wrong())
    }

    /// The place where the next value begins.
    ///
    /// # Errors
    /// There is none.
    pub fn start(&mut self) -> Result<usize, JsonError> {
        self.peek().map(|_| self.at)
    }

    /// The place up to which everything has been read.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Takes a string as the text that it stands for.
    ///
    /// # Errors
    /// The next value is none, or stands for no text.
    pub fn string(&mut self) -> Result<Cow<'t, str>, JsonError> {
        let start = self.start()?;
        let escaped = self.skip_string()?;
        let raw = self.text.get(start..self.at).ok_or(self.wrong())?;
        if escaped {
            return serde_json::from_str(raw).map(Cow::Owned).map_err(|_| JsonError::NoText);
        }
        raw.get(1..raw.len() - 1).map(Cow::Borrowed).ok_or(self.wrong())
    }

    /// Takes any value, as it stands.
    ///
    /// # Errors
    /// It is not well-formed or nested too deeply.
    pub fn raw(&mut self) -> Result<&'t str, JsonError> {
        let start = self.start()?;
        self.skip()?;
        self.text.get(start..self.at).ok_or(self.wrong())
    }

    /// Takes an object; `member` must take the value of each member.
    ///
    /// # Errors
    /// It is none, or what `member` says.
    pub fn members<E: From<JsonError>>(
        &mut self,
        mut member: impl FnMut(&mut Self, Cow<'t, str>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.open(b'{')?;
        if !self.take(b'}')? {
            loop {
                let key = self.string()?;
                self.expect(b':')?;
                member(self, key)?;
                if !self.take(b',')? {
                    break;
                }
            }
            self.expect(b'}')?;
        }
        self.depth += 1;
        Ok(())
    }

    /// Takes an array; `item` must take each value.
    ///
    /// # Errors
    /// It is none, or what `item` says.
    pub fn items<E: From<JsonError>>(&mut self, mut item: impl FnMut(&mut Self) -> Result<(), E>) -> Result<(), E> {
        self.open(b'[')?;
        if !self.take(b']')? {
            loop {
                item(self)?;
                if !self.take(b',')? {
                    break;
                }
            }
            self.expect(b']')?;
        }
        self.depth += 1;
        Ok(())
    }

    /// Ends the reading: nothing but white space may follow.
    ///
    /// # Errors
    /// Something follows.
    pub fn end(mut self) -> Result<(), JsonError> {
        match self.peek() {
            Ok(_) => Err(self.wrong()),
            Err(_) => Ok(()),
        }
    }

    /// Passes over any value.
    ///
    /// # Errors
    /// It is not well-formed or nested too deeply.
    pub fn skip(&mut self) -> Result<(), JsonError> {
        match self.peek()? {
            b'"' => self.skip_string().map(drop),
            b'{' => self.skip_object(),
            b'[' => self.items(Self::skip),
            b't' => self.skip_word("true"),
            b'f' => self.skip_word("false"),
            b'n' => self.skip_word("null"),
            _ => self.skip_number(),
        }
    }

    /// As [`Self::members`], without a look at the keys.
    fn skip_object(&mut self) -> Result<(), JsonError> {
        self.open(b'{')?;
        if !self.take(b'}')? {
            loop {
                self.peek()?;
                self.skip_string()?;
                self.expect(b':')?;
                self.skip()?;
                if !self.take(b',')? {
                    break;
                }
            }
            self.expect(b'}')?;
        }
        self.depth += 1;
        Ok(())
    }

    // --- Bytes ------------------------------------------------------------------------------

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn wrong(&self) -> JsonError {
        JsonError::Syntax(self.at)
    }

    fn take(&mut self, wanted: u8) -> Result<bool, JsonError> {
        let taken = self.peek()? == wanted;
        self.at += usize::from(taken);
        Ok(taken)
    }

    fn expect(&mut self, wanted: u8) -> Result<(), JsonError> {
        if self.take(wanted)? { Ok(()) } else { Err(self.wrong()) }
    }

    fn open(&mut self, bracket: u8) -> Result<(), JsonError> {
        self.expect(bracket)?;
        self.depth = self.depth.checked_sub(1).ok_or(JsonError::TooDeep)?;
        Ok(())
    }

    fn skip_word(&mut self, word: &str) -> Result<(), JsonError> {
        let found = self.text.as_bytes().get(self.at..).is_some_and(|rest| rest.starts_with(word.as_bytes()));
        if !found {
            return Err(self.wrong());
        }
        self.at += word.len();
        Ok(())
    }

    fn skip_digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while self.byte().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start { Err(self.wrong()) } else { Ok(()) }
    }

    fn skip_number(&mut self) -> Result<(), JsonError> {
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        if self.byte() == Some(b'0') {
            self.at += 1;
        } else {
            self.skip_digits()?;
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.skip_digits()?;
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.byte(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.skip_digits()?;
        }
        Ok(())
    }

    /// Passes over a string; returns whether there are escapes in it.
    fn skip_string(&mut self) -> Result<bool, JsonError> {
        if self.byte() != Some(b'"') {
            return Err(self.wrong());
        }
        self.at += 1;
        let mut escaped = false;
        loop {
            self.skip_plain();
            match self.byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.skip_escape()?;
                }
                _ => return Err(self.wrong()),
            }
        }
    }

    /// Passes over what stands for itself in a string, many bytes at a time: most of all JSON is this.
    fn skip_plain(&mut self) {
        // most strings are over before it pays to look at more at once
        if self.skip_words(4) {
            return;
        }
        // without a way out in between, this becomes a few comparisons of whole vectors
        let is_plain = |block: &[u8; 64]| !block.iter().fold(false, |found, byte| found | is_special(*byte));
        let (blocks, _) = self.rest().as_chunks();
        self.at += 64 * blocks.iter().take_while(|block| is_plain(block)).count();
        if self.skip_words(usize::MAX) {
            return;
        }
        while self.byte().is_some_and(|byte| !is_special(byte)) {
            self.at += 1;
        }
    }

    /// The same, by words of eight bytes and at most so many; whether something else stands here.
    fn skip_words(&mut self, most: usize) -> bool {
        const ONES: u64 = u64::from_ne_bytes([1; 8]);
        const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
        let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
        let (words, _) = self.rest().as_chunks::<8>();
        for word in words.iter().take(most) {
            let word = u64::from_le_bytes(*word);
            let control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
            let special = zeros(word ^ (ONES * u64::from(b'"'))) | zeros(word ^ (ONES * u64::from(b'\\'))) | control;
            if special != 0 {
                self.at += special.trailing_zeros() as usize / 8;
                return true;
            }
            self.at += 8;
        }
        false
    }

    fn rest(&self) -> &'t [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    fn skip_escape(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        let kind = self.byte().ok_or(self.wrong())?;
        let length = match kind {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 1,
            b'u' => 5,
            _ => return Err(self.wrong()),
        };
        let digits = self.text.as_bytes().get(self.at + 1..self.at + length).ok_or(self.wrong())?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(self.wrong());
        }
        self.at += length;
        Ok(())
    }
}

/// Whether a byte does not stand for itself in a string.
fn is_special(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::*;

    const DEPTH: usize = 64;

    fn accepts(text: &str) -> bool {
        let mut reader = Reader::new(text, DEPTH);
        reader.skip().is_ok() && reader.end().is_ok()
    }

    /// Anything that looks like JSON, and mostly is not quite.
    fn jsonish() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("{".to_owned()),
            Just("}".to_owned()),
            Just("[".to_owned()),
            Just("]".to_owned()),
            Just(",".to_owned()),
            Just(":".to_owned()),
            "\"[a-z]{0,20}\"",
            Just(r#""\u00e9\n""#.to_owned()),
            Just(r#""\ud83d\ude00""#.to_owned()),
            Just(r#""\x""#.to_owned()),
            Just("\"\u{7}\"".to_owned()),
            "-?[0-9]{1,3}(\\.[0-9]{0,2})?(e[+-]?[0-9]{0,2})?",
            "true|false|null|NaN|tru",
            "[ \t\r\n]{1,2}",
            "\\PC{0,3}",
        ];
        proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    /// JSON that is right.
    fn json() -> impl Strategy<Value = serde_json::Value> {
        use serde_json::Value;
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,30}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::btree_map(".{0,12}", inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_takes_what_serde_json_takes(text in jsonish()) {
            prop_assert_eq!(accepts(&text), serde_json::from_str::<IgnoredAny>(&text).is_ok(), "{}", text);
        }

        #[test]
        fn it_takes_all_json_whole(value in json(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            let mut reader = Reader::new(&text, DEPTH);
            prop_assert_eq!(reader.raw().unwrap(), &text);
            let (padded, followed) = (format!(" {text}\n"), format!("{text},"));
            prop_assert!(accepts(&padded) && !accepts(&followed));
        }

        #[test]
        fn a_string_is_what_serde_json_says(text in ".{0,40}") {
            let json = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(Reader::new(&json, 1).string().unwrap(), text);
        }

        #[test]
        fn a_cut_text_is_refused(value in json(), at in any::<proptest::sample::Index>()) {
            let text = serde_json::to_string(&[value]).unwrap();
            let cut = text.floor_char_boundary(at.index(text.len()));
            prop_assert!(!accepts(&text[..cut]));
        }
    }

    #[test]
    fn depth_is_bounded_at_the_limit() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(accepts(&nested(DEPTH)) && !accepts(&nested(DEPTH + 1)));
        assert_eq!(Reader::new(&"{\"a\":".repeat(100_000), DEPTH).skip(), Err(JsonError::TooDeep));
    }

    #[test]
    fn half_a_surrogate_pair_is_no_text_and_yet_json() {
        assert_eq!(Reader::new(r#""\ud800""#, 1).string(), Err(JsonError::NoText));
        assert!(accepts(r#""\ud800""#));
    }
}
