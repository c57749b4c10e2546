//! A token file, read record by record: one tree of the whole costs several times the time and ten times
//! the memory.

use std::path::Path;

use jiff::Timestamp;

use super::list::{Scope, TokenId, TokenList, TokenRecord};
use super::read::Reader;
use super::value;
use crate::document::Document;

/// How a record begins that can be read by itself.
const HEADER: &str = "[[tokens]]";

/// Reads a file in parts, or returns `None` where that might tell anything else than reading it as a whole,
/// which is then done instead.
///
/// A part that is TOML by itself leaves no value open at its end, so no cut went through one. Records
/// only add to `tokens`, and nothing else may: so the order of parts is of no other importance.
pub(super) fn read(file: &Path, text: &str) -> Option<TokenList> {
    let mut reader = Reader::default();
    let mut rest = String::new();
    for part in parts(text) {
        if let Some(record) = plain(part) {
            reader.take(record).ok()?;
            continue;
        }
        let document = Document::parse(file, part).ok()?;
        if !part.starts_with(HEADER) {
            rest.push_str(part);
            continue;
        }
        let root = document.root();
        root.tables("tokens")?.iter().for_each(|table| reader.token(table));
        root.done();
        document.finish().ok()?;
    }
    let document = Document::parse(file, &rest).ok()?;
    // nobody asks for `tokens` here: a mistake, if there are any
    let list = reader.list(&document.root());
    document.finish().ok()?;
    Some(list)
}

/// The text, cut before each line that begins like the header of a table.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let mut starts = rest.match_indices('\n').map(|(at, _)| at + 1);
        let end = starts.find(|at| rest.as_bytes().get(*at) == Some(&b'[')).unwrap_or(rest.len());
        let (part, after) = rest.split_at_checked(end)?;
        rest = after;
        (!part.is_empty()).then_some(part)
    })
}

// --- A record ---------------------------------------------------------------------------------

/// Reads a record in its plainest form, as programs and the commands here write it: one key a line, one
/// space on either side of `=`, strings without escapes, moments to the second in UTC.
///
/// Such lines are TOML and can be read in one way only, and the values are read by what reads them in
/// every other form. Anything else is `None`: it has to be read as TOML.
fn plain(text: &str) -> Option<TokenRecord> {
    let mut lines = text.lines();
    if lines.next()? != HEADER {
        return None;
    }
    let (mut id, mut hash, mut user) = (None, None, None);
    let (mut prefix, mut name, mut scopes, mut revoked_reason, mut replaced_by) = (None, None, None, None, None);
    let (mut created_at, mut not_before, mut expires_at, mut revoked_at) = (None, None, None, None);
    for line in lines.filter(|line| !line.is_empty()) {
        let (key, written) = line.split_once(" = ")?;
        let is_first = match key {
            "id" => id.replace(TokenId::parse(string(written)?).ok()?).is_none(),
            "hash" => hash.replace(string(written)?.parse().ok()?).is_none(),
            "prefix" => prefix.replace(value::token_prefix(string(written)?).ok()?.into()).is_none(),
            "user" => user.replace(value::user_id(string(written)?).ok()?.into()).is_none(),
            "name" => name.replace(value::plain_text(string(written)?).ok()?.into()).is_none(),
            "scopes" => scopes.replace(list(written)?).is_none(),
            "created_at" => created_at.replace(moment(written)?).is_none(),
            "not_before" => not_before.replace(moment(written)?).is_none(),
            "expires_at" => expires_at.replace(moment(written)?).is_none(),
            "revoked_at" => revoked_at.replace(moment(written)?).is_none(),
            "revoked_reason" => revoked_reason.replace(value::plain_text(string(written)?).ok()?.into()).is_none(),
            "replaced_by" => replaced_by.replace(TokenId::parse(string(written)?).ok()?).is_none(),
            _ => false,
        };
        if !is_first {
            return None;
        }
    }
    Some(TokenRecord {
        id: id?,
        hash: hash?,
        user: user?,
        prefix,
        name,
        scopes,
        // rare, and read as TOML
        tools: None,
        created_at,
        not_before,
        expires_at,
        revoked_at,
        revoked_reason,
        replaced_by,
    })
}

