//! Names by pattern: `*` stands for any characters, `?` for one. What is allowed and what is not.

use percent_encoding::percent_decode_str;
use serde::{Serialize, Serializer};
use wildmatch::WildMatch;

use super::value::plain_text;
use crate::document::Table;

/// The longest pattern in bytes.
const MAX_PATTERN: usize = 256;

/// The most readings that are looked at; a URI with more is unclear.
const MAX_READINGS: usize = 64;

/// A pattern, and what it may be written like in URIs.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: Box<str>,
    matcher: WildMatch,
    /// Other readings of it; `None` if nobody can tell.
    readings: Option<Box<[WildMatch]>>,
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
        let readings = readings(text, &[SPELLING, &[with_plain_origin]]);
        let readings = readings.map(|texts| texts.iter().map(|text| WildMatch::new(text)).collect());
        Ok(Self { text: text.into(), matcher: WildMatch::new(text), readings })
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
        let all_match = |readings: &Vec<String>| readings.iter().all(|reading| self.matches_reading(reading));
        self.matches(uri.sent) && uri.readings.as_ref().is_some_and(all_match)
    }

    fn matches_possibly(&self, uri: &Uri<'_>) -> bool {
        let (Some(_), Some(readings)) = (&self.readings, &uri.loose_readings) else { return true };
        self.matches_reading(uri.sent) || readings.iter().any(|reading| self.matches_reading(reading))
    }
}

/// A URI as it was sent, and as servers may read it; `None` where nobody can tell.
#[derive(Debug)]
pub struct Uri<'u> {
    sent: &'u str,
    readings: Option<Vec<String>>,
    loose_readings: Option<Vec<String>>,
}

impl<'u> Uri<'u> {
    /// Works out the readings.
    pub fn new(sent: &'u str) -> Self {
        let readings_by = |steps: &[&[Step]]| readings(sent, steps);
        Self {
            sent,
            readings: readings_by(&[SPELLING, PARTS]),
            loose_readings: readings_by(&[SPELLING, PARTS, PLACES]),
        }
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

/// What some servers do to a URI before they use it; `None` if it changes nothing.
type Step = fn(&str) -> Option<String>;

/// Other spellings of the same.
const SPELLING: &[Step] = &[decoded, with_slashes, without_empty_segments];

/// What is left of it for a server that heeds neither query nor fragment.
const PARTS: &[Step] = &[|uri| before(uri, '?'), |uri| before(uri, '#')];

/// Other ways to name the same place. They matter to rules that deny alone, for who allows has named the place.
const PLACES: &[Step] = &[with_plain_origin, with_bare_host, without_host, with_host_in_path, without_last_slash];

/// Everything, besides the URI itself, that the steps can make of it, in whatever order a server takes them.
/// Nothing at all if one of these texts is unclear.
fn readings(uri: &str, steps: &[&[Step]]) -> Option<Vec<String>> {
    let mut found: Vec<String> = Vec::new();
    let mut seen = 0;
    loop {
        let text = if seen == 0 { uri } else { found.get(seen - 1)? };
        if is_unclear(text) || found.len() > MAX_READINGS {
            return None;
        }
        let made: Vec<String> = steps.iter().copied().flatten().filter_map(|step| step(text)).collect();
        for reading in made {
            if reading != uri && !found.contains(&reading) {
                found.push(reading);
            }
        }
        if seen == found.len() {
            return Some(found);
        }
        seen += 1;
    }
}

/// Whether a text leads nobody knows where: `..` does after a link or at the root, parsers drop line breaks and
/// spaces around, and what is no UTF-8 becomes anything.
fn is_unclear(text: &str) -> bool {
    text.trim() != text
        || text.contains(|letter: char| letter.is_control() || letter == char::REPLACEMENT_CHARACTER)
        || text.split(['/', '\\', ':', ';']).any(|segment| matches!(segment.trim(), "." | ".."))
}

/// Percent-encoding of RFC 3986, undone once.
fn decoded(uri: &str) -> Option<String> {
    let text = percent_decode_str(uri).decode_utf8_lossy();
    (text != uri).then(|| text.into_owned())
}

/// Backslashes as the URL standard of WHATWG reads them.
fn with_slashes(uri: &str) -> Option<String> {
    uri.contains('\\').then(|| uri.replace('\\', "/"))
}

/// Slashes as POSIX reads them, and the usual number of them before the path: three for files, else two.
fn without_empty_segments(uri: &str) -> Option<String> {
    let (scheme, rest) = scheme_of(uri)?;
    let path = rest.trim_start_matches('/');
    let slashes = rest.len() - path.len();
    let usual = if slashes != 2 && scheme.eq_ignore_ascii_case("file") { 3 } else { 2 };
    if slashes == usual && !path.contains("//") {
        return None;
    }
    let mut text = path.to_owned();
    while text.contains("//") {
        text = text.replace("//", "/");
    }
    Some(format!("{scheme}:{}{text}", "/".repeat(usual)))
}

fn before(uri: &str, mark: char) -> Option<String> {
    uri.split_once(mark).map(|(before, _)| before.to_owned())
}

/// Scheme and authority in lower case.
fn with_plain_origin(uri: &str) -> Option<String> {
    let (scheme, _) = scheme_of(uri)?;
    let origin = authority_of(uri).map_or(scheme.len(), |(before, authority, _)| before.len() + authority.len());
    let (origin, path) = uri.split_at_checked(origin)?;
    origin.contains(|letter: char| letter.is_ascii_uppercase()).then(|| origin.to_ascii_lowercase() + path)
}

/// The host without user and port, and the path that HTTP has at least.
fn with_bare_host(uri: &str) -> Option<String> {
    let (before, authority, path) = authority_of(uri)?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let port = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|digit| digit.is_ascii_digit()));
    let host = port.map_or(host, |(host, _)| host).trim_end_matches('.');
    let root = if path.is_empty() && before.starts_with("http") { "/" } else { "" };
    (host != authority || !root.is_empty()).then(|| format!("{before}{host}{root}{path}"))
}

