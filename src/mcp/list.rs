//! Lists in answers: what a caller may not use is cut out of the text, and everything else stays as the
//! server wrote it, to the byte: order, spacing, cursors, members that nobody here knows.

use std::borrow::Cow;
use std::ops::Range;

use super::json::{JsonError, Reader};

/// How many levels of arrays and objects an answer may have: schemas are nested more deeply than calls.
const MAX_DEPTH: usize = 128;

/// One thing of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item<'t> {
    /// A tool, and whether its server says that it changes nothing.
    Tool {
        /// Its name.
        name: Cow<'t, str>,
        /// `annotations.readOnlyHint`
        read_only: bool,
    },
    /// A resource by its URI.
    Resource(Cow<'t, str>),
    /// A template of resources by its text.
    Template(Cow<'t, str>),
    /// A prompt by its name.
    Prompt(Cow<'t, str>),
}

/// Which list a member of a result is.
#[derive(Clone, Copy, Debug)]
enum List {
    Tools,
    Resources,
    Templates,
    Prompts,
}

impl List {
    fn of(key: &str) -> Option<Self> {
        match key {
            "tools" => Some(Self::Tools),
            "resources" => Some(Self::Resources),
            "resourceTemplates" => Some(Self::Templates),
            "prompts" => Some(Self::Prompts),
            _ => None,
        }
    }

    /// The member by which its items are known.
    fn key(self) -> &'static str {
        match self {
            Self::Tools | Self::Prompts => "name",
            Self::Resources => "uri",
            Self::Templates => "uriTemplate",
        }
    }
}

/// Goes through the lists in a text, which is one JSON-RPC message or an array of them.
#[derive(Debug)]
pub struct Lists<K> {
    keep: K,
    edits: Vec<(Range<usize>, &'static str)>,
    found: bool,
}

impl<K: FnMut(&Item<'_>) -> bool> Lists<K> {
    /// Keeps the items that `keep` wants; it hears of all of them.
    pub fn new(keep: K) -> Self {
        Self { keep, edits: Vec::new(), found: false }
    }

    /// Whether a list was found, in whatever was read so far.
    pub fn found(&self) -> bool {
        self.found
    }

    /// The text without the items that are not wanted, and with no list marked as good for everybody;
    /// `None` if nothing is to be changed.
    ///
    /// # Errors
    /// The text is no JSON.
    pub fn filter(&mut self, text: &str) -> Result<Option<String>, JsonError> {
        self.edits.clear();
        let mut reader = Reader::new(text, MAX_DEPTH);
        if reader.peek()? == b'[' {
            reader.items(|reader| self.message(reader))?;
        } else {
            self.message(&mut reader)?;
        }
        reader.end()?;
        Ok((!self.edits.is_empty()).then(|| edited(text, &self.edits)))
    }

    fn message(&mut self, reader: &mut Reader<'_>) -> Result<(), JsonError> {
        if reader.peek()? != b'{' {
            return reader.skip();
        }
        reader.members(|reader, key| if key == "result" { self.result(reader) } else { reader.skip() })
    }

    fn result(&mut self, reader: &mut Reader<'_>) -> Result<(), JsonError> {
        if reader.peek()? != b'{' {
            return reader.skip();
        }
        // a mark counts only beside a list, which may come after it
        let (mut marks, mut lists) = (Vec::new(), false);
        reader.members(|reader, key| {
            let first = reader.peek()?;
            match List::of(&key) {
                Some(list) if first == b'[' => {
                    lists = true;
                    self.found = true;
                    self.list(reader, list)
                }
                None if key == "cacheScope" => {
                    let start = reader.start()?;
                    let is_private = reader.raw()? == "\"private\"";
                    marks.extend((!is_private).then(|| start..reader.position()));
                    Ok(())
                }
                _ => reader.skip(),
            }
        })?;
        if lists {
            self.edits.extend(marks.into_iter().map(|mark| (mark, "\"private\"")));
        }
        Ok(())
    }

    fn list(&mut self, reader: &mut Reader<'_>, list: List) -> Result<(), JsonError> {
        // where the last wanted item ends, and where those begin and end that have to go after it
        let (mut kept, mut gone) = (None, None::<Range<usize>>);
        reader.items(|reader| {
            let start = reader.start()?;
            let item = item(reader, list)?;
            let end = reader.position();
            if item.is_some_and(|item| (self.keep)(&item)) {
                if let Some(gone) = gone.take() {
                    // with the comma after them, or with the one before where something stands before
                    self.edits.push((kept.map_or(gone.start..start, |kept| kept..gone.end), ""));
                }
                kept = Some(end);
            } else {
                gone = Some(gone.take().map_or(start, |gone| gone.start)..end);
            }
            Ok(())
        })?;
        if let Some(gone) = gone {
            self.edits.push((kept.unwrap_or(gone.start)..gone.end, ""));
        }
        Ok(())
    }
}

/// The item that comes next, whole; none if it does not say once what it is, for then nobody can tell
/// whether it is wanted.
fn item<'t>(reader: &mut Reader<'t>, list: List) -> Result<Option<Item<'t>>, JsonError> {
    if reader.peek()? != b'{' {
        reader.skip()?;
        return Ok(None);
    }
    let (mut name, mut names, mut read_only) = (None, 0, false);
    reader.members(|reader, key| {
        let first = reader.peek()?;
        if key == list.key() {
            names += 1;
            if first == b'"' {
                name = Some(reader.string()?);
                return Ok(());
            }
        } else if matches!(list, List::Tools) && key == "annotations" && first == b'{' {
            read_only = is_read_only(reader)?;
            return Ok(());
        }
        reader.skip()
    })?;
    let Some(name) = name.filter(|_| names == 1) else { return Ok(None) };
    Ok(Some(match list {
        List::Tools => Item::Tool { name, read_only },
        List::Resources => Item::Resource(name),
        List::Templates => Item::Template(name),
        List::Prompts => Item::Prompt(name),
    }))
}

