//! Names by pattern: `*` stands for any characters, `?` for one. What is allowed and what is not.

use serde::{Serialize, Serializer};
use wildmatch::WildMatch;

use super::uri::{self, Uri};
use super::value::plain_text;
use crate::document::Table;

/// The longest pattern in bytes.
const MAX_PATTERN: usize = 256;

/// A pattern, and what it may be written like in URIs.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: Box<str>,
    matcher: WildMatch,
    /// Other readings of it; `None` if nobody can tell.
    readings: Option<Box<[WildMatch]>>,
    /// If it speaks of a query: what is left of it for a server that heeds none.
    without_query: Box<[WildMatch]>,
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
        let readings = uri::readings_of_pattern(text);
        let matchers = |texts: Vec<String>| texts.iter().map(|text| WildMatch::new(text)).collect();
        let without_query = matchers(uri::readings_without_query(text));
        Ok(Self { text: text.into(), matcher: WildMatch::new(text), readings: readings.map(matchers), without_query })
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a name is of this pattern.
    pub fn matches(&self, name: &str) -> bool {
        self.matcher.matches(name)
    }

    fn matches_reading(&self, reading: &str) -> bool {
        self.matches(reading) || self.readings.iter().flatten().any(|matcher| matcher.matches(reading))
    }

    fn matches_surely(&self, uri: &Uri<'_>) -> bool {
        // who writes everything, or just this URI, need not know how it is read
        if &*self.text == "*" || *self.text == *uri.sent {
            return true;
        }
        let allows = |reading: &String| {
            self.matches_reading(reading) || self.without_query.iter().any(|matcher| matcher.matches(reading))
        };
        self.matches(uri.sent) && uri.readings.as_ref().is_some_and(|readings| readings.iter().all(allows))
    }

    fn matches_possibly(&self, uri: &Uri<'_>) -> bool {
        let (Some(_), Some(readings)) = (&self.readings, &uri.loose_readings) else { return true };
        self.matches_reading(uri.sent) || readings.iter().any(|reading| self.matches_reading(reading))
    }
}