/// A file, for a server that does not heed the host.
fn without_host(uri: &str) -> Option<String> {
    let (before, authority, path) = authority_of(uri)?;
    (before == "file://" && !authority.is_empty()).then(|| format!("{before}{path}"))
}

/// A file, for a server that takes all after `file://` for its path.
fn with_host_in_path(uri: &str) -> Option<String> {
    let (before, authority, path) = authority_of(uri)?;
    (before == "file://" && !authority.is_empty()).then(|| format!("{before}/{authority}{path}"))
}

fn without_last_slash(uri: &str) -> Option<String> {
    let text = uri.trim_end_matches('/');
    (text != uri && !text.ends_with(':')).then(|| text.to_owned())
}

fn scheme_of(uri: &str) -> Option<(&str, &str)> {
    uri.split_once(':').filter(|(scheme, _)| !scheme.contains('/'))
}

/// What stands before the authority, the authority and what follows.
fn authority_of(uri: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = scheme_of(uri)?;
    let rest = rest.strip_prefix("//")?;
    let (before, _) = uri.split_at_checked(scheme.len() + "://".len())?;
    let (authority, path) = rest.split_at_checked(rest.find('/').unwrap_or(rest.len()))?;
    Some((before, authority, path))
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
            // what the server gets may be the table
            ("db://table?id=*", "db://table?id=5", false),
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

        #[test]
        fn any_uri_is_read_without_panic(uri in "[a-zA-Z:/%.\\\\0-9é@?#;]{0,40}") {
            let uri = Uri::new(&uri);
            prop_assert!(uri.readings.is_some() || uri.loose_readings.is_none());
        }
    }

    #[test]
    fn a_usual_uri_has_no_other_reading() {
        for uri in ["file:///docs/a.md", "docs://public/x", "db://table", "https://example.com/a", "name"] {
            let uri = Uri::new(uri);
            assert_eq!((uri.readings, uri.loose_readings), (Some(vec![]), Some(vec![])), "{}", uri.sent);
        }
    }

    #[test]
    fn what_has_too_many_readings_is_unclear() {
        for part in ["%25", "%2f", "/", "//a", "?#", "\\", "..", "A@:1"] {
            let uri = format!("HTTPS://Host/{}", part.repeat(8000 / part.len()));
            let uri = Uri::new(&uri);
            assert!(uri.loose_readings.is_none_or(|readings| readings.len() < 2 * MAX_READINGS), "{part}");
        }
    }
}
