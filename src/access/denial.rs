//! Why somebody may not come in: the exact reason for the log, and what the client is told of it.

use std::sync::Arc;

use http::StatusCode;

use super::grant::Grant;
use crate::verdict::Reason;

/// A refusal. It knows the token where there is one, so that the audit record can name it.
#[derive(Clone, Debug)]
pub struct Denial {
    reason: Reason,
    grant: Option<Arc<Grant>>,
}

impl Denial {
    pub(super) fn of(reason: Reason) -> Self {
        Self { reason, grant: None }
    }

    pub(super) fn new(reason: Reason, grant: Option<&Arc<Grant>>) -> Self {
        Self { reason, grant: grant.cloned() }
    }

    /// The exact reason, for the audit record; the client is told less.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// What is known about the token that was sent, for the audit record.
    pub fn grant(&self) -> Option<&Arc<Grant>> {
        self.grant.as_ref()
    }

    /// The status of the answer: 400 for what cannot be read, 503 for our own trouble, 401 else.
    pub fn status(&self) -> StatusCode {
        match self.reason {
            Reason::MalformedCredential => StatusCode::BAD_REQUEST,
            Reason::SourceUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::UNAUTHORIZED,
        }
    }
}
