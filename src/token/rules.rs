//! Names by pattern: `*` stands for any characters, `?` for one. What is allowed and what is not.

use serde::{Serialize, Serializer};
use wildmatch::WildMatch;

use super::uri::{self, Forms, Uri};
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
        let begins_absolute = || self.text.split_once(':').is_some_and(|(_, rest)| rest.starts_with("///"));
        let allows = |text: &String| self.spellings().any(|spelling| spelling.has_all_of(text));
        let is_below = |forms: &Forms| {
            !forms.has_absolute && (!forms.is_absolute || begins_absolute()) && forms.canonical.iter().all(allows)
        };
        self.has_all_of(uri.sent) && uri.forms().is_some_and(is_below)
    }

    fn matches_possibly(&self, uri: &Uri<'_>) -> bool {
        let Some(forms) = uri.forms() else { return true };
        let made = forms.canonical.iter().chain(&forms.without_port).map(String::as_str);
        [uri.sent].into_iter().chain(made).any(|text| self.spellings().any(|spelling| spelling.has_any_of(text)))
    }

    fn spellings(&self) -> impl Iterator<Item = &Self> {
        [self].into_iter().chain(self.canonical.as_deref())
    }

    /// Whether a URI is of this pattern however much of it a server heeds.
    fn has_all_of(&self, uri: &str) -> bool {
        let Some([of_place, of_query]) = self.place_and_query() else {
            return readings(uri).all(|reading| self.matches(reading));
        };
        let (place, rest) = uri::place_and_rest(uri);
        let is_of_query = |query| beginnings(query).all(|reading| of_query.matches(reading));
        readings(place).all(|reading| of_place.matches(reading)) && rest.strip_prefix('?').is_some_and(is_of_query)
    }

    /// Whether what some server takes from a URI is of this pattern.
    fn has_any_of(&self, uri: &str) -> bool {
        let is_any = |text: &str, pattern: &WildMatch| {
            let mut texts = readings(text).flat_map(|reading| [Some(reading), reading.strip_suffix('/')]);
            texts.any(|text| text.is_some_and(|text| pattern.matches(text)))
        };
        let asks = |[of_place, of_query]: [WildMatch; 2]| {
            let (place, rest) = uri::place_and_rest(uri);
            let is_of_query = |query: &str| {
                let parts = query.split('&').filter(|part| part.len() < query.len());
                parts.chain([query]).flat_map(beginnings).any(|part| of_query.matches(part))
            };
            rest.strip_prefix('?').is_some_and(is_of_query) && is_any(place, &of_place)
        };
        is_any(uri, &self.matcher) || self.place_and_query().is_some_and(asks)
    }

    /// What a pattern that speaks of a query says of the place, and of the query.
    fn place_and_query(&self) -> Option<[WildMatch; 2]> {
        let mark = uri::query_mark(&self.text)?;
        Some([&self.text[..mark], &self.text[mark + 1..]].map(WildMatch::new))
    }
}

/// A URI, and what is left of it for a server that heeds no fragment, no query, or no parameters.
fn readings(uri: &str) -> impl Iterator<Item = &str> {
    beginnings(uri).chain(uri::without_parameters(uri))
}

/// A text, and what stands before a fragment, or before a query.
fn beginnings(text: &str) -> impl Iterator<Item = &str> {
    [Some(text.len()), text.find('#'), text.find('?')].into_iter().flatten().map(|end| &text[..end])
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
mod tests;
