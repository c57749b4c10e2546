//! An immutable snapshot of who holds which token, built whole from a list and asked on every request.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::build::{self, Table};
use super::credential::Credential;
use super::denial::Denial;
use super::deny_list::DenyList;
use super::grant::Grant;
use super::identity::IdentityHeaders;
use super::permit::Permit;
use super::scope_rules::CallPolicy;
use crate::token::{Checksum, PREFIX_LENGTH, Prefix, TokenDigest, TokenList};
use crate::verdict::Reason;

/// Which state of the list a decision was made by: each reload has a higher number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation(pub u64);

/// What holds for every token, whatever the list says.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// The prefix whose checksum is checked.
    pub prefix: Prefix,
    /// The names of the identity headers.
    pub identity: IdentityHeaders,
    /// The longest life that a token may be made for; with it, no token may live forever.
    pub max_lifetime: Option<SignedDuration>,
    /// What scopes allow to call; without it, bodies are not read for access at all.
    pub calls: Option<Arc<CallPolicy>>,
}

impl Policy {
    /// Whether a token may live from `from` to `end`; where that cannot be told, it may not.
    pub fn allows_lifetime(&self, from: Option<Timestamp>, end: Option<Timestamp>) -> bool {
        let Some(longest) = self.max_lifetime else { return true };
        from.zip(end).is_some_and(|(from, end)| end.duration_since(from) <= longest)
    }
}

/// Who may do what, at one moment of the list's life.
#[derive(Clone, Debug)]
pub struct Directory {
    policy: Arc<Policy>,
    generation: Generation,
    revision: Arc<str>,
    denied: Arc<DenyList>,
    known: Known,
}

/// What the directory can say by itself.
#[derive(Clone, Debug)]
enum Known {
    /// Nothing, not even who is unknown.
    Nothing,
    /// Everything: the list is here.
    List(Arc<Table>),
    /// Nothing yet: the answer lies elsewhere, one token at a time.
    Elsewhere,
}

/// What has to be found out before a credential can be judged.
#[derive(Clone, Debug)]
pub enum Question {
    /// Which of these records, if any, the token was hashed for.
    Bcrypt(Arc<[Arc<Grant>]>),
    /// What the source knows of this digest.
    Lookup(TokenDigest),
}

/// The answer to a [`Question`]. A fact, not a decision: it is judged anew on each request.
#[derive(Clone, Debug)]
pub enum Finding {
    /// Nobody has this token.
    Nobody,
    /// This record is its own.
    Found(Arc<Grant>),
    /// It cannot be found out now.
    Unavailable,
}

impl Directory {
    /// The directory of a list. `revision` names the state of the source that it was read from.
    pub fn new(list: &TokenList, policy: &Arc<Policy>, generation: Generation, revision: &str) -> Self {
        let known = Known::List(Arc::new(build::table(list, policy)));
        Self { policy: Arc::clone(policy), generation, revision: revision.into(), denied: Arc::default(), known }
    }

    /// A directory that knows nothing, not even who is unknown: every credential meets a 503.
    pub fn unavailable(policy: &Arc<Policy>) -> Self {
        Self {
            policy: Arc::clone(policy),
            generation: Generation::default(),
            revision: "".into(),
            denied: Arc::default(),
            known: Known::Nothing,
        }
    }

    /// A directory whose every question is answered by somebody else.
    pub fn elsewhere(policy: &Arc<Policy>, generation: Generation, revision: &str) -> Self {
        Self { known: Known::Elsewhere, generation, revision: revision.into(), ..Self::unavailable(policy) }
    }

    /// The same list under a new deny list, as a state of its own.
    pub fn with_denied(&self, denied: &Arc<DenyList>, generation: Generation) -> Self {
        Self { denied: Arc::clone(denied), generation, ..self.clone() }
    }

