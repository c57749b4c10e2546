//! The token list: who holds which token, as the token file and its JSON twin say it.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;

use jiff::Timestamp;

use super::digest::TokenHash;
use super::plaintext::Prefix;
use super::rules::NameRules;
use crate::charset::Charset;
use crate::document::{Problem, Problems};

/// More hashes than these are not tried for one token.
pub(super) const MAX_CANDIDATES: usize = 4;

/// What logs, listings and revocation call a token: never secret, safe in a header and a file name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId(Box<str>);

impl TokenId {
    /// Reads an id: 1 to 64 letters, digits, `-`, `_` and `.`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        static OF_IDS: Charset = Charset::alphanumeric_and(b"-_.");
        if (1..=64).contains(&text.len()) && OF_IDS.holds(text) {
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
    /// The tools that it may call, within what its scopes allow; `None` narrows nothing.
    pub tools: Option<NameRules>,
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

impl TokenRecord {
    /// The prefix by which its hash is found among those to be tried, if it is such a hash.
    fn prefix_of_bcrypt(&self) -> Option<&str> {
        matches!(self.hash, TokenHash::Bcrypt(_)).then_some(self.prefix.as_deref()).flatten()
    }
}

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
    /// The list if none of its identifiers holds a token. They decide who is who, so none is ever rewritten, and all of
    /// them go to the audit log and to the upstream. `file` is named in messages only.
    ///
    /// # Errors
    /// Where a token stands. It is not repeated.
    pub fn without_tokens(self, file: &Path, prefix: &Prefix) -> Result<Self, Problems> {
        let tokens = self.tokens.iter().enumerate().flat_map(|(index, TokenRecord { id, user, .. })| {
            [("tokens", index, "id", id.as_str()), ("tokens", index, "user", user)]
        });
        let users = self.users.iter().flatten().enumerate().flat_map(|(index, User { id, org, .. })| {
            [("users", index, "id", &**id), ("users", index, "org", org.as_deref().unwrap_or_default())]
        });
        let held = tokens.chain(users).filter(|(.., text)| prefix.is_in(text));
        let problem = |(list, index, key, _)| {
            let advice = "holds a token, and many see what stands here: write an identifier, and revoke the token";
            Problem::in_file(file, format!("{list}[{index}].{key}: {advice}"))
        };
        let problems: Vec<_> = held.map(problem).collect();
        if problems.is_empty() { Ok(self) } else { Err(Problems(problems)) }
    }

    /// Whether a token stands among the words about tokens and users, which are masked wherever they are shown.
    pub fn has_token_among_words(&self, prefix: &Prefix) -> bool {
        let tokens = self.tokens.iter().flat_map(|token| [&token.name, &token.revoked_reason]);
        let users = self.users.iter().flatten().flat_map(|user| [&user.name, &user.email]);
        tokens.chain(users).flatten().any(|text| prefix.is_in(text))
    }

    /// Takes in another file of the same list; `file` is named in messages only.
    ///
    /// # Errors
    /// Something occurs in both, or too many bcrypt hashes have one prefix.
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
        let mut candidates: HashMap<_, usize> = HashMap::new();
        for prefix in self.tokens.iter().chain(&other.tokens).filter_map(TokenRecord::prefix_of_bcrypt) {
            *candidates.entry(prefix).or_default() += 1;
        }
        for token in &other.tokens {
            let count = token.prefix_of_bcrypt().and_then(|prefix| candidates.get(prefix));
            if count.is_some_and(|count| *count > MAX_CANDIDATES) {
                let message = format!(
                    "token `{}`: more than {MAX_CANDIDATES} bcrypt hashes in all files have its prefix: mint new tokens",
                    token.id
                );
                problems.push(Problem::in_file(file, message));
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_holds_no_token_and_may_look_like_one() {
        let prefix = Prefix::parse("acme_").unwrap();
        let minted = prefix.mint().unwrap();
        let token = minted.token.expose();
        let list = |id: &str, user: &str, listed: &str, org: &str, word: &str| {
            let hash = minted.token.digest();
            let text = format!(
                "[[tokens]]\nid = \"{id}\"\nhash = \"{hash}\"\nuser = \"{user}\"\nname = \"{word}\"\n\
                 [[users]]\nid = \"{listed}\"\nname = \"{word}\"\nemail = \"{word}@x\"\norg = \"{org}\"\n"
            );
            TokenList::parse(Path::new("t.toml"), &text).unwrap()
        };
        let alike = "acme_production_admin";
        let good = list(alike, alike, alike, alike, token);
        assert_eq!(good.clone().without_tokens(Path::new("t.toml"), &prefix), Ok(good.clone()));
        assert!(good.has_token_among_words(&prefix) && !good.has_token_among_words(&Prefix::default()));
        assert!(!list("a", "b", "c", "d", alike).has_token_among_words(&prefix));
        let within = format!("u {token}");
        for (bad, place) in [
            (list(token, "b", "c", "d", "e"), "tokens[0].id"),
            (list("a", &within, "c", "d", "e"), "tokens[0].user"),
            (list("a", "b", &within, "d", "e"), "users[0].id"),
            (list("a", "b", "c", &within, "e"), "users[0].org"),
        ] {
            let problems = bad.without_tokens(Path::new("t.toml"), &prefix).unwrap_err().to_string();
            assert!(problems.starts_with(&format!("t.toml: {place}: holds a token, ")), "{problems}");
            assert!(!problems.contains(&token[16..]), "{problems}");
        }
    }

    #[test]
    fn the_hashes_of_a_prefix_are_counted_over_all_files() {
        let file = |names: &[&str]| {
            let records = names.iter().map(|name| {
                let hash = bcrypt::hash(name, 4).unwrap();
                format!("[[tokens]]\nid = \"{name}\"\nhash = \"{hash}\"\nprefix = \"legacy_pat\"\nuser = \"alice\"\n")
            });
            TokenList::parse(Path::new("t.toml"), &records.collect::<String>()).unwrap()
        };
        let mut list = TokenList::default();
        list.merge(file(&["a", "b", "c"]), Path::new("one.toml")).unwrap();
        list.merge(file(&["d"]), Path::new("two.toml")).unwrap();
        let problems = list.merge(file(&["e"]), Path::new("three.toml")).unwrap_err().to_string();
        assert!(problems.starts_with("three.toml: token `e`: more than 4 bcrypt hashes"), "{problems}");
    }
}
