//! The proof that a request may pass. Only the directory makes one; forwarding takes one.

use std::fmt;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use jiff::Timestamp;

use super::directory::Generation;
use super::identity::{Subject, TokenIdentity};

/// What the list says about one token, ready to be asked on every request.
#[derive(Debug)]
pub struct Grant {
    pub(super) identity: TokenIdentity,
    pub(super) name: Option<Box<str>>,
    pub(super) subject: Arc<Subject>,
    pub(super) not_before: Option<Timestamp>,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) revoked_at: Option<Timestamp>,
}

impl Grant {
    /// The kind of credential, as the audit record and the upstream are told.
    pub const SOURCE: &str = "pat";

    /// The token's public id.
    pub fn token_id(&self) -> &str {
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
    generation: Generation,
}

impl Permit {
    pub(super) fn new(grant: &Arc<Grant>, generation: Generation) -> Self {
        Self { grant: Arc::clone(grant), generation }
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
