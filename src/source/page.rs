//! A change to the text of one token file, as pieces put into the text that is there: every other byte
//! of it (remarks, order, spacing, line ends) stays as the person wrote it.

use std::ops::Range;

use toml::de::{DeArray, DeTable, DeValue};
use toml::{Spanned, Value};

use super::lines::Lines;

/// The two lists of a token file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// `[[tokens]]`
    Tokens,
    /// `[[users]]`
    Users,
}

impl Section {
    fn key(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Users => "users",
        }
    }
}

/// What a new record says, in this order.
pub type Fields = Vec<(&'static str, Value)>;

/// A piece of text in the place of another one.
type Change = (Range<usize>, String);

/// The text of one file and what is to be changed in it.
#[derive(Debug)]
pub(super) struct Page<'t> {
    text: &'t str,
    lines: Lines<'t>,
    root: DeTable<'t>,
    changes: Vec<Change>,
    /// New records, which stand behind all that is changed in those before them.
    added: Vec<Change>,
}

/// One record and its place: its header, or all of it if it is written inline.
struct Record<'p> {
    span: Range<usize>,
    entries: &'p DeTable<'p>,
}

impl Record<'_> {
    fn is(&self, id: &str) -> bool {
        self.entries.get("id").and_then(|found| found.get_ref().as_str()) == Some(id)
    }

    /// The end of what it says, tables with a header of their own included.
    fn end(&self) -> usize {
        self.entries.iter().map(|(_, value)| end(value)).max().unwrap_or(self.span.end)
    }
}

/// The end of a value. What has a header or a dotted key has the span of that, and is longer.
fn end(value: &Spanned<DeValue<'_>>) -> usize {
    let within = match value.get_ref() {
        DeValue::Table(entries) => entries.iter().map(|(_, value)| end(value)).max(),
        DeValue::Array(items) => items.iter().map(end).max(),
        _ => None,
    };
    within.unwrap_or(0).max(value.span().end)
}

// --- What can be changed --------------------------------------------------------------------

impl<'t> Page<'t> {
    /// Takes a text that is valid TOML; in any other there is little to change.
    pub(super) fn new(text: &'t str) -> Self {
        let (root, _) = DeTable::parse_recoverable(text);
        Self { text, lines: Lines(text), root: root.into_inner(), changes: Vec::new(), added: Vec::new() }
    }

    pub(super) fn has(&self, section: Section, id: &str) -> bool {
        self.records(section).any(|record| record.is(id))
    }

    /// Sets a key of a record: its value in place, or after the last key.
    pub(super) fn set(&mut self, section: Section, id: &str, key: &str, value: &Value) {
        let record = self.records(section).find(|record| record.is(id));
        let change = record.map(|record| self.setting(&record, key, value));
        self.changes.extend(change);
    }

    /// Adds records after the last one of their kind, in the form that it has.
    pub(super) fn add(&mut self, section: Section, records: &[Fields]) {
        let added = self.adding(section, records);
        self.added.extend(added);
    }

    /// Takes a record out, together with the remark right above it. A list of which nothing is left
    /// stays as an empty one, for without it every user would be taken as it stands.
    pub(super) fn remove(&mut self, section: Section, id: &str) {
        let changes = self.removing(section, id);
        self.changes.extend(changes);
    }

    /// The text with all changes in it.
    pub(super) fn changed(mut self) -> String {
        // pieces for one place stay in this order, and else in the order in which they came
        self.changes.append(&mut self.added);
        self.changes.sort_by_key(|(range, _)| range.start);
        let mut text = String::with_capacity(self.text.len() + 512);
        let mut done = 0;
        for (range, piece) in &self.changes {
            text.push_str(self.text.get(done..range.start).unwrap_or_default());
            text.push_str(piece);
            done = done.max(range.end);
        }
        text.push_str(self.text.get(done..).unwrap_or_default());
        text
    }

    fn setting(&self, record: &Record<'_>, key: &str, value: &Value) -> Change {
        if let Some(old) = record.entries.get(key) {
            return (old.span(), value.to_string());
        }
        // a key below `[tokens.tools]` would be one of the tools
        let own = || record.entries.iter().filter(|(_, value)| !self.has_header(value));
        let end = own().map(|(_, value)| end(value)).max().unwrap_or(record.span.end);
        if self.is_inline(record) {
            return (end..end, format!(", {key} = {value}"));
        }
        let at = self.lines.next(end);
        let last_key = own().map(|(key, _)| key.span().start).max().unwrap_or(record.span.start);
        let indent = self.lines.indent(last_key);
        (at..at, format!("{}{indent}{key} = {value}{}", self.lines.opening(at), self.lines.line_end()))
    }

