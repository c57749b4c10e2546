//! A TOML document read key by key, so that every mistake in it is found in one go,
//! each with its file, line, column and key, and with what to do about it.

mod json;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use toml::value::{Datetime, Offset};

/// One mistake: where it stands, what is wrong and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file, where the mistake stands in one.
    pub file: Option<PathBuf>,
    /// Line and column, both counted from 1.
    pub position: Option<(usize, usize)>,
    /// The full key, such as `tokens[3].expires_at`, a flag or a variable; empty for a whole file.
    pub key: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl Problem {
    /// A mistake that stands in no file: a flag, an environment variable, something missing.
    pub fn outside(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { file: None, position: None, key: key.into(), message: message.into() }
    }

    /// A mistake that concerns a file as a whole.
    pub fn in_file(file: &Path, message: impl Into<String>) -> Self {
        Self { file: Some(file.to_owned()), position: None, key: String::new(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}:", file.display())?;
            if let Some((line, column)) = self.position {
                write!(f, "{line}:{column}:")?;
            }
            f.write_str(" ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Every mistake that was found, never empty where it is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

// --- The document ---------------------------------------------------------------------------

/// A parsed file and the mistakes found in it so far.
#[derive(Debug)]
pub struct Document<'t> {
    file: &'t Path,
    text: &'t str,
    root: Spanned<DeTable<'t>>,
    mistakes: RefCell<Vec<Mistake>>,
}

/// A mistake by its place in the text, in bytes; line and column are counted when all are known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Mistake {
    at: usize,
    key: String,
    message: String,
}

impl<'t> Document<'t> {
    /// Parses TOML 1.1. `file` is named in messages only.
    ///
    /// # Errors
    /// Every syntax error, with its line and column.
    pub fn parse(file: &'t Path, text: &'t str) -> Result<Self, Problems> {
        let (root, errors) = DeTable::parse_recoverable(text);
        let document = Self { file, text, root, mistakes: RefCell::default() };
        for error in errors {
            let message = format!("not TOML: {}", error.message().replace('\n', ", "));
            document.report(error.span().unwrap_or(0..0), String::new(), message);
        }
        if document.mistakes.borrow().is_empty() { Ok(document) } else { Err(document.problems()) }
    }

    /// Parses JSON as the table that TOML would write it as; `null` is an absent key, but not
    /// at the top. Messages then have no line, for the text is not a person's.
    ///
    /// # Errors
    /// It is not JSON, not an object, has null at its top, or an object with a key that occurs twice.
    pub fn parse_json(file: &'t Path, json: &'t [u8]) -> Result<Self, Problems> {
        let root = json::table(json).map_err(|message| Problem::in_file(file, message))?;
        Ok(Self { file, text: "", root, mistakes: RefCell::default() })
    }

    /// The top-level table.
    pub fn root(&self) -> Table<'_> {
        Table::new(self, self.root.get_ref(), self.root.span(), Name::Root)
    }

    /// Ends the reading: all mistakes in the order of the file, or none.
    ///
    /// # Errors
    /// The mistakes.
    pub fn finish(self) -> Result<(), Problems> {
        let problems = self.problems();
        if problems.0.is_empty() { Ok(()) } else { Err(problems) }
    }

    fn report(&self, span: Range<usize>, key: String, message: impl Into<String>) {
        self.mistakes.borrow_mut().push(Mistake { at: span.start.min(self.text.len()), key, message: message.into() });
    }

    /// All mistakes in the order of the file, each once. Lines are counted in one pass, for a file may be
    /// large and wrong in every record.
    fn problems(&self) -> Problems {
        let mut mistakes = self.mistakes.take();
        mistakes.sort();
        mistakes.dedup();
        let (mut line, mut start, mut counted) = (1, 0, 0);
        let place = |Mistake { at, key, message }| {
            let passed = self.text.get(counted..at).unwrap_or_default();
            line += passed.matches('\n').count();
            start = passed.rfind('\n').map_or(start, |end| counted + end + 1);
            counted = at;
            let column = || self.text.get(start..at).unwrap_or_default().chars().count() + 1;
            let position = (!self.text.is_empty()).then(|| (line, column()));
            Problem { file: Some(self.file.to_owned()), position, key, message }
        };
        Problems(mistakes.into_iter().map(place).collect())
    }
}

// --- A table in it --------------------------------------------------------------------------

/// How a table is called; spelled out only when a message needs it.
#[derive(Clone, Copy, Debug)]
enum Name<'a> {
    Root,
    Key(&'a Table<'a>, &'a str),
    Item(&'a Table<'a>, &'a str, usize),
}

/// One table, read by asking for each key that it may have; [`Table::done`] reports the others.
#[derive(Debug)]
pub struct Table<'a> {
    document: &'a Document<'a>,
    entries: &'a DeTable<'a>,
    span: Range<usize>,
    name: Name<'a>,
    asked: RefCell<Vec<&'static str>>,
    found: Cell<usize>,
}

impl<'a> Table<'a> {
    fn new(document: &'a Document<'a>, entries: &'a DeTable<'a>, span: Range<usize>, name: Name<'a>) -> Self {
        Self { document, entries, span, name, asked: RefCell::new(Vec::with_capacity(16)), found: Cell::new(0) }
    }

    /// The full name of a key of this table, or of the table itself for an empty key.
    pub fn full_name(&self, key: &str) -> String {
        let own = match self.name {
            Name::Root => return key.to_owned(),
            Name::Key(parent, own) => parent.full_name(own),
            Name::Item(parent, own, index) => format!("{}[{index}]", parent.full_name(own)),
        };
        if key.is_empty() { own } else { format!("{own}.{key}") }
    }

    /// Reports a mistake in the value of `key`, or in the whole table where it has no such key.
    pub fn problem(&self, key: &str, message: impl Into<String>) {
        let span = self.entries.get(key).map_or_else(|| self.span.clone(), Spanned::span);
        self.document.report(span, self.full_name(key), message);
    }

    fn value(&self, key: &'static str) -> Option<&'a DeValue<'a>> {
        self.asked.borrow_mut().push(key);
        let value = self.entries.get(key)?;
        self.found.set(self.found.get() + 1);
        Some(value.get_ref())
    }

    fn typed<T>(&self, key: &'static str, wanted: &str, read: impl FnOnce(&'a DeValue<'a>) -> Option<T>) -> Option<T> {
        let value = self.value(key)?;
        let typed = read(value);
        if typed.is_none() {
            self.problem(key, format!("{} where {wanted} belongs", described(value)));
        }
        typed
    }

    /// Whether there is such a key.
    pub fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// A string, if there is one.
    pub fn string(&self, key: &'static str) -> Option<&'a str> {
        self.typed(key, "a string", DeValue::as_str)
    }

    /// A string that must be there.
    pub fn required(&self, key: &'static str) -> Option<&'a str> {
        if !self.has(key) {
            self.problem(key, "missing: this key is required");
        }
        self.string(key)
    }

    /// A string read by `parse`, whose error says what is wrong and what to write.
    pub fn parsed<T>(&self, key: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text = self.string(key)?;
        parse(text).map_err(|message| self.problem(key, message)).ok()
    }

    /// A whole number from `range`.
    pub fn number(&self, key: &'static str, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let number = self.typed(key, "a whole number", |value| {
            let integer = value.as_integer()?;
            u64::from_str_radix(integer.as_str(), integer.radix()).ok()
        })?;
        if range.contains(&number) {
            return Some(number);
        }
        self.problem(key, format!("{number} is out of range: from {} to {}", range.start(), range.end()));
        None
    }

    /// A string or a whole number, as text: for sizes, which people write in both ways.
    pub fn text(&self, key: &'static str) -> Option<String> {
        self.typed(key, "a string or a whole number", |value| match value {
            DeValue::String(text) => Some(text.to_string()),
            DeValue::Integer(number) => Some(number.to_string()),
            _ => None,
        })
    }

    /// A moment: a TOML date-time with an offset, or the same as an RFC 3339 string.
    pub fn timestamp(&self, key: &'static str) -> Option<jiff::Timestamp> {
        let wanted = "a date and time with an offset, such as 2027-01-31T00:00:00Z,";
        let value = self.typed(key, wanted, |value| (value.is_datetime() || value.is_str()).then_some(value))?;
        let timestamp = match (value.as_datetime(), value.as_str()) {
            (Some(datetime), _) => moment(datetime),
            (None, Some(text)) => text.parse().ok(),
            (None, None) => None,
        };
        if timestamp.is_none() {
            self.problem(key, "not a date and time with an offset: write 2027-01-31T00:00:00Z");
        }
        timestamp
    }

    /// `true` or `false`.
    pub fn truth(&self, key: &'static str) -> Option<bool> {
        self.typed(key, "true or false", DeValue::as_bool)
    }

    /// A list of strings.
    pub fn strings(&self, key: &'static str) -> Option<Vec<&'a str>> {
        self.typed(key, "a list of strings", |value| {
            value.as_array()?.iter().map(|item| item.get_ref().as_str()).collect()
        })
    }

    /// Whether the value of a key is a table.
    pub fn has_table(&self, key: &str) -> bool {
        self.entries.get(key).is_some_and(|value| value.get_ref().is_table())
    }

    /// A table below this one.
    pub fn table(&self, key: &'static str) -> Option<Table<'_>> {
        let entries = self.typed(key, "a table", DeValue::as_table)?;
        let span = self.entries.get(key).map_or(0..0, Spanned::span);
        Some(Table::new(self.document, entries, span, Name::Key(self, key)))
    }

    /// A list of tables, as `[[key]]` writes it.
    pub fn tables(&self, key: &'static str) -> Option<Vec<Table<'_>>> {
        let items = self.typed(key, "a list of tables", DeValue::as_array)?;
        let tables = items.iter().enumerate().map(|(index, item)| {
            let entries = item.get_ref().as_table()?;
            Some(Table::new(self.document, entries, item.span(), Name::Item(self, key, index)))
        });
        let tables: Option<Vec<_>> = tables.collect();
        if tables.is_none() {
            self.problem(key, format!("a list of other things where tables belong: write [[{}]]", self.full_name(key)));
        }
        tables
    }

    /// The tables below this one whose names are the writer's own, such as `[roles.developer]`.
    pub fn named_tables(&self) -> Vec<(&str, Table<'_>)> {
        let mut tables = Vec::new();
        for (key, value) in self.entries {
            self.found.set(self.found.get() + 1);
            let name: &str = key.get_ref();
            match value.get_ref().as_table() {
                Some(entries) => {
                    tables.push((name, Table::new(self.document, entries, value.span(), Name::Key(self, name))));
                }
                None => self.problem(name, format!("{} where a table belongs", described(value.get_ref()))),
            }
        }
        tables
    }

    /// Ends the reading of this table: every key that nobody asked for is refused.
    pub fn done(&self) {
        if self.found.get() == self.entries.len() {
            return;
        }
        let asked = self.asked.borrow();
        for (key, _) in self.entries {
            let name: &str = key.get_ref();
            if asked.contains(&name) {
                continue;
            }
            let advice = match nearest(name, &asked) {
                Some(known) => format!("did you mean `{known}`?"),
                None => "remove it, or look up its spelling".to_owned(),
            };
            self.document.report(key.span(), self.full_name(name), format!("unknown key: {advice}"));
        }
    }
}

/// The moment that a TOML date-time stands for, if it has all of its parts. A list has many of them:
/// taking the parts as they are is several times faster than reading their text again.
fn moment(datetime: &Datetime) -> Option<jiff::Timestamp> {
    let (date, time) = (datetime.date?, datetime.time?);
    let small = |number: u8| i8::try_from(number).ok();
    let date = jiff::civil::Date::new(i16::try_from(date.year).ok()?, small(date.month)?, small(date.day)?).ok()?;
    let nanosecond = i32::try_from(time.nanosecond.unwrap_or(0)).ok()?;
    // a leap second is the last one that jiff knows
    let second = small(time.second.unwrap_or(0))?.min(59);
    let time = jiff::civil::Time::new(small(time.hour)?, small(time.minute)?, second, nanosecond).ok()?;
    let minutes = match datetime.offset? {
        Offset::Z => 0,
        Offset::Custom { minutes } => i32::from(minutes),
    };
    jiff::tz::Offset::from_seconds(minutes * 60).ok()?.to_timestamp(date.to_datetime(time)).ok()
}

fn described(value: &DeValue<'_>) -> String {
    let kind = value.type_str();
    let article = if kind.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {kind}")
}

/// The known word that a misspelt one was most likely meant to be: at most two edits away.
pub fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let distances = known.iter().map(|candidate| (edits(word, candidate), *candidate));
    distances.filter(|(distance, _)| *distance <= 2).min().map(|(_, candidate)| candidate)
}

/// Levenshtein distance.
fn edits(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = i;
        let mut before = i + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(&right) {
            let cost = if a == *b { diagonal } else { diagonal.min(before).min(*cell) + 1 };
            diagonal = *cell;
            *cell = cost;
            before = cost;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems_of(text: &str, read: impl FnOnce(&Table<'_>)) -> Vec<String> {
        let document = match Document::parse(Path::new("f.toml"), text) {
            Ok(document) => document,
            Err(problems) => return problems.0.iter().map(ToString::to_string).collect(),
        };
        read(&document.root());
        document.finish().err().unwrap_or_default().0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_mistake_is_found_in_one_go_with_its_place() {
        let text = "listn = \"a\"\nworkers = 0\n[tls]\ncert = 5\n";
        let found = problems_of(text, |root| {
            root.string("listen");
            root.number("workers", 1..=64);
            if let Some(tls) = root.table("tls") {
                tls.string("cert");
                tls.done();
            }
            root.done();
        });
        assert_eq!(
            found,
            [
                "f.toml:1:1: listn: unknown key: did you mean `listen`?",
                "f.toml:2:11: workers: 0 is out of range: from 1 to 64",
                "f.toml:4:8: tls.cert: an integer where a string belongs",
            ]
        );
    }

    #[test]
    fn syntax_errors_name_line_and_column() {
        let found = problems_of("a = 1\nb = \n", |_| {});
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("f.toml:2:"), "{found:?}");
    }

    #[test]
    fn moments_need_an_offset() {
        let found = problems_of("at = 2027-01-31\n", |root| assert_eq!(root.timestamp("at"), None));
        assert_eq!(found.len(), 1);
        for text in [
            "at = 2027-01-31T00:00:00Z",
            "at = \"2027-01-31T01:00:00+01:00\"",
            "at = 2027-01-31T01:00:00+01:00",
            "at = 2027-01-30 20:30:00.000-03:30",
        ] {
            let found = problems_of(text, |root| {
                assert_eq!(root.timestamp("at").map(jiff::Timestamp::as_second), Some(1_801_353_600));
            });
            assert_eq!(found, [""; 0]);
        }
    }

    #[test]
    fn edit_distance_is_levenshtein() {
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(nearest("expire_at", &["expires_at", "created_at"]), Some("expires_at"));
        assert_eq!(nearest("zzz", &["expires_at"]), None);
    }
}