/// Whether annotations say so, and never the contrary.
fn is_read_only(reader: &mut Reader<'_>) -> Result<bool, JsonError> {
    let (mut yes, mut all) = (0, 0);
    reader.members(|reader, key| {
        let value = reader.raw()?;
        if key == "readOnlyHint" {
            all += 1;
            yes += usize::from(value == "true");
        }
        Ok::<_, JsonError>(())
    })?;
    Ok(yes == 1 && all == 1)
}

fn edited(text: &str, edits: &[(Range<usize>, &'static str)]) -> String {
    let mut edits: Vec<_> = edits.iter().collect();
    edits.sort_by_key(|(range, _)| range.start);
    let (mut out, mut done) = (String::with_capacity(text.len()), 0);
    for (range, replacement) in edits {
        out.push_str(text.get(done..range.start).unwrap_or_default());
        out.push_str(replacement);
        done = range.end;
    }
    out.push_str(text.get(done..).unwrap_or_default());
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn without(text: &str, unwanted: &[&str]) -> Option<String> {
        let keep = |item: &Item<'_>| {
            let (Item::Tool { name, .. } | Item::Resource(name) | Item::Template(name) | Item::Prompt(name)) = item;
            !unwanted.contains(&&**name)
        };
        Lists::new(keep).filter(text).unwrap()
    }

    #[test]
    fn what_is_not_wanted_is_cut_out_and_the_rest_stays_to_the_byte() {
        let all = r#"{ "id":1, "result" : {"x":1.50, "tools":[ {"name":"a"} , {"name":"b","é":[ 1e3]},{"name":"c"} ], "nextCursor":"n"}}"#;
        for (unwanted, list) in [
            (&["a"][..], r#"[ {"name":"b","é":[ 1e3]},{"name":"c"} ]"#),
            (&["b"], r#"[ {"name":"a"},{"name":"c"} ]"#),
            (&["c"], r#"[ {"name":"a"} , {"name":"b","é":[ 1e3]} ]"#),
            (&["a", "b"], r#"[ {"name":"c"} ]"#),
            (&["b", "c"], r#"[ {"name":"a"} ]"#),
            (&["a", "c"], r#"[ {"name":"b","é":[ 1e3]} ]"#),
            (&["a", "b", "c"], "[  ]"),
        ] {
            let expected = format!(r#"{{ "id":1, "result" : {{"x":1.50, "tools":{list}, "nextCursor":"n"}}}}"#);
            assert_eq!(without(all, unwanted), Some(expected));
        }
        assert_eq!(without(all, &[]), None);
    }

    #[test]
    fn every_kind_of_list_in_every_place() {
        for (text, expected) in [
            (r#"{"result":{"resources":[{"uri":"a","name":"x"}]}}"#, r#"{"result":{"resources":[]}}"#),
            (r#"{"result":{"resourceTemplates":[{"uriTemplate":"a"}]}}"#, r#"{"result":{"resourceTemplates":[]}}"#),
            (r#"{"result":{"prompts":[{"name":"a"}]}}"#, r#"{"result":{"prompts":[]}}"#),
            (r#"[{"result":{"tools":[{"name":"a"}]}},{"id":2}]"#, r#"[{"result":{"tools":[]}},{"id":2}]"#),
            (r#"{"r\u0065sult":{"t\u006fols":[{"n\u0061me":"\u0061"}]}}"#, r#"{"r\u0065sult":{"t\u006fols":[]}}"#),
            // what cannot be told apart goes
            (r#"{"result":{"tools":[{"name":"a","name":"b"},{"x":1},{"name":7},3]}}"#, r#"{"result":{"tools":[]}}"#),
            // a list for one caller is no list for all
            (
                r#"{"result":{"cacheScope":"public","tools":[{"name":"b"}]}}"#,
                r#"{"result":{"cacheScope":"private","tools":[{"name":"b"}]}}"#,
            ),
        ] {
            assert_eq!(without(text, &["a"]).as_deref(), Some(expected), "{text}");
        }
        for text in [
            r#"{"result":{"capabilities":{"tools":{"name":"a"}}}}"#,
            r#"{"result":{"tools":{"name":"a"}}}"#,
            r#"{"result":{"content":[{"tools":[{"name":"a"}]}],"cacheScope":"public"}}"#,
            r#"{"params":{"tools":[{"name":"a"}]}}"#,
            r#"{"result":null}"#,
            "3",
        ] {
            assert_eq!(without(text, &["a"]), None, "{text}");
        }
    }

    #[test]
    fn a_hint_is_told_only_if_it_is_plain() {
        for (annotations, hint) in [
            (r#"{"readOnlyHint":true}"#, true),
            (r#"{"title":"x","readOnlyHint": true }"#, true),
            (r#"{"readOnlyHint":false}"#, false),
            (r#"{"readOnlyHint":true,"readOnlyHint":false}"#, false),
            (r#"{"readOnlyHint":"true"}"#, false),
            (r#"{"readonlyhint":true}"#, false),
            ("null", false),
        ] {
            let mut seen = None;
            let text = format!(r#"{{"result":{{"tools":[{{"annotations":{annotations},"name":"a"}}]}}}}"#);
            let mut lists = Lists::new(|item: &Item<'_>| {
                seen = Some(item.clone() == Item::Tool { name: "a".into(), read_only: true });
                true
            });
            lists.filter(&text).unwrap();
            assert_eq!(seen, Some(hint), "{annotations}");
        }
    }

    #[test]
    fn a_list_is_found_even_in_a_text_that_was_cut() {
        for (text, found) in [(r#"{"result":{"tools":[{"na"#, true), (r#"{"result":{"content":[{"tools":[{"na"#, false)]
        {
            let mut lists = Lists::new(|_: &Item<'_>| true);
            assert!(lists.filter(text).is_err());
            assert_eq!(lists.found(), found, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_filtered_list_is_a_sub_list_in_order(
            names in proptest::collection::vec("[a-e]", 0..12),
            unwanted in proptest::collection::vec("[a-e]", 0..3),
            pretty in any::<bool>(),
        ) {
            let items: Vec<Value> = names.iter().enumerate().map(|(at, name)| json!({"at": at, "name": name})).collect();
            let answer = json!({"id": 1, "result": {"nextCursor": "c", "tools": items}});
            let text = if pretty { serde_json::to_string_pretty(&answer) } else { serde_json::to_string(&answer) }.unwrap();
            let unwanted: Vec<&str> = unwanted.iter().map(String::as_str).collect();
            let filtered = without(&text, &unwanted).unwrap_or(text);
            let mut expected = answer;
            let list = expected["result"]["tools"].as_array_mut().unwrap();
            list.retain(|item| !unwanted.contains(&item["name"].as_str().unwrap()));
            prop_assert_eq!(serde_json::from_str::<Value>(&filtered).unwrap(), expected);
        }
    }
}
