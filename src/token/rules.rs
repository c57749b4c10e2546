//! Names by pattern: `*` stands for any characters, `?` for one. What is allowed and what is not.

use serde::{Serialize, Serializer};
use wildmatch::WildMatch;

use super::uri::{self, Uri};
use super::value::plain_text;
use crate::document::Table;

/// The longest pattern in bytes.
const MAX_PATTERN: usize = 256;

/// A pattern of names, or of URIs in all their spellings.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: Box<str>,
    matcher: WildMatch,
    /// The canonical form of a pattern of URIs, if it is another text.
    canonical: Option<Box<Pattern>>,
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
    /// Reads a pattern of names.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > MAX_PATTERN {
            return Err(format!("{text:?} is no pattern: write 1 to {MAX_PATTERN} bytes, such as get_* or *"));
        }
        plain_text(text)?;
        Ok(Self::of(text))
    }

    /// Reads a pattern of URIs.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse_uri(text: &str) -> Result<Self, String> {
        let pattern = Self::parse(text)?;
        let canonical = uri::canonical_pattern(text);
        Ok(Self { canonical: (canonical != text).then(|| Self::of(&canonical).into()), ..pattern })
    }

    fn of(text: &str) -> Self {
        Self { text: text.into(), matcher: WildMatch::new(text), canonical: None }
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a name is of this pattern.
    pub fn matches(&self, name: &str) -> bool {
        self.matcher.matches(name)
    }

    fn matches_surely(&self, uri: &Uri<'_>) -> bool {
        // who writes everything, or just this URI, need not know where it leads
        if &*self.text == "*" || *self.text == *uri.sent {
            return true;
        }
        let allows = |text: &String| self.spellings().any(|spelling| spelling.has_all_of(text));
        self.has_all_of(uri.sent) && uri.forms().is_some_and(|[canonical, _]| allows(canonical))
    }

    fn matches_possibly(&self, uri: &Uri<'_>) -> bool {
        let Some(forms) = uri.forms() else { return true };
        let mut texts = [uri.sent].into_iter().chain(forms.iter().map(|form| &**form).filter(|form| *form != uri.sent));
        texts.any(|text| self.spellings().any(|spelling| spelling.has_any_of(text)))
    }

    fn spellings(&self) -> impl Iterator<Item = &Self> {
        [self].into_iter().chain(self.canonical.as_deref())
    }

    /// Whether a URI is of this pattern however much of it a server heeds.
    fn has_all_of(&self, uri: &str) -> bool {
        let Some(mark) = uri::query_mark(&self.text) else {
            return readings(uri).all(|reading| self.matches(reading));
        };
        let (place, rest) = uri::place_and_rest(uri);
        let (of_place, of_query) = (WildMatch::new(&self.text[..mark]), WildMatch::new(&self.text[mark + 1..]));
        let is_of_query = |query| readings(query).all(|reading| of_query.matches(reading));
        of_place.matches(place) && rest.strip_prefix('?').is_some_and(is_of_query)
    }

    /// Whether what some server takes from a URI is of this pattern.
    fn has_any_of(&self, uri: &str) -> bool {
        let mut texts = readings(uri).flat_map(|reading| [Some(reading), reading.strip_suffix('/')]);
        texts.any(|text| text.is_some_and(|text| self.matches(text)))
    }
}

/// A URI, and what is left of it for a server that heeds no fragment or no query.
fn readings(uri: &str) -> impl Iterator<Item = &str> {
    [Some(uri.len()), uri.find('#'), uri.find('?')].into_iter().flatten().map(|end| &uri[..end])
}

