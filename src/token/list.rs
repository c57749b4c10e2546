//! The token list: who holds which token, as the token file and its JSON twin say it.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;

use jiff::Timestamp;

use super::digest::TokenHash;
use super::value;
use crate::document::{Document, Problem, Problems, Table};

/// What logs, listings and revocation call a token: never secret, safe in a header and a file name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId(Box<str>);

impl TokenId {
    /// Reads an id: 1 to 64 letters, digits, `-`, `_` and `.`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fits = (1..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if fits {
            Ok(Self(text.into()))
        } else {
            Err("not a token id: write 1 to 64 letters, digits, `-`, `_` or `.`".to_owned())
        }
    }

    /// An id that was just drawn from base62.
    pub(super) fn minted(text: &str) -> Self {
        Self(text.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenId({})", self.0)
    }
}

/// A scope-token of RFC 6749 section 3.3, such as `mcp:read`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope(Box<str>);

impl Scope {
    /// Reads a scope.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fits = !text.is_empty() && text.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5B | 0x5D..=0x7E));
        if fits {
            Ok(Self(text.into()))
        } else {
            Err(format!("{text:?} is not a scope: write printable ASCII without spaces, quotes and backslashes"))
        }
    }

    /// The scope as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A token as the list has it: everything but the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    /// Its public name in logs and commands.
    pub id: TokenId,
    /// What is kept of the secret.
    pub hash: TokenHash,
    /// The first characters of the token, by which a bcrypt hash is found and a person recognises it.
    pub prefix: Option<Box<str>>,
    /// The id of the user whom it stands for.
    pub user: Box<str>,
    /// What its owner calls it.
    pub name: Option<Box<str>>,
    /// What it may do at most; `None` is all that its user may.
    pub scopes: Option<Vec<Scope>>,
    /// When it was made.
    pub created_at: Option<Timestamp>,
    /// From when on it is good.
    pub not_before: Option<Timestamp>,
    /// The first moment at which it is dead; `None` is never.
    pub expires_at: Option<Timestamp>,
    /// Since when it is revoked.
    pub revoked_at: Option<Timestamp>,
    /// Why, for people.
    pub revoked_reason: Option<Box<str>>,
    /// The token that was made in its place, if it was rotated.
    pub replaced_by: Option<TokenId>,
}

/// More hashes than these are not tried for one token.
const MAX_CANDIDATES: usize = 4;

/// Whether a user may come in at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Her tokens work.
    Active,
    /// None of her tokens works.
    Suspended,
}

/// A person or a service that holds tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Whom the upstream sees.
    pub id: Box<str>,
    /// Her address.
    pub email: Option<Box<str>>,
    /// Her full name.
    pub name: Option<Box<str>>,
    /// The organisation she belongs to.
    pub org: Option<Box<str>>,
    /// The names of her roles.
    pub roles: Vec<Box<str>>,
    /// Active or suspended.
    pub status: Status,
}

/// A named set of scopes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// What holders of the role may do.
    pub scopes: Vec<Scope>,
}

/// A whole list, checked in itself: ids and hashes occur once, every text can be shown and sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenList {
    /// All tokens, dead ones too.
    pub tokens: Vec<TokenRecord>,
    /// All users; `None` where the list has no such table, and every user is taken as it stands.
    pub users: Option<Vec<User>>,
    /// What roles grant; `None` where the list has no such table, and scopes stand as they are.
    pub roles: Option<HashMap<Box<str>, Role>>,
}

impl TokenList {
    /// Reads the TOML of a token file. `file` is named in messages only.
    ///
    /// # Errors
    /// Every mistake in it, with line and column.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Problems> {
        let document = Document::parse(file, text)?;
        let root = document.root();
        let list = Self::read(&root, root.tables("tokens").unwrap_or_default());
        document.finish()?;
        Ok(list)
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
        let list = Self::read(&root, tokens.unwrap_or_default());
        document.finish()?;
        Ok(list)
    }

    /// Takes in another file of the same list; `file` is named in messages only.
    ///
    /// # Errors
    /// Something occurs in both.
    pub fn merge(&mut self, other: Self, file: &Path) -> Result<(), Problems> {
        let mut problems = Vec::new();
        let mut twice =
            |what: String| problems.push(Problem::in_file(file, format!("{what} occurs in another file, too")));
        let ids: HashSet<_> = self.tokens.iter().map(|token| &token.id).collect();
        let hashes: HashSet<_> = self.tokens.iter().map(|token| &token.hash).collect();
        for token in &other.tokens {
            if ids.contains(&token.id) || hashes.contains(&token.hash) {
                twice(format!("token `{}`, or its hash,", token.id));
            }
        }
        let known: HashSet<_> = self.users.iter().flatten().map(|user| &user.id).collect();
        for user in other.users.iter().flatten().filter(|user| known.contains(&user.id)) {
            twice(format!("user `{}`", user.id));
        }
        let known = self.roles.as_ref();
        for name in other.roles.iter().flat_map(HashMap::keys) {
            if known.is_some_and(|roles| roles.contains_key(name)) {
                twice(format!("role `{name}`"));
            }
        }
        self.tokens.extend(other.tokens);
        if let Some(users) = other.users {
            self.users.get_or_insert_default().extend(users);
        }
        if let Some(roles) = other.roles {
            self.roles.get_or_insert_default().extend(roles);
        }
        if problems.is_empty() { Ok(()) } else { Err(Problems(problems)) }
    }

    /// Mistakes go to the document; what is returned counts only when there are none.
    fn read(root: &Table<'_>, tables: Vec<Table<'_>>) -> Self {
        let mut ids = HashSet::new();
        let mut digests = HashSet::new();
        let mut candidates = HashMap::<Box<str>, usize>::new();
        let mut tokens = Vec::new();
        for table in tables {
            let record = read_token(&table);
            table.done();
            let Some(record) = record else { continue };
            if !ids.insert(record.id.clone()) {
                table.problem("id", format!("`{}` occurs twice: give each token an id of its own", record.id));
            }
            match (&record.hash, &record.prefix) {
                (TokenHash::Sha256(digest), _) if !digests.insert(*digest) => {
                    table.problem("hash", "occurs twice: two records cannot stand for one token");
                }
                (TokenHash::Bcrypt(_), Some(prefix)) => {
                    let count = candidates.entry(prefix.clone()).or_default();
                    *count += 1;
                    if *count > MAX_CANDIDATES {
                        let message =
                            format!("more than {MAX_CANDIDATES} bcrypt hashes have this prefix: mint new tokens");
                        table.problem("prefix", message);
                    }
                }
                (TokenHash::Bcrypt(_), None) => {
                    table.problem(
                        "hash",
                        "a bcrypt hash cannot be looked up: set `prefix` to the token's first 10 characters",
                    );
                }
                (TokenHash::Sha256(_), _) => {}
            }
            tokens.push(record);
        }
        let users = root.tables("users").map(|tables| read_users(&tables));
        let roles = root.table("roles").map(|table| read_roles(&table));
        root.done();
        Self { tokens, users, roles }
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