/// What is matched against patterns. A rule that allows must hold for every reading of a name, one that
/// denies for any.
#[derive(Debug)]
pub enum Name<'n> {
    /// It has one reading.
    Plain(&'n str),
    /// It may have many.
    Uri(Uri<'n>),
}

impl Name<'_> {
    fn is_surely(&self, pattern: &Pattern) -> bool {
        match self {
            Self::Plain(name) => pattern.matches(name),
            Self::Uri(uri) => pattern.matches_surely(uri),
        }
    }

    fn is_possibly(&self, pattern: &Pattern) -> bool {
        match self {
            Self::Plain(name) => pattern.matches(name),
            Self::Uri(uri) => pattern.matches_possibly(uri),
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

    /// Whether a rule that allows may be meant for a name.
    pub fn mentions(&self, name: &Name<'_>) -> bool {
        self.allow.iter().flatten().any(|pattern| name.is_possibly(pattern))
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use percent_encoding::percent_decode_str;
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

    fn is_allowed(allow: &str, deny: &[&str], uri: &str) -> bool {
        let rules = NameRules {
            allow: Some([Pattern::parse(allow).unwrap()].into()),
            deny: deny.iter().map(|text| Pattern::parse(text).unwrap()).collect(),
        };
        let name = Name::Uri(Uri::new(uri));
        rules.denying(&name).is_none() && rules.allowing(&name).is_some()
    }

    #[test]
    fn a_uri_has_no_way_around_a_rule() {
        for (allow, uri, expected) in [
            ("file:///docs/*", "file:///docs/a", true),
            ("file:///docs/*", "file:///docs/a%20b", true),
            ("file:///docs/*", "file:///docs/a//b", true),
            ("file:///docs/*", "file:///docs/a?page=2#top", true),
            ("file:///docs/*", "file:///docs/..a/.b/c..", true),
            ("file:///docs/*", "file:///docs/a/../b", false),
            ("file:///docs/*", "file:///docs/../etc/passwd", false),
            ("file:///docs/*", "file:///docs//../etc/passwd", false),
            ("file:///docs/*", "file:///docs/%2f../etc/passwd", false),
            ("file:///docs/*", "file:///docs/%2e%2e/etc/passwd", false),
            ("file:///docs/*", "file:///docs/%252e%252e/etc/passwd", false),
            ("file:///docs/*", "file:///docs/%2525252e%2525252e/etc/passwd", false),
            ("file:///docs/*", "file:///docs\\..\\etc", false),
            ("file:///docs/*", "file:///docs/..%2fetc", false),
            ("file:///docs/*", "file:///docs/..%5cetc", false),
            ("file:///docs/*", "file:///docs/..;x/etc", false),
            ("file:///docs/*", "file:///docs/.. /etc", false),
            ("file:///docs/*", "file:///docs/.%09./etc", false),
            ("file:///docs/*", "file:///docs/%c0%ae%c0%ae/etc", false),
            ("file:///docs/*", "file:///docs/..", false),
            ("file:///docs/*", "file:///docs/..?x", false),
            ("file:///docs/*", "file:///docs/..%23x", false),
            ("file:///docs/*", "file:///docs/a?/../../../etc/passwd", false),
            ("file:///docs/*", "FILE:///docs/a", false),
            ("file:///docs/*", "file:///doc%73/a", false),
            ("file:///My%20Docs/*", "file:///My%20Docs/a", true),
            ("file:///My%20Docs/*", "file:///My%20Docs/../a", false),
            ("file://documents/*", "file://documents/a", true),
            ("docs://public/*", "docs://public/x", true),
            ("docs://public/*", "docs://public/../private/x", false),
            ("docs://*/pub/*", "docs:///pub/x", false),
            ("docs:///*", "docs:///x", true),
            ("urn:isbn:*", "urn:isbn:0451450523", true),
            ("https://u@Host:8443/*", "https://u@Host:8443/a%20b", true),
            ("ui://app/*", "ui://app/get?url=https%3A%2F%2Fexample.com%2Fa%3Fb", true),
            ("db://*", "db://table?id=5", true),
            ("db://table*", "db://table?id=5", true),
            ("db://table?id=5", "db://table?id=5", true),
            ("db://table?id=*", "db://table?id=5", true),
            ("db://table?id=*", "db://table", false),
            ("db://table?id=*", "db://table?name=5", false),
            ("db://*", "db://query?sql=SELECT%201%0AFROM%20caf%E9%20", true),
            ("db://*", "db://query%0A", false),
            ("*.md", "file:///a.md", true),
            ("*.md", "file:///etc/passwd?.md", false),
            ("*.md", "file:///etc/passwd%23.md", false),
            ("*.md", "file:///a.md%3f/etc/passwd?.md", false),
            ("file:///a/../b", "file:///a/../b", true),
            ("*", "file:///docs/../etc/passwd", true),
        ] {
            assert_eq!(is_allowed(allow, &[], uri), expected, "{allow} {uri}");
        }
    }

    #[test]
    fn a_uri_has_no_way_around_a_rule_that_denies() {
        for (deny, uri, expected) in [
            ("file:///secret/*", "file:///public/x", true),
            ("file:///secret/*", "file:///public//x?a/b#c", true),
            ("file:///secret/*", "db://table?id=5", true),
            ("file:///secret/*", "HTTPS://User@Host:443/a%20b/?q=1#f", true),
            ("file:///secret/*", "file:///secret/x", false),
            ("file:///secret/*", "file:///%73ecret/x", false),
            ("file:///secret/*", "file:///%25252573ecret/x", false),
            ("file:///secret/*", "FILE:///secret/x", false),
            ("file:///secret/*", "file:///public/../secret/x", false),
            ("file:///secret/*", "file:///public//../secret/x", false),
            ("file:///secret/*", "file:///./secret/x", false),
            ("file:///secret/*", "file:////secret/x", false),
            ("file:///secret/*", "file:///secret%2fx", false),
            ("file:///secret/*", "file:/secret/x", false),
            ("file:///secret/*", "file:secret/x", false),
            ("file:///secret/*", "file:\\secret\\x", false),
            ("file:///secret/*", "file://localhost/secret/x", false),
            ("file:///secret/*", "file://secret/x", false),
            ("file:///secret/*", " file:///secret/x", false),
            ("file:///secret/*", "file:///se%0acret/x", false),
            ("file:///secret//*", "file:///secret/x", false),
            ("file:///secret/key", "file:///secret/key?x", false),
            ("file:///secret/key", "file:///secret/key#x", false),
            ("file:///secret/key", "file:///secret/key%3fx", false),
            ("file:///secret/key", "file:///secret/key%2523x", false),
            ("file:///secret/key", "file:///secret/key/", false),
            ("file:///secret/key", "file:///secret/keys", true),
            ("docs://private/*", "docs://public/x", true),
            ("docs://private/*", "docs://public/../private/x", false),
            ("docs://private/*", "docs:///private/x", false),
            ("docs://private/*", "docs:private/x", false),
            ("memo:///private/*", "memo://private/x", false),
            ("https://internal/*", "https://INTERNAL/x", false),
            ("https://Internal/*", "https://internal/x", false),
            ("https://internal/*", "https:internal/x", false),
            ("https://internal/*", "https:\\\\internal\\x", false),
            ("https://internal/*", "https://user@internal:443/x", false),
            ("https://internal/*", "https://internal./x", false),
            ("https://internal/*", "https://internal?x", false),
            ("https://internal/*", "https://external/x?from=https://internal/x", true),
        ] {
            assert_eq!(is_allowed("*", &[deny], uri), expected, "{deny} {uri}");
        }
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

        /// Whatever way a server takes from a URI that a rule allows to a path, it ends below what is allowed.
        #[test]
        fn no_server_leaves_what_is_allowed(
            rest in "(/|\\\\|\\.|\\.\\.|a|\\?|#|%2[eEfF35]|%252[ef]|%5c){0,8}",
            decodes in 0..3_usize, cuts in any::<bool>(), cuts_late in any::<bool>(), slashes in any::<bool>(),
        ) {
            let cut = |text: String, cuts| match text.find(['?', '#']) {
                Some(end) if cuts => text[..end].to_owned(),
                _ => text,
            };
            let uri = format!("docs://public/{rest}");
            let mut read = cut(uri.clone(), cuts);
            for _ in 0..decodes {
                read = percent_decode_str(&read).decode_utf8_lossy().into_owned();
            }
            read = cut(read, cuts_late);
            if slashes {
                read = read.replace('\\', "/");
            }
            let mut path = Vec::new();
            for segment in read["docs://".len()..].split('/') {
                match segment {
                    "" | "." => {}
                    ".." => drop(path.pop()),
                    _ => path.push(segment),
                }
            }
            let is_below = path.first() == Some(&"public");
            prop_assert!(is_below || !is_allowed("docs://public/*", &[], &uri), "{} {:?}", uri, path);
            let path = format!("docs://{}", path.join("/"));
            prop_assert!(path != "docs://public/a" || !is_allowed("*", &["docs://public/a"], &uri), "{}", uri);
        }
    }
}