    /// What has to be found out about a credential before [`Self::authenticate`] can judge it; mostly nothing.
    pub fn question(&self, credential: &Credential<'_>) -> Option<Question> {
        let settled = || {
            self.policy.prefix.check(credential.token()) == Checksum::Bad
                || self.denied.has_digest(&credential.digest())
        };
        match &self.known {
            Known::Nothing => None,
            Known::Elsewhere => (!settled()).then(|| Question::Lookup(credential.digest())),
            Known::List(table) if table.bcrypt.is_empty() => None,
            Known::List(table) => {
                let candidates = table.bcrypt.get(credential.token().get(..PREFIX_LENGTH)?)?;
                let known = settled() || table.tokens.contains_key(&credential.digest());
                (!known).then(|| Question::Bcrypt(Arc::clone(candidates)))
            }
        }
    }

    /// Decides whether a credential opens the door at the moment `now` (wall clock), given what was
    /// found out about it.
    ///
    /// # Errors
    /// The exact reason why it does not.
    pub fn authenticate(
        &self,
        credential: &Credential<'_>,
        finding: &Finding,
        now: Timestamp,
    ) -> Result<Permit, Denial> {
        if self.policy.prefix.check(credential.token()) == Checksum::Bad {
            return Err(Denial::of(Reason::BadChecksum));
        }
        let digest = credential.digest();
        let listed = match &self.known {
            Known::List(table) => table.tokens.get(&digest),
            Known::Nothing | Known::Elsewhere => None,
        };
        let found = match finding {
            Finding::Found(grant) => Some(grant),
            Finding::Nobody | Finding::Unavailable => None,
        };
        let grant = listed.or(found);
        if self.denied.has_digest(&digest) {
            return Err(Denial::new(Reason::Revoked, grant));
        }
        let Some(grant) = grant else {
            let unknowable = matches!(self.known, Known::Nothing) || matches!(finding, Finding::Unavailable);
            return Err(Denial::of(if unknowable { Reason::SourceUnavailable } else { Reason::UnknownToken }));
        };
        match self.objection(grant, now) {
            None => Ok(Permit::new(grant, digest, self.generation)),
            Some(reason) => Err(Denial::new(reason, Some(grant))),
        }
    }