    fn adding(&self, section: Section, records: &[Fields]) -> Vec<Change> {
        let inline_list = || records.iter().map(inline).collect::<Vec<_>>().join(", ");
        match (self.array(section), self.records(section).last()) {
            (Some((array, _)), Some(last)) if self.is_inline(&last) => {
                vec![self.adding_inline(&array.span(), &last, records)]
            }
            (_, Some(last)) => {
                let at = self.end_of(&last);
                vec![(at..at, format!("{}{}", self.lines.opening(at), self.tables(section, records)))]
            }
            (Some((array, _)), None) => match self.line_of_empty(section, &array.span()) {
                Some(line) => vec![(line, String::new()), self.adding_at_end(section, records)],
                None => vec![(array.span(), format!("[{}]", inline_list()))],
            },
            (None, None) => vec![self.adding_at_end(section, records)],
        }
    }

    fn adding_at_end(&self, section: Section, records: &[Fields]) -> Change {
        let (at, tables) = (self.text.len(), self.tables(section, records));
        let is_empty = self.text.trim_start_matches('\u{feff}').trim().is_empty();
        (at..at, if is_empty { tables.trim_start().to_owned() } else { format!("{}{tables}", self.lines.opening(at)) })
    }

    fn adding_inline(&self, array: &Range<usize>, last: &Record<'_>, records: &[Fields]) -> Change {
        let records: Vec<String> = records.iter().map(inline).collect();
        let at = last.span.end;
        let Some(lines) = self.own_lines(last, array) else { return (at..at, format!(", {}", records.join(", "))) };
        // the remark after the last one stays with it
        let (rest, end) = (self.text.get(at..lines.end).unwrap_or_default(), self.lines.line_end());
        let indent = self.lines.indent(last.span.start);
        let records = records.join(&format!(",{end}{indent}"));
        if rest.trim_start().starts_with(',') {
            (lines.end..lines.end, format!("{indent}{records},{end}"))
        } else {
            (at..lines.end, format!(",{rest}{indent}{records}{end}"))
        }
    }

    fn removing(&self, section: Section, id: &str) -> Vec<Change> {
        let records: Vec<Record<'_>> = self.records(section).collect();
        let Some(index) = records.iter().position(|record| record.is(id)) else { return Vec::new() };
        let Some((array, _)) = self.array(section) else { return Vec::new() };
        let (record, array) = (&records[index], array.span());
        if !self.is_inline(record) {
            let top = self.top();
            let empty = format!("{} = []{}", section.key(), self.lines.line_end());
            let stays = (records.len() == 1).then_some((top..top, empty));
            return stays.into_iter().chain([(self.lines_of(record), String::new())]).collect();
        }
        if records.len() == 1 {
            return vec![(array, "[]".to_owned())];
        }
        let range = self.own_lines(record, &array).unwrap_or_else(|| {
            let before = index.checked_sub(1).and_then(|before| records.get(before));
            match (before, records.get(index + 1)) {
                (_, Some(next)) => record.span.start..next.span.start,
                (Some(before), None) => before.span.end..record.span.end,
                (None, None) => record.span.clone(),
            }
        });
        vec![(range, String::new())]
    }

    /// Records as tables, each after an empty line.
    fn tables(&self, section: Section, records: &[Fields]) -> String {
        let end = self.lines.line_end();
        let table = |fields: &Fields| {
            let lines = fields.iter().map(|(key, value)| format!("{key} = {value}{end}"));
            [format!("{end}[[{}]]{end}", section.key())].into_iter().chain(lines).collect::<Vec<_>>().concat()
        };
        records.iter().map(table).collect()
    }
}

fn inline(fields: &Fields) -> String {
    let pairs: Vec<String> = fields.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    format!("{{ {} }}", pairs.join(", "))
}

// --- Places in the text ---------------------------------------------------------------------

impl<'t> Page<'t> {
    fn array(&self, section: Section) -> Option<(&Spanned<DeValue<'t>>, &DeArray<'t>)> {
        let value = self.root.get(section.key())?;
        Some((value, value.get_ref().as_array()?))
    }

