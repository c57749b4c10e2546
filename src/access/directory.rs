//! An immutable snapshot of who holds which token, built whole from a list and asked on every request.

use std::collections::HashMap;
use std::sync::Arc;

use http::HeaderValue;
use jiff::Timestamp;

use super::credential::Credential;
use super::denial::Denial;
use super::identity::{IdentityHeaders, Subject, TokenIdentity, scopes_value};
use super::permit::{Grant, Permit};
use crate::token::{BuildDigestHasher, Checksum, Prefix, Role, Scope, Status, TokenDigest, TokenList, User};
use crate::verdict::Reason;

/// Which state of the list a decision was made by: each reload has a higher number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(pub u64);

/// What holds for every token, whatever the list says.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// The prefix whose checksum is checked.
    pub prefix: Prefix,
    /// The names of the identity headers.
    pub identity: IdentityHeaders,
}

/// Who may do what, at one moment of the list's life.
#[derive(Debug)]
pub struct Directory {
    policy: Policy,
    generation: Generation,
    revision: Arc<str>,
    known: Option<Known>,
}

#[derive(Debug)]
struct Known {
    tokens: HashMap<TokenDigest, Entry, BuildDigestHasher>,
}

/// A token whose user decides too.
#[derive(Debug)]
struct Entry {
    grant: Arc<Grant>,
    standing: Standing,
}

/// How the token's user stands.
#[derive(Clone, Copy, Debug)]
enum Standing {
    Active,
    Suspended,
    Unlisted,
}

impl Directory {
    /// The directory of a list. `revision` names the state of the source that it was read from.
    pub fn new(list: &TokenList, policy: &Policy, generation: Generation, revision: &str) -> Self {
        let known = Known { tokens: Builder::new(list, &policy.identity).entries() };
        Self { policy: policy.clone(), generation, revision: revision.into(), known: Some(known) }
    }

    /// A directory that knows nothing, not even who is unknown: every credential meets a 503.
    pub fn unavailable(policy: &Policy) -> Self {
        Self { policy: policy.clone(), generation: Generation::default(), revision: "".into(), known: None }
    }

    /// Decides whether a credential opens the door at the moment `now` (wall clock).
    ///
    /// # Errors
    /// The exact reason why it does not.
    pub fn authenticate(&self, credential: &Credential<'_>, now: Timestamp) -> Result<Permit, Denial> {
        if self.policy.prefix.check(credential.token()) == Checksum::Bad {
            return Err(Denial::of(Reason::BadChecksum));
        }
        let known = self.known.as_ref().ok_or(Denial::of(Reason::SourceUnavailable))?;
        let entry = known.tokens.get(&credential.digest()).ok_or(Denial::of(Reason::UnknownToken))?;
        match entry.objection(now) {
            None => Ok(Permit::new(&entry.grant, self.generation)),
            Some(reason) => Err(Denial::of_known(reason, &entry.grant)),
        }
    }

    /// The number of this state.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The state of the source that this directory was built from.
    pub fn revision(&self) -> &Arc<str> {
        &self.revision
    }

    /// How many tokens it knows, dead ones too; `None` while it knows nothing.
    pub fn token_count(&self) -> Option<usize> {
        self.known.as_ref().map(|known| known.tokens.len())
    }
}

impl Entry {
    /// What speaks against the token at this moment; a revocation before all else.
    fn objection(&self, now: Timestamp) -> Option<Reason> {
        let Grant { not_before, expires_at, revoked_at, .. } = &*self.grant;
        if revoked_at.is_some_and(|at| at <= now) {
            return Some(Reason::Revoked);
        }
        match self.standing {
            Standing::Active => {}
            Standing::Suspended => return Some(Reason::UserSuspended),
            Standing::Unlisted => return Some(Reason::UserUnknown),
        }
        if not_before.is_some_and(|from| now < from) {
            return Some(Reason::NotYetValid);
        }
        expires_at.is_some_and(|end| end <= now).then_some(Reason::Expired)
    }
}

// --- Building -------------------------------------------------------------------------------

/// A user, as all of her tokens share her.
struct Holder<'l> {
    subject: Arc<Subject>,
    standing: Standing,
    /// What her roles grant; `None` where roles grant nothing because the list has none.
    scopes: Option<Vec<&'l Scope>>,
}

