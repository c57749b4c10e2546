//! The proof that a request may pass. Only the directory makes one; forwarding takes one.

use std::fmt;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::directory::Generation;
use super::grant::Grant;
use crate::token::TokenDigest;

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

    /// The SHA-256 of the token that was sent.
    pub fn digest(&self) -> &TokenDigest {
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
        let Grant { subject, rights, .. } = &*self.grant;
        subject.headers().chain(rights.headers())
    }

    /// The token's public id, and the header for it, if the upstream is to know it.
    pub fn token_id_header(&self) -> Option<(HeaderName, HeaderValue)> {
        self.grant.rights.token_id_header(self.grant.token_id())
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Permit({} of {})", self.grant.token_id(), self.grant.user())
    }
}
