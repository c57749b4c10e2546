//! Reading a token list: the TOML of a file and its JSON twin.
//!
//! A file is read in parts where that is possible. Whatever is unusual or wrong is read as a whole, and so
//! every mistake is found there, with its place in the file.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::digest::{BuildDigestHasher, TokenDigest, TokenHash};
use super::list::{MAX_CANDIDATES, Role, Scope, Status, TokenId, TokenList, TokenRecord, User};
use super::rules::NameRules;
use super::{parts, value};
use crate::document::{Document, Problems, Table};

impl TokenList {
    /// Reads the TOML of a token file. `file` is named in messages only.
    ///
    /// # Errors
    /// Every mistake in it, with line and column.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Problems> {
        parts::read(file, text).map_or_else(|| whole(file, text), Ok)
    }

    /// Reads the JSON twin of a token file. `place` is named in messages only. There must be a list of
    /// tokens, if an empty one: what a service says that has gone wrong must not pass for "no tokens".
    ///
    /// # Errors
    /// Every mistake in it, with its key.
    pub fn parse_json(place: &Path, json: &[u8]) -> Result<Self, Problems> {
        let document = Document::parse_json(place, json)?;
        let root = document.root();
        let tokens = root.tables("tokens");
        if tokens.is_none() {
            root.problem("tokens", "no list of tokens: write {\"tokens\": []} if there are none");
        }
        let mut reader = Reader::default();
        tokens.unwrap_or_default().iter().for_each(|table| reader.token(table));
        let list = reader.list(&root);
        document.finish()?;
        Ok(list)
    }
}

/// Reads a file as one document.
pub(super) fn whole(file: &Path, text: &str) -> Result<TokenList, Problems> {
    let document = Document::parse(file, text)?;
    let root = document.root();
    let mut reader = Reader::default();
    root.tables("tokens").unwrap_or_default().iter().for_each(|table| reader.token(table));
    let list = reader.list(&root);
    document.finish()?;
    Ok(list)
}

/// What has been read of a list. Mistakes go to the document; what is returned counts only when there
/// are none.
#[derive(Default)]
pub(super) struct Reader {
    tokens: Vec<TokenRecord>,
    ids: HashSet<TokenId>,
    digests: HashSet<TokenDigest, BuildDigestHasher>,
    candidates: HashMap<Box<str>, usize>,
}

impl Reader {
    /// Takes in a table of `tokens`.
    pub(super) fn token(&mut self, table: &Table<'_>) {
        let record = read_token(table);
        table.done();
        for (key, message) in record.and_then(|record| self.take(record).err()).unwrap_or_default() {
            table.problem(key, message);
        }
    }