struct Builder<'l> {
    list: &'l TokenList,
    names: &'l IdentityHeaders,
    listed: HashMap<&'l str, &'l User>,
    holders: HashMap<&'l str, Holder<'l>>,
    /// Most tokens share a few sets of scopes: each set is rendered once.
    scope_values: HashMap<Vec<&'l Scope>, Option<HeaderValue>>,
}

impl<'l> Builder<'l> {
    fn new(list: &'l TokenList, names: &'l IdentityHeaders) -> Self {
        let listed = list.users.iter().flatten().map(|user| (&*user.id, user)).collect();
        Self { list, names, listed, holders: HashMap::new(), scope_values: HashMap::new() }
    }

    fn entries(mut self) -> HashMap<TokenDigest, Entry, BuildDigestHasher> {
        let mut entries = HashMap::with_capacity_and_hasher(self.list.tokens.len(), BuildDigestHasher::default());
        for record in &self.list.tokens {
            let holder = match self.holders.get(&*record.user) {
                Some(holder) => holder,
                None => {
                    let holder = self.holder(&record.user);
                    self.holders.entry(&record.user).or_insert(holder)
                }
            };
            let scopes = effective_scopes(record.scopes.as_deref(), holder.scopes.as_deref());
            let scopes = self.scope_values.entry(scopes).or_insert_with_key(|scopes| scopes_value(scopes)).clone();
            let grant = Grant {
                identity: TokenIdentity::new(record.id.clone(), scopes, self.names),
                name: record.name.clone(),
                subject: Arc::clone(&holder.subject),
                not_before: record.not_before,
                expires_at: record.expires_at,
                revoked_at: record.revoked_at,
            };
            entries.insert(record.digest, Entry { grant: Arc::new(grant), standing: holder.standing });
        }
        entries
    }

    fn holder(&self, id: &'l str) -> Holder<'l> {
        let Some(user) = self.listed.get(id) else {
            let standing = if self.list.users.is_some() { Standing::Unlisted } else { Standing::Active };
            return Holder { subject: Arc::new(Subject::bare(id, self.names)), standing, scopes: None };
        };
        let standing = match user.status {
            Status::Active => Standing::Active,
            Status::Suspended => Standing::Suspended,
        };
        let scopes = self.list.roles.as_ref().map(|roles| granted(user, roles));
        Holder { subject: Arc::new(Subject::listed(user, self.names)), standing, scopes }
    }
}

/// All that a user's roles grant, each scope once, in the order of the list.
fn granted<'l>(user: &User, roles: &'l HashMap<Box<str>, Role>) -> Vec<&'l Scope> {
    let mut scopes = Vec::new();
    for role in user.roles.iter().filter_map(|name| roles.get(name)) {
        for scope in &role.scopes {
            if !scopes.contains(&scope) {
                scopes.push(scope);
            }
        }
    }
    scopes
}

