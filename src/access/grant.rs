//! What the list says about one token, worked out beforehand and kept small: there may be millions.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;

use super::calls::Calls;
use super::identity::{Rights, Subject};
use crate::token::{BcryptHash, NameRules, Scope, TokenId, TokenRecord};
use crate::verdict::Reason;

/// A token of the list, dead or alive.
#[derive(Debug)]
pub struct Grant {
    id: TokenId,
    name: Option<Box<str>>,
    pub(super) subject: Arc<Subject>,
    pub(super) rights: Arc<Rights>,
    pub(super) tried: Option<Box<Tried>>,
    tools: Option<Box<NameRules>>,
    life: Life,
    last_used: AtomicI64,
    standing: Standing,
}

/// How a token is found that cannot be looked up.
#[derive(Debug)]
pub(super) struct Tried {
    pub(super) prefix: Box<str>,
    pub(super) hash: BcryptHash,
}

/// How a token stands apart from the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Active,
    Suspended,
    Unlisted,
    /// Made for a longer life than the policy allows.
    Overlong,
}

/// The moments of a token's life, in microseconds since the epoch; what never comes lies at the end
/// of time.
#[derive(Debug)]
struct Life {
    not_before: i64,
    expires_at: i64,
    revoked_at: i64,
}

const NEVER: i64 = i64::MAX;

impl Life {
    fn of(record: &TokenRecord, not_before: Option<Timestamp>) -> Self {
        Self {
            not_before: not_before.map_or(i64::MIN, Timestamp::as_microsecond),
            expires_at: record.expires_at.map_or(NEVER, Timestamp::as_microsecond),
            revoked_at: record.revoked_at.map_or(NEVER, Timestamp::as_microsecond),
        }
    }
}

fn moment(microsecond: i64) -> Option<Timestamp> {
    Timestamp::from_microsecond(microsecond).ok().filter(|_| microsecond != NEVER)
}

impl Grant {
    /// The kind of credential, as the audit record and the upstream are told.
    pub const SOURCE: &str = "pat";

    pub(super) fn new(
        record: &TokenRecord,
        name: Option<Box<str>>,
        subject: Arc<Subject>,
        rights: Arc<Rights>,
        tried: Option<Box<Tried>>,
        not_before: Option<Timestamp>,
        standing: Standing,
    ) -> Self {
        Self {
            id: record.id.clone(),
            name,
            subject,
            rights,
            tried,
            tools: record.tools.clone().map(Box::new),
            life: Life::of(record, not_before),
            last_used: AtomicI64::new(0),
            standing,
        }
    }

    /// What speaks against the token at this moment; a revocation before all else.
    pub(crate) fn objection(&self, now: Timestamp) -> Option<Reason> {
        let now = now.as_microsecond();
        if self.life.revoked_at <= now {
            return Some(Reason::Revoked);
        }
        match self.standing {
            Standing::Active => {}
            Standing::Suspended => return Some(Reason::UserSuspended),
            Standing::Unlisted => return Some(Reason::UserUnknown),
            Standing::Overlong => return Some(Reason::LifetimeExceeded),
        }
        if now < self.life.not_before {
            return Some(Reason::NotYetValid);
        }
        (self.life.expires_at <= now).then_some(Reason::Expired)
    }

    /// Whether the policy holds the token for too long-lived.
    pub(super) fn is_overlong(&self) -> bool {
        self.standing == Standing::Overlong
    }

    /// Whether another state of the same token may do something that this one may not, or is somebody else's.
    pub(super) fn lacks_a_right_of(&self, other: &Self) -> bool {
        let narrower = self.tools.is_some() && self.tools != other.tools;
        let somebody_else = !self.subject.stands_for(&other.subject);
        narrower || somebody_else || other.rights.scopes.iter().any(|scope| !self.rights.scopes.contains(scope))
    }

    /// The token's public id.
    pub fn token_id(&self) -> &TokenId {
        &self.id
    }

    /// What its owner calls it.
    pub fn token_name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The id of its user.
    pub fn user(&self) -> &str {
        self.subject.user()
    }

    /// What it may do, by its own scopes and its user's roles; nothing where neither names any.
    pub fn scopes(&self) -> &[Scope] {
        &self.rights.scopes
    }

    /// What it may call; `None` where that depends on nothing, and a body need not be read.
    pub fn calls(&self) -> Option<Calls<'_>> {
        let own = self.tools.as_deref();
        let depends = self.rights.has_policy || own.is_some();
        depends.then(|| Calls { rights: &self.rights.calls, own, without_scopes: false })
    }

    /// The organisation of its user.
    pub fn org(&self) -> Option<&str> {
        self.subject.org()
    }

    /// The hash to try, for a token that cannot be looked up by its digest.
    pub fn bcrypt(&self) -> Option<&BcryptHash> {
        self.tried.as_ref().map(|tried| &tried.hash)
    }

    /// The moment at which the token expires.
    pub fn expires_at(&self) -> Option<Timestamp> {
        moment(self.life.expires_at)
    }

    /// The moment from which on the token is dead, be it that it expires or that it is revoked then.
    pub fn ends_at(&self) -> Option<Timestamp> {
        moment(self.life.expires_at.min(self.life.revoked_at))
    }

    /// Notes a use, to the second; earlier ones than noted change nothing.
    pub fn touch(&self, now: Timestamp) {
        let second = now.as_second();
        // most requests come within the second of the one before: a read is all they cost
        if self.last_used.load(Ordering::Relaxed) < second {
            self.last_used.fetch_max(second, Ordering::Relaxed);
        }
    }

    /// The last use that this process knows of.
    pub fn last_used(&self) -> Option<Timestamp> {
        let second = self.last_used.load(Ordering::Relaxed);
        Timestamp::from_second(second).ok().filter(|_| second > 0)
    }
}