    /// Judges a permit again, for what it let in may still be going on, and returns what holds for its
    /// token now. Where that cannot be known here, it is what was `known` of it last: an outage ends
    /// nothing that was in order when it began.
    ///
    /// # Errors
    /// The token, its user or a right of it is gone since.
    pub fn review<'g>(
        &'g self,
        permit: &Permit,
        known: &'g Arc<Grant>,
        now: Timestamp,
    ) -> Result<&'g Arc<Grant>, Denial> {
        let grant = match &self.known {
            Known::Nothing | Known::Elsewhere => known,
            Known::List(table) => match table.current(permit) {
                Some(grant) => grant,
                None => return Err(Denial::new(Reason::UnknownToken, Some(permit.grant()))),
            },
        };
        let denied = self.denied.has_digest(permit.digest()).then_some(Reason::Revoked);
        match denied.or_else(|| self.objection(grant, now)) {
            Some(reason) => Err(Denial::new(reason, Some(grant))),
            None if grant.lacks_a_right_of(permit.grant()) => Err(Denial::new(Reason::InsufficientScope, Some(grant))),
            None => Ok(grant),
        }
    }

    /// What speaks against a token at this moment, the deny list's word included.
    fn objection(&self, grant: &Grant, now: Timestamp) -> Option<Reason> {
        if self.denied.has_id(grant.token_id()) { Some(Reason::Revoked) } else { grant.objection(now) }
    }

    /// The number of this state.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The state of the source that this directory was built from.
    pub fn revision(&self) -> &Arc<str> {
        &self.revision
    }

    /// Whether it can judge: a directory that knows nothing cannot.
    pub fn is_available(&self) -> bool {
        !matches!(self.known, Known::Nothing)
    }

    /// Whether every token is known here; otherwise those that are not may be known elsewhere.
    pub fn is_list(&self) -> bool {
        matches!(self.known, Known::List(_))
    }

    /// The tokens that are dead because they were made for a longer life than the policy allows.
    pub fn overlong(&self) -> impl Iterator<Item = &Arc<Grant>> {
        self.grants().filter(|grant| grant.is_overlong())
    }

    /// Every token that it knows, dead ones too.
    pub fn grants(&self) -> impl Iterator<Item = &Arc<Grant>> {
        self.table().flat_map(Table::grants).map(|(_, grant)| grant)
    }

    /// Every token that it knows, with what would be answered to it at this moment: [`Reason::Ok`], or
    /// what speaks against it.
    pub fn judged(&self, now: Timestamp) -> impl Iterator<Item = (&Arc<Grant>, Reason)> {
        self.table().flat_map(Table::grants).map(move |(digest, grant)| {
            let denied = digest.is_some_and(|digest| self.denied.has_digest(digest)).then_some(Reason::Revoked);
            (grant, denied.or_else(|| self.objection(grant, now)).unwrap_or(Reason::Ok))
        })
    }

    fn table(&self) -> impl Iterator<Item = &Table> {
        let table = match &self.known {
            Known::List(table) => Some(&**table),
            Known::Nothing | Known::Elsewhere => None,
        };
        table.into_iter()
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
        directory_under(Policy::default(), extra)
    }

    fn directory_under(policy: Policy, extra: &str) -> Directory {
        let hash = TokenDigest::of("opaque-token");
        let text = format!("[[tokens]]\nid = \"t1\"\nhash = \"{hash}\"\nuser = \"alice\"\n{extra}");
        let list = TokenList::parse(Path::new("t.toml"), &text).unwrap();
        Directory::new(&list, &Arc::new(policy), Generation(7), "r1")
    }

    fn ask(directory: &Directory, token: &str, now: &str) -> Result<Permit, Denial> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        let credential = Credential::from_headers(&headers)?;
        directory.authenticate(&credential, &Finding::Nobody, now.parse().unwrap())
    }

    fn header(permit: &Permit, name: &str) -> Option<String> {
        let headers = permit.identity().cloned().chain(permit.token_id_header());
        let mut found = headers.filter(|(header, _)| header == name);
        found.next().map(|(_, value)| value.to_str().unwrap().to_owned())
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
            assert_eq!(denial.grant().map(|grant| grant.token_id().as_str()), known.then_some("t1"), "{extra}");
            let judged = directory(extra).judged(NOW.parse().unwrap()).map(|(_, reason)| reason).collect::<Vec<_>>();
            assert_eq!(judged, [if known { reason } else { Reason::Ok }], "{extra}");
        }
    }

    #[test]
    fn a_denied_token_is_judged_as_revoked_however_it_is_denied() {
        for line in ["t1".to_owned(), TokenDigest::of("opaque-token").to_string()] {
            let denied = DenyList::parse(Path::new("d.txt"), &line).unwrap();
            let directory = directory("").with_denied(&Arc::new(denied), Generation(8));
            assert_eq!(directory.judged(NOW.parse().unwrap()).next().unwrap().1, Reason::Revoked, "{line}");
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
    fn a_life_that_is_counted_from_its_first_day_begins_with_it() {
        let life = "created_at = 2026-11-22T09:00:00Z\nexpires_at = 2026-11-23T08:00:00Z";
        let policy = Policy { max_lifetime: Some(SignedDuration::from_hours(24)), ..Policy::default() };
        for (policy, reason) in [(Policy::default(), None), (policy, Some(Reason::NotYetValid))] {
            let denial = ask(&directory_under(policy, life), "opaque-token", NOW).err();
            assert_eq!(denial.map(|denial| denial.reason()), reason);
        }
    }

    #[test]
    fn a_directory_without_a_list_never_says_that_a_token_is_bad() {
        let denial = ask(&Directory::unavailable(&Arc::default()), "opaque-token", NOW).unwrap_err();
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
