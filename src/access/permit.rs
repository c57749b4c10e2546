//! The proof that a request may pass. Only the directory makes one; forwarding takes one.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use http::{HeaderName, HeaderValue};
use jiff::Timestamp;

use super::directory::Generation;
use super::identity::{Subject, TokenIdentity};
use crate::token::{BcryptHash, Scope, TokenDigest, TokenId, TokenRecord};

/// What the list says about one token, ready to be asked on every request.
#[derive(Debug)]
pub struct Grant {
    pub(super) identity: TokenIdentity,
    pub(super) subject: Arc<Subject>,
    pub(super) tried: Option<Box<Tried>>,
    name: Option<Box<str>>,
    scopes: Arc<[Scope]>,
    last_used: AtomicI64,
    pub(super) not_before: Option<Timestamp>,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) revoked_at: Option<Timestamp>,
}

/// How a token is found that cannot be looked up.
#[derive(Debug)]
pub(super) struct Tried {
    pub(super) prefix: Box<str>,
    pub(super) hash: BcryptHash,
}

impl Grant {
    pub(super) fn new(
        identity: TokenIdentity,
        subject: Arc<Subject>,
        scopes: Arc<[Scope]>,
        tried: Option<Box<Tried>>,
        record: &TokenRecord,
    ) -> Self {
        Self {
            identity,
            subject,
            tried,
            name: record.name.clone(),
            scopes,
            last_used: AtomicI64::new(0),
            not_before: record.not_before,
            expires_at: record.expires_at,
            revoked_at: record.revoked_at,
        }
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

    /// The moment from which on the token is dead.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at
    }

    /// Whether another state of the same token may do something that this one may not.
    pub(super) fn lacks_a_right_of(&self, other: &Self) -> bool {
        !Arc::ptr_eq(&self.scopes, &other.scopes) && other.scopes.iter().any(|scope| !self.scopes.contains(scope))
    }

    /// The kind of credential, as the audit record and the upstream are told.
    pub const SOURCE: &str = "pat";

    /// The token's public id.
    pub fn token_id(&self) -> &TokenId {
        self.identity.token_id()
    }

    /// What its owner calls it.
    pub fn token_name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The id of its user.
    pub fn user(&self) -> &str {
        self.subject.user()
    }

    /// The organisation of its user.
    pub fn org(&self) -> Option<&str> {
        self.subject.org()
    }
}

/// Leave to forward one request, given by [`Directory::authenticate`](super::Directory::authenticate)
/// and by nothing else.
#[derive(Clone)]
pub struct Permit {
    grant: Arc<Grant>,
    digest: TokenDigest,
    generation: Generation,
}

impl Permit {
    pub(super) fn new(grant: &Arc<Grant>, digest: TokenDigest, generation: Generation) -> Self {
        Self { grant: Arc::clone(grant), digest, generation }
    }

    pub(super) fn digest(&self) -> &TokenDigest {
        &self.digest
    }

    /// What the list says about the token.
    pub fn grant(&self) -> &Arc<Grant> {
        &self.grant
    }

    /// The state of the list that this permit was given by.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The headers that tell the upstream who calls.
    pub fn identity(&self) -> impl Iterator<Item = &(HeaderName, HeaderValue)> {
        self.grant.subject.headers().chain(self.grant.identity.headers())
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Permit({} of {})", self.grant.token_id(), self.grant.user())
    }
}
