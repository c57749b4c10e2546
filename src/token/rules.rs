//! Names by pattern: `*` stands for any characters, `?` for one. What is allowed and what is not.

use std::borrow::Cow;

use serde::{Serialize, Serializer};
use wildmatch::WildMatch;

use super::value::plain_text;
use crate::document::Table;

/// The longest pattern in bytes.
const MAX_PATTERN: usize = 256;

/// A pattern, and the same for URIs in their plain form.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: Box<str>,
    matcher: WildMatch,
    plain: Option<WildMatch>,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > MAX_PATTERN {
            return Err(format!("{text:?} is no pattern: write 1 to {MAX_PATTERN} bytes, such as get_* or *"));
        }
        plain_text(text)?;
        let plain = plain_uri(text);
        let plain = (plain != text).then(|| WildMatch::new(&plain));
        Ok(Self { text: text.into(), matcher: WildMatch::new(text), plain })
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a name is of this pattern.
    pub fn matches(&self, name: &str) -> bool {
        self.matcher.matches(name)
    }

    fn matches_plain(&self, uri: &Uri<'_>) -> bool {
        self.plain.as_ref().unwrap_or(&self.matcher).matches(&uri.plain)
    }
}

/// A URI as it was sent, and as a server may understand it.
#[derive(Debug)]
pub struct Uri<'u> {
    sent: &'u str,
    plain: Cow<'u, str>,
}

impl<'u> Uri<'u> {
    /// Works out the plain form.
    pub fn new(sent: &'u str) -> Self {
        Self { sent, plain: plain_uri(sent) }
    }
}

/// What is matched against patterns. A rule that allows must hold for every reading of a name, one that
/// denies for any.
#[derive(Debug)]
pub enum Name<'n> {
    /// It has one reading.
    Plain(&'n str),
    /// It has two.
    Uri(Uri<'n>),
}

impl Name<'_> {
    fn is_surely(&self, pattern: &Pattern) -> bool {
        match self {
            Self::Plain(name) => pattern.matches(name),
            Self::Uri(uri) => pattern.matches(uri.sent) && pattern.matches_plain(uri),
        }
    }

    fn is_possibly(&self, pattern: &Pattern) -> bool {
        match self {
            Self::Plain(name) => pattern.matches(name),
            Self::Uri(uri) => pattern.matches(uri.sent) || pattern.matches_plain(uri),
        }
    }
}

/// What is allowed and what is denied among names of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NameRules {
    /// What is allowed; `None` says nothing about it.
    pub allow: Option<Box<[Pattern]>>,
    /// What is denied whatever is allowed.
    pub deny: Box<[Pattern]>,
}

impl NameRules {
    /// Reads the rules that a key has: a list of patterns that are allowed, or a table of `allow` and `deny`.
    pub fn read(table: &Table<'_>, key: &'static str) -> Option<Self> {
        if !table.has_table(key) {
            return patterns(table, key).map(|allow| Self { allow: Some(allow), deny: Box::default() });
        }
        let inner = table.table(key)?;
        let rules = Self { allow: patterns(&inner, "allow"), deny: patterns(&inner, "deny").unwrap_or_default() };
        inner.done();
        Some(rules)
    }

    /// The rule that allows a name, and its place in the list.
    pub fn allowing(&self, name: &Name<'_>) -> Option<(usize, &Pattern)> {
        self.allow.iter().flatten().enumerate().find(|(_, pattern)| name.is_surely(pattern))
    }

    /// The rule that denies a name, and its place in the list.
    pub fn denying(&self, name: &Name<'_>) -> Option<(usize, &Pattern)> {
        self.deny.iter().enumerate().find(|(_, pattern)| name.is_possibly(pattern))
    }
}

fn patterns(table: &Table<'_>, key: &'static str) -> Option<Box<[Pattern]>> {
    let texts = table.strings(key)?;
    let read = |text| Pattern::parse(text).map_err(|why| table.problem(key, why)).ok();
    Some(texts.into_iter().filter_map(read).collect())
}