/// What is matched against patterns. A rule that allows must hold for a URI in every form, one that denies in any.
#[derive(Debug)]
pub enum Name<'n> {
    /// It has one form.
    Plain(&'n str),
    /// It has several, or is unclear.
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
    /// Reads the rules that a key has: a list of patterns that are allowed, or a table of `allow` and `deny`. Those of
    /// `resources` are about URIs.
    pub fn read(table: &Table<'_>, key: &'static str) -> Option<Self> {
        let parse: Parse = if key == "resources" { Pattern::parse_uri } else { Pattern::parse };
        if !table.has_table(key) {
            return patterns(table, key, parse).map(|allow| Self { allow: Some(allow), deny: Box::default() });
        }
        let inner = table.table(key)?;
        let deny = patterns(&inner, "deny", parse).unwrap_or_default();
        let rules = Self { allow: patterns(&inner, "allow", parse), deny };
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

type Parse = fn(&str) -> Result<Pattern, String>;

fn patterns(table: &Table<'_>, key: &'static str, parse: Parse) -> Option<Box<[Pattern]>> {
    let texts = table.strings(key)?;
    let read = |text| parse(text).map_err(|why| table.problem(key, why)).ok();
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

    /// What servers do to a URI.
    const STEPS: [fn(String) -> String; 6] = [
        |uri| percent_decode_str(&uri).decode_utf8_lossy().into_owned(),
        |uri| uri.replace('\\', "/"),
        |uri| match uri.split_once(':') {
            Some((scheme, rest)) => {
                let segments: Vec<_> = rest.split('/').filter(|segment| !segment.is_empty()).collect();
                let slash = if rest.ends_with('/') { "/" } else { "" };
                format!("{}://{}{slash}", scheme.to_lowercase(), segments.join("/"))
            }
            None => uri,
        },
        |uri| uri.split('?').next().unwrap_or_default().to_owned(),
        |uri| uri.split('#').next().unwrap_or_default().to_owned(),
        |uri| uri.split(['?', '#']).next().unwrap_or_default().to_owned(),
    ];

    fn is_allowed(allow: &str, deny: &[&str], uri: &str) -> bool {
        let rules = NameRules {
            allow: Some([Pattern::parse_uri(allow).unwrap()].into()),
            deny: deny.iter().map(|text| Pattern::parse_uri(text).unwrap()).collect(),
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
            ("file://documents/*", "file://documents/a", false),
            ("file://documents/a", "file://documents/a", true),
            ("file://*", "file:///documents/a", true),
            ("docs://public/*", "docs://public/x", true),
            ("docs://public/*", "docs://public/../private/x", false),
            ("docs://*/pub/*", "docs:///pub/x", false),
            ("docs:///*", "docs:///x", true),
            ("urn:isbn:*", "urn:isbn:0451450523", true),
            ("https://Host:8443/*", "https://Host:8443/a%20b", true),
            ("https://u@Host:8443/*", "https://u@Host:8443/a", false),
            ("https://host*", "https://host?a=b@c", true),
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
            ("file:///docs/*?.md", "file:///docs/a.md", true),
            ("file:///docs/*?.md", "file:///docs/secret.key?x.md", false),
            ("file:///docs/*?.md", "file:///docs/secret.key%23x.md", false),
            ("file:///docs/*?.md", "file:///docs/secret.key#.md", false),
            ("file:///docs/*.md", "file:///docs/secret.key?x#.md", false),
            ("file:///docs/*.md", "file:///docs/a.md?x#.md", false),
            ("file:///*/????.log", "file:///etc/abcd.log", true),
            ("file:///*/????.log", "file:///etc/shadow/?/abcd.log", false),
            ("file:///srv/app/log?", "file:///srv/app/log1", true),
            ("file:///srv/app/log?", "file:///srv/app/log#", false),
            ("file:///srv/app/log?", "file:///srv/app/log?", true),
            ("https://host/*?view=public", "https://host/a?view=public", true),
            ("https://host/*?view=public", "https://host/a?view=%70ublic", false),
            ("https://host/*?view=public", "https://host/a?view=public#top", false),
            ("https://host/*?view=public", "https://host/admin#?view=public", false),
            ("https://host/*?view=public", "https://host/admin?x#?view=public", false),
            ("https://host/*?view=public", "https://host/admin?x?view=public", false),
            ("https://host/*?view=public", "https://host/admin%3fview=public", false),
            ("https://host/*?view=pub*", "https://host/admin?view=x#?view=public", false),
            ("https://host/*?view=pub*", "https://host/a?view=public#top", true),
            ("ui://app/?url=https://a/*", "ui://app/?url=https://a/b//c", true),
            ("db://table?*", "db://table?id=5", false),
            ("*.md", "file:///a%252emd", false),
            ("*.md", "file:///a.md ", false),
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
            ("file:///secret/*", "HTTPS://Host:443/a%20b/?q=1#f", true),
            ("file:///secret/*", "https://host/%253f", false),
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
            ("file:///secret/*", "\u{feff}file:///secret/x", false),
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
            ("https://internal/*", "https://internal%40other/x", false),
            ("https://internal/*", "https://other%2f@internal/x", false),
            ("https://internal/*", "https://other\\@internal/x", false),
            ("https://internal/*", "https://internal:8443/x", false),
            ("https://internal:8443/*", "HTTPS:internal:8443/x", false),
            ("https://internal:8443/*", "https://internal/x", true),
            ("https://internal:443/*", "https://internal/x", false),
            ("https://internal/*", "https://internal./x", false),
            ("https://internal/*", "https://internal.:443/x", false),
            ("https://internal/*", "https://internal?x", false),
            ("https://internal/*", "https://external/x?from=https://internal/x", true),
            ("db://table?id=5", "db://table?id=5", false),
            ("db://table?id=5", "db://table?id=5 ", false),
            ("db://table?id=5", "db://table?id=%35#x", false),
            ("db://table?id=5", "db://table?id=55", true),
            ("db://table", "db://table?id=5", false),
            ("file:///secret/", "file:///secret", false),
            ("*/secret/*", "file:///public?\\secret\\x", false),
            ("file://*", "file:/public/x", false),
            ("file://*", "https://host/x", true),
        ] {
            assert_eq!(is_allowed("*", &[deny], uri), expected, "{deny} {uri}");
        }
    }

    #[test]
    fn only_patterns_of_uris_keep_a_canonical_form() {
        for text in ["file:///My%20Docs/*", "A:\\%2525252541//zN", "/a/../b"] {
            assert!(Pattern::parse(text).unwrap().canonical.is_none(), "{text}");
            assert!(Pattern::parse_uri(text).unwrap().canonical.is_some(), "{text}");
        }
        assert!(Pattern::parse_uri("file:///docs/*").unwrap().canonical.is_none());
    }

    #[test]
    fn a_uri_is_not_worked_on_for_a_rule_that_its_text_decides() {
        let uri = Uri::new("FILE:///docs/a");
        for (pattern, works) in [("*", false), ("FILE:///docs/a", false), ("file:///docs/*", false), ("FILE:*", true)] {
            Pattern::parse_uri(pattern).unwrap().matches_surely(&uri);
            assert_eq!(uri.is_worked_out(), works, "{pattern}");
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
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn a_pattern_without_wildcards_matches_itself_alone(text in "[a-z_./-]{1,20}", other in "[a-z_./-]{1,20}") {
            prop_assert_eq!(matches(&text, &other), text == other);
        }

        /// Whatever a server does to a URI, in whatever order, it stays below what is allowed and does not get below
        /// what is denied.
        #[test]
        fn no_order_of_steps_has_a_way_around_a_rule(
            origin in "(docs|DOCS):(//|/|\\\\|%2f)(public|%70ublic|%2570ublic)",
            rest in "(/|\\\\|%2f)?([/\\\\.a?#%;:@]|public|%2[eEfF35]|%252[ef]|%5c|%3[aAfF]){0,8}",
            steps in proptest::collection::vec(0..STEPS.len(), 0..10),
        ) {
            for uri in [format!("{origin}{rest}"), format!("docs://public/{rest}")] {
                let reached = steps.iter().fold(uri.clone(), |text, step| STEPS[*step](text));
                let is_below = reached.starts_with("docs://public/");
                prop_assert!(is_below || !is_allowed("docs://public/*", &[], &uri), "{} {}", uri, reached);
                prop_assert!(!is_below || !is_allowed("*", &["docs://public/*"], &uri), "{} {}", uri, reached);
            }
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