/// A basic string that stands for just what is between its quotes. What reads it refuses control
/// characters, as TOML does.
fn string(written: &str) -> Option<&str> {
    let text = written.strip_prefix('"')?.strip_suffix('"')?;
    (!text.contains(['"', '\\'])).then_some(text)
}

fn list(written: &str) -> Option<Vec<Scope>> {
    let items = written.strip_prefix('[')?.strip_suffix(']')?;
    if items.is_empty() {
        return Some(Vec::new());
    }
    items.split(", ").map(|item| Scope::parse(string(item)?).ok()).collect()
}

/// A moment like `2027-01-31T00:00:00Z`, in these places and no others.
fn moment(written: &str) -> Option<Timestamp> {
    let fits = written.len() == 20
        && written.bytes().zip("0000-00-00T00:00:00Z".bytes()).all(|(byte, pattern)| match pattern {
            b'0' => byte.is_ascii_digit(),
            mark => byte == mark,
        })
        // a leap second is read as TOML reads it
        && !written.ends_with("60Z");
    if fits { written.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::token::TokenDigest;
    use crate::token::read::whole;

    fn by_parts(text: &str) -> Option<TokenList> {
        read(Path::new("t.toml"), text)
    }

    fn as_a_whole(text: &str) -> Option<TokenList> {
        whole(Path::new("t.toml"), text).ok()
    }

    /// A record of its own, in the plainest form, with more lines.
    fn plain_record(number: usize, more: &str) -> String {
        let hash = TokenDigest::of(&number.to_string());
        format!("[[tokens]]\nid = \"t{number}\"\nhash = \"{hash}\"\nuser = \"alice\"\n{more}")
    }

    #[test]
    fn usual_files_are_read_record_by_record() {
        let all = "prefix = \"mcp_pat_k3\"\nname = \"A b\"\nscopes = [\"a\", \"b,c\"]\nrevoked_reason = \"lost\"\n\
                   created_at = 2026-11-22T08:00:00Z\nnot_before = 2026-11-22T08:00:00Z\nreplaced_by = \"t9\"\n\
                   expires_at = 2027-02-20T08:00:00Z\nrevoked_at = 2026-12-01T12:00:00Z\n";
        let users = "[[users]]\nid = \"alice\"\nroles = [\n  \"dev\", # one\n]\n\n[roles.dev]\nscopes = [\"a\"]\n";
        let odd = "name = 'literal' # why\nscopes = [\n\"a\",\n]\nexpires_at = 2027-02-20 08:00:00.5+01:00\n";
        let (one, two) = (plain_record(1, all), plain_record(2, ""));
        for text in [
            String::new(),
            format!("# The file.\n\n{one}\n{two}\n{users}"),
            format!("\u{feff}# The file.\r\n\r\n{}", one.replace('\n', "\r\n")),
            format!("{users}\n{one}# about the next\n{two}\n[roles.ops]\nscopes = []\n"),
            format!("{one}{}\n{users}", plain_record(3, odd)),
            format!("{one}\n{}", two.replace("[[tokens]]", "  [[tokens]]")),
        ] {
            assert_eq!(by_parts(&text), as_a_whole(&text), "{text}");
            assert!(by_parts(&text).is_some(), "{text}");
        }
        assert_eq!(plain(&one), as_a_whole(&one).map(|mut list| list.tokens.remove(0)));
        assert!(plain(&plain_record(3, odd)).is_none());
    }

    #[test]
    fn what_only_looks_like_records_is_read_as_a_whole() {
        let (one, two) = (plain_record(1, ""), plain_record(2, ""));
        for text in [
            // the records stand in a text, and the text goes on after them
            format!("[[users]]\nid = \"\"\"\n{one}[x] \"\"\"\n"),
            format!("[[users]]\nid = '''\n{one}[x] '''\n"),
            // in a list
            format!("[[users]]\nid = \"a\"\nroles = [\n{one}[\"x\"]\n]\n"),
            // tokens come from two places, or are no such list
            format!("tokens = []\n{one}"),
            format!("{one}[tokens]\n"),
            format!("{one}[tokens.more]\n"),
            format!("{one}[[ tokens ]]\nid = \"x\"\n"),
            format!("tokens.more = 1\n{one}"),
            format!("tokens = [{{ id = \"t9\", hash = \"{}\", user = \"x\" }}]\n{one}", TokenDigest::of("9")),
            // twins
            format!("{one}{one}"),
            format!("{one}{}", two.replace("t2", "t1")),
            // mistakes in a record
            plain_record(1, "name = \"a\"\nname = \"b\"\n"),
            plain_record(1, "expires_at = 2027-02-30T00:00:00Z\n"),
            plain_record(1, "expires_at = 2027-02-20T24:00:00Z\n"),
            plain_record(1, "name = \"a\u{7f}\"\n"),
            plain_record(1, "name = \"a\tb\"\n"),
            plain_record(1, "name = \"a\\u0007\"\n"),
            plain_record(1, "name = \"a\"b\"\n"),
            plain_record(1, "name = \"a\"\r"),
            plain_record(1, "expire_at = 2027-02-20T00:00:00Z\n"),
            plain_record(1, "  [more]\n"),
            one.replace("alice", ""),
        ] {
            assert_eq!(by_parts(&text), None, "{text}");
        }
    }

    /// Lines of token files, good ones and odd ones.
    fn line() -> impl Strategy<Value = String> {
        let odd = [
            "",
            "# remark",
            "[[tokens]]",
            "[[tokens]] # one",
            " [[tokens]]",
            "[[ tokens ]]",
            "[tokens]",
            "[[users]]",
            "[roles.dev]",
            "[roles]",
            "[other]",
            "id = \"a\"",
            "id = 'b'",
            "id=\"c\"",
            "\"id\" = \"d\"",
            "user = \"x\"",
            "user = \"\"",
            "name = \"\"\"",
            "\"\"\"",
            "name = '''",
            "'''",
            "roles = [",
            "]",
            "[\"x\"]",
            "[\"x\"],",
            "scopes = []",
            "scopes = [\"a\", \"b\"]",
            "scopes = [\"a\",\"b\"]",
            "scopes = [\"a\" , \"b\"]",
            "scopes = [\"a, b\"]",
            "scopes = [\"a\", ]",
            "scopes = [\"\"]",
            "name = \"\\\"\"",
            "name = \"# not\"",
            "name = \"a\" # b\"",
            "name = {a = 1}",
            "name = 5",
            "prefix = \"0123456789\"",
            "tokens = []",
            "a.b = 1",
            "expires_at = 2027-01-31T00:00:00Z",
            "expires_at = 2027-01-31T23:59:60Z",
            "expires_at = 2027-01-31",
            "expires_at = \"2027-01-31T00:00:00Z\"",
            "created_at = 2027-13-31T00:00:00Z",
            "revoked_at = 0000-02-29T00:00:00Z",
            "not_before = 9999-12-31T23:59:59Z",
            "replaced_by = \"a\"",
            "revoked_reason = \"\"",
            "name = \"\u{85}\"",
        ];
        prop_oneof![
            (0..4_usize).prop_map(|number| plain_record(number, "").trim_end().to_owned()),
            proptest::sample::select(odd.map(str::to_owned).to_vec()),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn what_is_read_by_parts_is_what_the_whole_says(
            lines in proptest::collection::vec(line(), 0..9),
            end in "\r?\n",
            place in any::<proptest::sample::Index>(),
            put in "[\\[\\]\"'\\\\ =#\n\r\ta0Z:\u{feff}]{0,2}",
        ) {
            let mut text = lines.join(&end);
            prop_assert!(by_parts(&text).is_none_or(|list| as_a_whole(&text) == Some(list)), "{}", text);
            let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            if !places.is_empty() {
                let at = places[place.index(places.len())];
                text.remove(at);
                text.insert_str(at, &put);
                prop_assert!(by_parts(&text).is_none_or(|list| as_a_whole(&text) == Some(list)), "{}", text);
            }
        }
    }
}