/// A URI with its scheme in lower case, without percent-encoding and without dot segments.
fn plain_uri(uri: &str) -> Cow<'_, str> {
    let scheme = uri.find(':').unwrap_or(0);
    let is_plain = !uri.contains(['%', '\\'])
        && !uri.contains("/.")
        && !uri.bytes().take(scheme).any(|byte| byte.is_ascii_uppercase());
    if is_plain {
        return Cow::Borrowed(uri);
    }
    let mut text = uri.to_owned();
    // a server may decode more than once
    for _ in 0..3 {
        let decoded = decoded(&text);
        if decoded == text {
            break;
        }
        text = decoded;
    }
    let mut kept: Vec<&str> = Vec::new();
    let text = text.replace('\\', "/");
    for segment in text.split('/') {
        match segment {
            "." | ".." => {
                // what stands before the path is no segment of it
                if segment == ".." && kept.len() > 3 {
                    kept.pop();
                }
            }
            _ => kept.push(segment),
        }
    }
    let mut text = kept.join("/");
    if let Some(scheme) = text.find(':').and_then(|end| text.get_mut(..end)) {
        scheme.make_ascii_lowercase();
    }
    Cow::Owned(text)
}

fn decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digit = |at: usize| tail.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or_default());
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(name)
    }

    #[test]
    fn what_patterns_mean() {
        for (pattern, name, expected) in [
            ("get_*", "get_user", true),
            ("get_*", "get_", true),
            ("get_*", "forget_user", false),
            ("*", "", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a?c", "aéc", true),
            ("*.read", "files.read", true),
            ("Get_*", "get_user", false),
            ("a[b]c", "a[b]c", true),
            ("file:///docs/*", "file:///docs/a/b", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
        assert!(Pattern::parse("").is_err() && Pattern::parse("a\nb").is_err());
        assert!(Pattern::parse(&"a".repeat(MAX_PATTERN + 1)).is_err());
    }

    #[test]
    fn a_uri_has_no_way_around_a_rule() {
        let rules = |allow: &str, deny: &[&str]| NameRules {
            allow: Some([Pattern::parse(allow).unwrap()].into()),
            deny: deny.iter().map(|text| Pattern::parse(text).unwrap()).collect(),
        };
        let allowed = |rules: &NameRules, uri: &str| {
            let name = Name::Uri(Uri::new(uri));
            rules.denying(&name).is_none() && rules.allowing(&name).is_some()
        };
        let docs = rules("file:///docs/*", &[]);
        for (uri, expected) in [
            ("file:///docs/a", true),
            ("file:///docs/a%20b", true),
            ("file:///docs/a/../b", true),
            ("file:///docs/../etc/passwd", false),
            ("file:///docs/%2e%2e/etc/passwd", false),
            ("file:///docs/%252e%252e/etc/passwd", false),
            ("file:///docs\\..\\etc", false),
            ("file:///docs/..%2fetc", false),
            ("file:///docs/..%5cetc", false),
            ("FILE:///docs/a", false),
            ("file:///doc%73/a", false),
        ] {
            assert_eq!(allowed(&docs, uri), expected, "{uri}");
        }
        let but_secrets = rules("*", &["file:///secret/*"]);
        for (uri, expected) in [
            ("file:///public/x", true),
            ("file:///secret/x", false),
            ("file:///%73ecret/x", false),
            ("FILE:///secret/x", false),
            ("file:///public/../secret/x", false),
            ("file:///./secret/x", false),
        ] {
            assert_eq!(allowed(&but_secrets, uri), expected, "{uri}");
        }
        let encoded = rules("file:///My%20Docs/*", &[]);
        assert!(allowed(&encoded, "file:///My%20Docs/a") && !allowed(&encoded, "file:///My%20Docs/../a"));
    }

    #[test]
    fn no_name_takes_long_to_match() {
        let begun = Instant::now();
        let longest = "a".repeat(8192);
        assert!(!matches(&format!("{}b", "a*".repeat(127)), &longest));
        assert!(!matches(&format!("{}b", "*a".repeat(127)), &longest));
        assert!(!matches(&format!("{}b", "*?".repeat(127)), &longest));
        // a matcher that tries every way would not come back at all
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }

    proptest! {
        #[test]
        fn a_pattern_without_wildcards_matches_itself_alone(text in "[a-z_./-]{1,20}", other in "[a-z_./-]{1,20}") {
            prop_assert_eq!(matches(&text, &other), text == other);
        }

        #[test]
        fn any_uri_is_read_without_panic(uri in "[a-zA-Z:/%.\\\\0-9é]{0,40}") {
            let plain = plain_uri(&uri).into_owned();
            prop_assert!(!plain.contains("/../"), "{}", plain);
        }
    }
}