/// A token's scopes only narrow its user's; without any of its own it has all of hers.
fn effective_scopes<'l>(own: Option<&'l [Scope]>, users: Option<&[&'l Scope]>) -> Vec<&'l Scope> {
    match (own, users) {
        (None, None) => Vec::new(),
        (None, Some(users)) => users.to_vec(),
        (Some(own), None) => own.iter().collect(),
        (Some(own), Some(users)) => own.iter().filter(|scope| users.contains(scope)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use http::HeaderMap;
    use http::header::AUTHORIZATION;

    use super::*;

    const NOW: &str = "2026-11-22T08:00:00Z";

    fn directory(extra: &str) -> Directory {
        let hash = TokenDigest::of("opaque-token");
        let text = format!("[[tokens]]\nid = \"t1\"\nhash = \"{hash}\"\nuser = \"alice\"\n{extra}");
        let list = TokenList::parse(Path::new("t.toml"), &text).unwrap();
        Directory::new(&list, &Policy::default(), Generation(7), "r1")
    }

    fn ask(directory: &Directory, token: &str, now: &str) -> Result<Permit, Denial> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        let credential = Credential::from_headers(&headers)?;
        directory.authenticate(&credential, now.parse().unwrap())
    }

    fn header(permit: &Permit, name: &str) -> Option<String> {
        let found = permit.identity().find(|(header, _)| header == name);
        found.map(|(_, value)| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn every_denial() {
        let minted = Prefix::default().mint().unwrap();
        let broken = format!("{}x", minted.token.expose());
        for (extra, token, reason) in [
            ("", "another-token", Reason::UnknownToken),
            ("", minted.token.expose(), Reason::UnknownToken),
            ("", &broken, Reason::BadChecksum),
            ("expires_at = 2026-11-22T08:00:00Z", "opaque-token", Reason::Expired),
            ("not_before = 2026-11-22T08:00:01Z", "opaque-token", Reason::NotYetValid),
            ("revoked_at = 2026-11-22T08:00:00Z", "opaque-token", Reason::Revoked),
            ("revoked_at = 2026-01-01T00:00:00Z\nexpires_at = 2026-01-01T00:00:00Z", "opaque-token", Reason::Revoked),
            ("[[users]]\nid = \"alice\"\nstatus = \"suspended\"", "opaque-token", Reason::UserSuspended),
            ("[[users]]\nid = \"bob\"", "opaque-token", Reason::UserUnknown),
        ] {
            let denial = ask(&directory(extra), token, NOW).expect_err(extra);
            assert_eq!(denial.reason(), reason, "{extra}");
            assert_eq!(denial.status(), 401, "{extra}");
            let known = !matches!(reason, Reason::UnknownToken | Reason::BadChecksum);
            assert_eq!(denial.grant().map(|grant| grant.token_id()), known.then_some("t1"), "{extra}");
        }
    }

    #[test]
    fn zero_leeway_at_both_ends() {
        let directory = directory("not_before = 2026-11-22T08:00:00Z\nexpires_at = 2026-11-22T09:00:00Z");
        assert!(ask(&directory, "opaque-token", "2026-11-22T07:59:59.999999Z").is_err());
        assert!(ask(&directory, "opaque-token", "2026-11-22T08:00:00Z").is_ok());
        assert!(ask(&directory, "opaque-token", "2026-11-22T08:59:59.999999Z").is_ok());
        assert!(ask(&directory, "opaque-token", "2026-11-22T09:00:00Z").is_err());
    }

    #[test]
    fn a_directory_without_a_list_never_says_that_a_token_is_bad() {
        let denial = ask(&Directory::unavailable(&Policy::default()), "opaque-token", NOW).unwrap_err();
        assert_eq!((denial.reason(), denial.status().as_u16()), (Reason::SourceUnavailable, 503));
    }

    #[test]
    fn a_permit_carries_the_identity() {
        let permit = ask(&directory(""), "opaque-token", NOW).unwrap();
        assert_eq!(header(&permit, "x-auth-user").as_deref(), Some("alice"));
        assert_eq!(header(&permit, "x-auth-token-id").as_deref(), Some("t1"));
        assert_eq!(header(&permit, "x-auth-source").as_deref(), Some("pat"));
        assert_eq!(header(&permit, "x-auth-scopes"), None);
        assert_eq!(permit.generation(), Generation(7));
    }

    #[test]
    fn a_tokens_scopes_only_narrow_its_users() {
        let user = "[[users]]\nid = \"alice\"\nroles = [\"dev\", \"gone\"]\norg = \"acme\"\n";
        let roles = "[roles.dev]\nscopes = [\"a\", \"b\"]\n";
        let stands = "[[users]]\nid = \"alice\"\n";
        for (extra, scopes) in [
            (format!("{user}{roles}"), Some("a b")),
            (format!("scopes = [\"b\", \"c\"]\n{user}{roles}"), Some("b")),
            (format!("scopes = [\"c\"]\n{user}{roles}"), None),
            (format!("scopes = [\"c\"]\n{stands}{roles}"), None),
            (format!("scopes = [\"c\", \"d\"]\n{stands}"), Some("c d")),
            ("scopes = [\"c\"]".to_owned(), Some("c")),
        ] {
            let permit = ask(&directory(&extra), "opaque-token", NOW).unwrap();
            assert_eq!(header(&permit, "x-auth-scopes").as_deref(), scopes, "{extra}");
        }
        let permit = ask(&directory(&format!("{user}{roles}")), "opaque-token", NOW).unwrap();
        assert_eq!(header(&permit, "x-auth-roles").as_deref(), Some("dev,gone"));
        assert_eq!(header(&permit, "x-auth-org").as_deref(), Some("acme"));
    }
}