    fn records(&self, section: Section) -> impl Iterator<Item = Record<'_>> {
        let items = self.array(section).into_iter().flat_map(|(_, array)| array.iter());
        items.filter_map(|item| Some(Record { span: item.span(), entries: item.get_ref().as_table()? }))
    }

    fn is_inline(&self, record: &Record<'_>) -> bool {
        self.text.get(record.span.start..).is_some_and(|text| text.starts_with('{'))
    }

    fn has_header(&self, value: &Spanned<DeValue<'_>>) -> bool {
        value.get_ref().is_table() && self.text.get(value.span().start..).is_some_and(|text| text.starts_with('['))
    }

    /// The end of a record with the remarks that follow it closely and are not followed by a table as closely.
    fn end_of(&self, record: &Record<'_>) -> usize {
        let end = self.lines.next(record.end());
        let below = self.lines.remark_below(end);
        if self.lines.is_blank(below) { below } else { end }
    }

    /// The lines of a record with the remark right above it, and with one empty line if there are two.
    /// A remark at the very top belongs to the file.
    fn lines_of(&self, record: &Record<'_>) -> Range<usize> {
        let header = self.lines.start(record.span.start);
        let remark = self.lines.remark_above(header);
        let start = if remark == 0 { header } else { remark };
        let end = self.lines.next(record.end());
        let above = self.lines.start(start.saturating_sub(1));
        let spare = start > 0 && self.lines.is_blank(above) && self.lines.is_blank(end);
        if spare { above..end } else { start..end }
    }

    /// The lines of an inline record if nothing but a comma and a remark is on them besides it.
    fn own_lines(&self, record: &Record<'_>, array: &Range<usize>) -> Option<Range<usize>> {
        let lines = self.lines.start(record.span.start)..self.lines.next(record.span.end);
        let rest = self.text.get(record.span.end..lines.end)?.trim_start();
        let rest = rest.strip_prefix(',').unwrap_or(rest).trim();
        let alone = lines.start + self.lines.indent(record.span.start).len() == record.span.start
            && lines.end < array.end
            && (rest.is_empty() || rest.starts_with('#'));
        alone.then_some(lines)
    }

    /// The first place for a key of the file, below the remarks at its top.
    fn top(&self) -> usize {
        let begin = if self.text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        let mut at = begin;
        while at < self.text.len() && (self.lines.is_remark(at) || self.lines.is_blank(at)) {
            at = self.lines.next(at);
        }
        self.lines.remark_above(at).max(begin)
    }

    /// The line of an empty list, if nothing else is on it.
    fn line_of_empty(&self, section: Section, array: &Range<usize>) -> Option<Range<usize>> {
        let start = self.lines.start(array.start);
        let bare: String = self.lines.line(start).split_whitespace().collect();
        (bare == format!("{}=[]", section.key())).then(|| start..self.lines.next(start))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a person might write: remarks everywhere, odd spacing, a list in between.
    const PERSON: &str = "# Tokens of the staging server.\n\n\
        [[tokens]]   # the laptop\nid    = 'a' # short\nhash=\"h\"\n  user = \"alice\"   # her own\n# keep until the audit\n\n\
        # --- people ---\n\n# the boss\n[[users]]\nid = \"alice\"\n\n[[users]]\nid = \"bob\"\nroles = [ # many\n  \"dev\",\n]\n\
        # what they may\n[roles.dev]\nscopes = [\"x\"]\n# the end";

    fn text(value: &str) -> Value {
        Value::String(value.into())
    }

    fn changed(before: &str, change: impl FnOnce(&mut Page<'_>)) -> String {
        let mut page = Page::new(before);
        change(&mut page);
        let after = page.changed();
        DeTable::parse(&after).unwrap_or_else(|error| panic!("{error}\n{after}"));
        after
    }

    /// Each change as what it takes away and what it puts there; everything else must be the same.
    fn assert_change(before: &str, old: &str, new: &str, change: impl FnOnce(&mut Page<'_>)) {
        assert_eq!(before.matches(old).count(), 1, "{old:?} is not one place");
        assert_eq!(changed(before, change), before.replacen(old, new, 1));
    }

    #[test]
    fn a_page_that_is_not_changed_is_the_same_to_the_byte() {
        for text in [PERSON, "\u{feff}a = 1\r\n", "", "\n\n", "# only a remark", "not TOML ["] {
            assert_eq!(Page::new(text).changed(), text);
        }
    }

    #[test]
    fn a_key_is_set_in_its_place_or_after_the_last_one() {
        let set = |key: &'static str| move |page: &mut Page<'_>| page.set(Section::Tokens, "a", key, &text("new"));
        assert_change(PERSON, "\"alice\"   # her", "\"new\"   # her", set("user"));
        assert_change(PERSON, "# her own\n", "# her own\n  name = \"new\"\n", set("name"));
        let roles = |page: &mut Page<'_>| page.set(Section::Users, "bob", "status", &text("suspended"));
        assert_change(PERSON, "\"dev\",\n]\n", "\"dev\",\n]\nstatus = \"suspended\"\n", roles);
        let nobody = |page: &mut Page<'_>| page.set(Section::Tokens, "alice", "name", &text("new"));
        assert_eq!(changed(PERSON, nobody), PERSON);
    }

    #[test]
    fn a_record_is_added_after_the_last_one_and_its_remarks() {
        let fields = vec![("id", text("b")), ("user", text("bob"))];
        let table = "\n[[tokens]]\nid = \"b\"\nuser = \"bob\"\n";
        let add = |page: &mut Page<'_>| page.add(Section::Tokens, std::slice::from_ref(&fields));
        assert_change(PERSON, "the audit\n", &format!("the audit\n{table}"), add);
        for (before, after) in [
            ("", table.trim_start().to_owned()),
            ("\u{feff}", format!("\u{feff}{}", table.trim_start())),
            ("[roles.x]\nscopes = []", format!("[roles.x]\nscopes = []\n{table}")),
            (
                "[[tokens]]\nid = 'a'\n# about bob\n[[users]]\nid='bob'",
                format!("[[tokens]]\nid = 'a'\n{table}# about bob\n[[users]]\nid='bob'"),
            ),
            ("[[tokens]]\nid = 'a'\n# the end", format!("[[tokens]]\nid = 'a'\n# the end\n{table}")),
            ("[[tokens]]\nid = 'a'", format!("[[tokens]]\nid = 'a'\n{table}")),
            ("tokens = []\n[roles]\n", format!("[roles]\n{table}")),
            ("tokens = [] # none\n", "tokens = [{ id = \"b\", user = \"bob\" }] # none\n".to_owned()),
        ] {
            assert_eq!(changed(before, add), after, "{before:?}");
        }
    }

    #[test]
    fn a_key_that_is_set_after_a_record_was_added_still_belongs_to_its_own() {
        for before in ["[[tokens]]\nid = 'a'", "[[tokens]]\nid = 'a'\n", "tokens = [{id='a'}]\n"] {
            let after = changed(before, |page| {
                page.add(Section::Tokens, &[vec![("id", text("b"))]]);
                page.set(Section::Tokens, "a", "name", &text("old"));
            });
            let page = Page::new(&after);
            let named: Vec<_> =
                page.records(Section::Tokens).map(|record| record.entries.contains_key("name")).collect();
            assert_eq!(named, [true, false], "{after}");
        }
    }

    #[test]
    fn line_ends_are_those_of_the_file() {
        let before = PERSON.replace('\n', "\r\n");
        let after = changed(&before, |page| {
            page.set(Section::Tokens, "a", "name", &text("new"));
            page.add(Section::Tokens, &[vec![("id", text("b"))]]);
            page.remove(Section::Users, "bob");
        });
        assert_eq!(after.matches('\n').count(), after.matches("\r\n").count());
        assert!(after.contains("  name = \"new\"\r\n# keep") && after.contains("\r\n[[tokens]]\r\nid = \"b\"\r\n"));
    }

    #[test]
    fn records_in_a_list_of_their_own_form() {
        let one_line = "tokens = [{id='a'}]\n";
        let lines = "tokens = [\n  { id = 'a' }, # first\n  { id = 'b' }, # second\n]\n";
        let open = "tokens = [\n  { id = 'a' }, # first\n  { id = 'b' } # second\n]\n";
        let fields = vec![("id", text("c"))];
        let add = |page: &mut Page<'_>| page.add(Section::Tokens, std::slice::from_ref(&fields));
        assert_change(one_line, "'a'}]", "'a'}, { id = \"c\" }]", add);
        assert_change(lines, "second\n", "second\n  { id = \"c\" },\n", add);
        assert_change(open, "} # second\n", "}, # second\n  { id = \"c\" }\n", add);
        let set = |page: &mut Page<'_>| page.set(Section::Tokens, "a", "name", &text("new"));
        assert_change(lines, "'a' }", "'a', name = \"new\" }", set);
        let remove = |id: &'static str| move |page: &mut Page<'_>| page.remove(Section::Tokens, id);
        assert_eq!(changed(one_line, remove("a")), "tokens = []\n");
        assert_change(open, "  { id = 'b' } # second\n", "", remove("b"));
        assert_change(open, "  { id = 'a' }, # first\n", "", remove("a"));
        let narrow = "tokens = [{id='a'}, {id='b'}, {id='c'}]\n";
        assert_change(narrow, "{id='b'}, ", "", remove("b"));
        assert_change(narrow, ", {id='c'}", "", remove("c"));
    }

    #[test]
    fn a_record_goes_with_the_remark_right_above_it() {
        let remove = |id: &'static str| move |page: &mut Page<'_>| page.remove(Section::Users, id);
        assert_change(PERSON, "# the boss\n[[users]]\nid = \"alice\"\n\n", "", remove("alice"));
        assert_change(PERSON, "[[users]]\nid = \"bob\"\nroles = [ # many\n  \"dev\",\n]\n", "", remove("bob"));
        let title = "# The file.\n[[users]]\nid = 'a'\n\n[[users]]\nid = 'b'\n";
        assert_eq!(changed(title, remove("a")), "# The file.\n\n[[users]]\nid = 'b'\n");
    }

    #[test]
    fn a_list_that_was_emptied_is_still_there() {
        let last = "# The file.\n\n# alice\n[[users]]\nid = 'a'\n\n[[tokens]]\nid = 't'\n";
        let after = changed(last, |page| page.remove(Section::Users, "a"));
        assert_eq!(after, "# The file.\nusers = []\n\n[[tokens]]\nid = 't'\n");
    }

    #[test]
    fn a_record_with_a_table_of_its_own_is_edited_beside_that() {
        let set = |page: &mut Page<'_>| page.set(Section::Tokens, "a", "name", &text("new"));
        let add = |page: &mut Page<'_>| page.add(Section::Tokens, &[vec![("id", text("b"))]]);
        let name = "name = \"new\"\n";
        let header =
            "[[tokens]]\n  id = 'a' # its id\n\n  [tokens.tools] # few\n  deny = [\n    'x',\n  ] # end\n\n[roles]\n";
        assert_change(header, "its id\n", &format!("its id\n  {name}"), set);
        assert_change(header, "# end\n", "# end\n\n[[tokens]]\nid = \"b\"\n", add);
        let first = "[[tokens]] # a\n[tokens.tools]\ndeny = []\n[[tokens]]\nid = 'a'\n[tokens.tools]\n";
        assert_change(first, "id = 'a'\n", &format!("id = 'a'\n{name}"), set);
        assert_eq!(changed(first, add), format!("{first}\n[[tokens]]\nid = \"b\"\n"));
        // TOML has a table belong to the last record before it, wherever it stands
        let far = "[[tokens]]\nid = 'a'\n[[users]]\nid = 'u'\n[tokens.tools]\ndeny = ['x']\n";
        assert_change(far, "id = 'a'\n", &format!("id = 'a'\n{name}"), set);
        assert_eq!(changed(far, add), format!("{far}\n[[tokens]]\nid = \"b\"\n"));
        let dotted = "[[tokens]]\nid = 'a'\ntools.deny = [\n  'x',\n] # end\n[roles]\n";
        assert_change(dotted, "# end\n", &format!("# end\n{name}"), set);
        assert_change(dotted, "# end\n", "# end\n\n[[tokens]]\nid = \"b\"\n", add);
        let inline = "tokens = [{ id = 'a', tools.deny = ['x'] }]\n";
        assert_change(inline, "['x']", "['x'], name = \"new\"", set);
    }

    proptest! {
        #[test]
        fn what_is_set_is_read_and_nothing_else_changes(value in "\\PC{0,20}|.{0,20}", id in "[ab]", lines in "[ \n#]{0,9}", tools in 0..4_usize) {
            let tools = ["", "tools = ['t']\n", "tools.deny = [\n't',\n]\n", "[tokens.tools]\ndeny = [\n't',\n]\n"][tools];
            let before = format!("{lines}\n[[tokens]]\nid = \"a\"\nname = 'x' # n\n{lines}\n{tools}[[tokens]]\n  id = \"b\"\n{lines}\n{tools}");
            let after = changed(&before, |page| page.set(Section::Tokens, &id, "name", &text(&value)));
            let page = Page::new(&after);
            let found: Vec<_> = page.records(Section::Tokens).map(|record| record.entries.get("name").map(|v| v.get_ref().as_str().unwrap().to_owned())).collect();
            let expected = if id == "a" { vec![Some(value), None] } else { vec![Some("x".to_owned()), Some(value)] };
            prop_assert_eq!(found, expected);
            prop_assume!(!after.contains("'''") && !after.contains("\"\"\""));
            let others = |text: &str| text.lines().filter(|line| !line.contains("name")).map(str::to_owned).collect::<Vec<_>>();
            prop_assert_eq!(others(&after), others(&before));
        }
    }
}