    /// Takes in a record. The error is what is wrong with it beside the others, each with its key.
    pub(super) fn take(&mut self, record: TokenRecord) -> Result<(), Vec<(&'static str, String)>> {
        let mut wrong = Vec::new();
        if !self.ids.insert(record.id.clone()) {
            wrong.push(("id", format!("`{}` occurs twice: give each token an id of its own", record.id)));
        }
        match (&record.hash, &record.prefix) {
            (TokenHash::Sha256(digest), _) if !self.digests.insert(*digest) => {
                wrong.push(("hash", "occurs twice: two records cannot stand for one token".to_owned()));
            }
            (TokenHash::Bcrypt(_), Some(prefix)) => {
                let count = self.candidates.entry(prefix.clone()).or_default();
                *count += 1;
                if *count > MAX_CANDIDATES {
                    let message = format!("more than {MAX_CANDIDATES} bcrypt hashes have this prefix: mint new tokens");
                    wrong.push(("prefix", message));
                }
            }
            (TokenHash::Bcrypt(_), None) => {
                let message = "a bcrypt hash cannot be looked up: set `prefix` to the token's first 10 characters";
                wrong.push(("hash", message.to_owned()));
            }
            (TokenHash::Sha256(_), _) => {}
        }
        self.tokens.push(record);
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// Takes in all other keys of the file, and is the list then.
    pub(super) fn list(self, root: &Table<'_>) -> TokenList {
        let users = root.tables("users").map(|tables| read_users(&tables));
        let roles = root.table("roles").map(|table| read_roles(&table));
        root.done();
        TokenList { tokens: self.tokens, users, roles }
    }
}

fn read_token(table: &Table<'_>) -> Option<TokenRecord> {
    let id = table.required("id").and_then(|text| TokenId::parse(text).map_err(|why| table.problem("id", why)).ok());
    let hash = table
        .required("hash")
        .and_then(|text| text.parse::<TokenHash>().map_err(|why| table.problem("hash", why.to_string())).ok());
    let user = required_text(table, "user");
    Some(TokenRecord {
        prefix: table.parsed("prefix", value::token_prefix).map(Into::into),
        name: text(table, "name"),
        scopes: scopes(table),
        tools: NameRules::read(table, "tools"),
        created_at: table.timestamp("created_at"),
        not_before: table.timestamp("not_before"),
        expires_at: table.timestamp("expires_at"),
        revoked_at: table.timestamp("revoked_at"),
        revoked_reason: text(table, "revoked_reason"),
        replaced_by: table.parsed("replaced_by", TokenId::parse),
        id: id?,
        hash: hash?,
        user: user?,
    })
}

fn read_users(tables: &[Table<'_>]) -> Vec<User> {
    let mut ids = HashSet::new();
    let mut users = Vec::new();
    for table in tables {
        let id = required_text(table, "id");
        let user = User {
            email: text(table, "email"),
            name: text(table, "name"),
            org: text(table, "org"),
            roles: table.strings("roles").unwrap_or_default().into_iter().map(Into::into).collect(),
            status: table.parsed("status", value::status).unwrap_or(Status::Active),
            id: id.unwrap_or_default(),
        };
        for why in user.roles.iter().filter_map(|role| value::role_name(role).err()) {
            table.problem("roles", why);
        }
        table.done();
        if !ids.insert(user.id.clone()) {
            table.problem("id", format!("`{}` occurs twice: list each user once", user.id));
        }
        users.push(user);
    }
    users
}

fn read_roles(table: &Table<'_>) -> HashMap<Box<str>, Role> {
    let mut roles = HashMap::new();
    for (name, role) in table.named_tables() {
        if let Err(why) = value::role_name(name) {
            role.problem("", why);
        }
        roles.insert(name.into(), Role { scopes: scopes(&role).unwrap_or_default() });
        role.done();
    }
    roles
}

// --- The values -----------------------------------------------------------------------------

fn scopes(table: &Table<'_>) -> Option<Vec<Scope>> {
    let texts = table.strings("scopes")?;
    let read = |text| Scope::parse(text).map_err(|why| table.problem("scopes", why)).ok();
    Some(texts.into_iter().filter_map(read).collect())
}

fn required_text(table: &Table<'_>, key: &'static str) -> Option<Box<str>> {
    let value = table.required(key)?;
    if value.is_empty() {
        table.problem(key, "empty: this key is required");
        return None;
    }
    plain(table, key, value)
}

fn text(table: &Table<'_>, key: &'static str) -> Option<Box<str>> {
    plain(table, key, table.string(key)?)
}

fn plain(table: &Table<'_>, key: &'static str, value: &str) -> Option<Box<str>> {
    value::plain_text(value).map(Into::into).map_err(|why| table.problem(key, why)).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::token::TokenDigest;

    const HASH: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn problems(text: &str) -> Vec<String> {
        let error = TokenList::parse(Path::new("t.toml"), text).expect_err("must be refused");
        error.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_full_list_is_read() {
        let text = format!(
            r#"
            [[tokens]]
            id = "k3V9mQ2xTa"
            hash = "{HASH}"
            user = "alice"
            name = "Claude Code on laptop"
            scopes = ["mcp:read"]
            created_at = 2026-11-22T08:00:00Z
            expires_at = 2027-02-20T08:00:00Z

            [[users]]
            id = "alice"
            email = "alice@example.com"
            name = "Alice Doe"
            org = "acme"
            roles = ["developer"]
            status = "suspended"

            [roles.developer]
            scopes = ["mcp:read", "mcp:write"]
            "#
        );
        let list = TokenList::parse(Path::new("t.toml"), &text).unwrap();
        let token = &list.tokens[0];
        assert_eq!((token.id.as_str(), &*token.user), ("k3V9mQ2xTa", "alice"));
        assert_eq!(token.hash, TokenHash::Sha256(TokenDigest::of("abc")));
        assert_eq!(token.expires_at.unwrap().to_string(), "2027-02-20T08:00:00Z");
        assert_eq!(list.users.unwrap()[0].status, Status::Suspended);
        assert_eq!(list.roles.unwrap()["developer"].scopes.len(), 2);
    }

    #[test]
    fn an_empty_list_knows_nobody() {
        assert_eq!(TokenList::parse(Path::new("t.toml"), "").unwrap(), TokenList::default());
    }

    #[test]
    fn json_is_the_same_list_but_must_have_one() {
        let json = format!(
            r#"{{"tokens":[{{"id":"a","hash":"{HASH}","user":"x","expires_at":"2027-02-20T08:00:00Z","name":null}}]}}"#
        );
        let toml =
            format!("[[tokens]]\nid = \"a\"\nhash = \"{HASH}\"\nuser = \"x\"\nexpires_at = 2027-02-20T08:00:00Z");
        let place = Path::new("t");
        assert_eq!(TokenList::parse_json(place, json.as_bytes()), TokenList::parse(place, &toml));
        assert_eq!(TokenList::parse_json(place, br#"{"tokens":[]}"#), Ok(TokenList::default()));
        for json in
            ["", "{", "[]", "{}", "null", r#"{"error":"down"}"#, r#"{"tokens":null}"#, r#"{"tokens":{}}"#, "\u{feff}{}"]
        {
            assert!(TokenList::parse_json(place, json.as_bytes()).is_err(), "{json}");
        }
        assert!(TokenList::parse_json(place, b"{\"tokens\":[\xff]}").is_err());
    }

    #[test]
    fn null_is_neither_no_users_nor_no_roles() {
        let place = Path::new("t");
        for key in ["users", "roles", "tokens"] {
            let json = format!(r#"{{"{key}":null,"tokens":[]}}"#);
            let error = TokenList::parse_json(place, json.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(&format!("t: \"{key}\" is null: write what it is")), "{error}");
        }
    }

    #[test]
    fn null_in_an_array_is_refused() {
        for more in [r#""tools":{"deny":[null]}"#, r#""tools":["a",null]"#, r#""scopes":[null]"#] {
            let json = format!(r#"{{"tokens":[{{"id":"a","hash":"{HASH}","user":"x",{more}}}]}}"#);
            let error = TokenList::parse_json(Path::new("t"), json.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("null in an array: write what it is, or leave it out"), "{error}");
        }
        assert!(TokenList::parse_json(Path::new("t"), br#"{"tokens":[null]}"#).is_err());
    }

    #[test]
    fn json_that_says_two_things_of_one_key_is_refused() {
        let place = Path::new("t");
        let record = |more: &str| format!(r#"{{"tokens":[{{"id":"a","hash":"{HASH}","user":"x"{more}}}]}}"#);
        let moment = r#""2026-01-01T00:00:00Z""#;
        assert!(TokenList::parse_json(place, record(&format!(r#","revoked_at":{moment}"#)).as_bytes()).is_ok());
        for (first, second) in [(moment, "null"), ("null", moment), (moment, moment), ("null", "null")] {
            let json = record(&format!(r#","revoked_at":{first},"revoked\u005fat":{second}"#));
            let error = TokenList::parse_json(place, json.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with("t: \"revoked_at\" occurs twice in one object"), "{error}");
        }
        assert!(TokenList::parse_json(place, br#"{"tokens":[],"tokens":[]}"#).is_err());
        assert!(TokenList::parse_json(place, br#"{"tokens":[]}{}"#).is_err());
    }

    #[test]
    fn every_mistake_is_named_at_once() {
        let text = format!(
            "[[tokens]]\nid = \"a b\"\nhash = \"{HASH}\"\nuser = \"x\"\n\
             [[tokens]]\nid = \"a\"\nhash = \"mcp_pat_x\"\nuser = \"al\\nice\"\nexpire_at = 2027-02-20T08:00:00Z\n\
             [[users]]\nname = \"Nobody\"\nstatus = \"asleep\"\n"
        );
        let found = problems(&text).join("\n");
        for expected in [
            "t.toml:2:6: tokens[0].id: not a token id",
            "t.toml:7:8: tokens[1].hash: not a hash that is known here",
            "t.toml:8:8: tokens[1].user: holds a control character",
            "users[0].id: missing",
            "users[0].status: \"asleep\" is not a status",
        ] {
            assert!(found.contains(expected), "{expected} not in:\n{found}");
        }
        assert!(!found.contains("mcp_pat_x"), "{found}");
    }

    #[test]
    fn a_misspelt_expiry_is_refused_rather_than_ignored() {
        let text =
            format!("[[tokens]]\nid = \"a\"\nhash = \"{HASH}\"\nuser = \"x\"\nexpire_at = 2027-02-20T08:00:00Z\n");
        assert_eq!(problems(&text), ["t.toml:5:1: tokens[0].expire_at: unknown key: did you mean `expires_at`?"]);
    }

    #[test]
    fn twins_are_refused() {
        let text = format!("[[tokens]]\nid = \"a\"\nhash = \"{HASH}\"\nuser = \"x\"\n").repeat(2);
        let found = problems(&text).join("\n");
        assert!(found.contains("tokens[1].id: `a` occurs twice") && found.contains("tokens[1].hash: occurs twice"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "([a-z\\[\\]=\"\n .:0-9]|\\[\\[tokens\\]\\]\n|id = |hash = |user = ){0,60}") {
            let _ = TokenList::parse(Path::new("t.toml"), &text);
        }
    }
}
