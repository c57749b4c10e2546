//! The words of a verdict, as the audit record, the metrics and the documentation spell them.

use serde::Serialize;
use strum::{IntoStaticStr, VariantArray};

/// How a request was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr, Serialize, VariantArray)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Outcome {
    /// It was forwarded.
    Allowed,
    /// It was refused for what the client sent.
    Denied,
    /// It failed for a trouble that is not the client's.
    Error,
}

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr, Serialize, VariantArray)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Reason {
    /// Nothing spoke against it.
    Ok,
    /// No `Authorization` header.
    MissingCredential,
    /// An `Authorization` header that cannot be read as one bearer token.
    MalformedCredential,
    /// The client left, or the process ended, before there was a verdict.
    NotJudged,
    /// A token that is not in the list.
    UnknownToken,
    /// A token with our prefix and a wrong checksum.
    BadChecksum,
    /// A token past its expiry.
    Expired,
    /// A token before its time.
    NotYetValid,
    /// A token made for a longer life than the operator allows.
    LifetimeExceeded,
    /// A token that was revoked.
    Revoked,
    /// A token of a suspended user.
    UserSuspended,
    /// A token of a user who is not listed.
    UserUnknown,
    /// A token that lacks a right.
    InsufficientScope,
    /// A browser's request from an origin that is not allowed.
    BadOrigin,
    /// A request that is not understood, or that is not allowed to be understood in two ways.
    MalformedRequest,
    /// A method that a proxy in front of MCP has no use for.
    MethodNotAllowed,
    /// A head or a body past its limit.
    TooLarge,
    /// More than the caller may have in this time, or at this time.
    RateLimited,
    /// More requests of one token at once than it may have.
    TooManyStreams,
    /// More connections than there may be.
    TooManyConnections,
    /// A request that began to come and did not come to an end.
    ClientTimeout,
    /// A session that belongs to somebody else, or whose user is not known where that has to be.
    SessionMismatch,
    /// A browser's preflight, answered here.
    Preflight,
    /// A client looking for OAuth, told that there is none.
    Discovery,
    /// The audit log takes no records, and the operator wants no request served without one.
    AuditUnavailable,
    /// This program failed in the middle of it.
    InternalError,
    /// It cannot be known who holds which token.
    SourceUnavailable,
    /// No descriptor is left for a connection to the upstream, or no memory for what has to be read.
    Overloaded,
    /// The upstream could not be reached, or broke off.
    UpstreamUnreachable,
    /// The upstream answered with something that must not be passed on.
    UpstreamInvalid,
    /// The upstream did not answer in time.
    UpstreamTimeout,
}

impl Reason {
    /// The outcome that this reason stands for.
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Ok | Self::Preflight => Outcome::Allowed,
            Self::AuditUnavailable
            | Self::InternalError
            | Self::TooManyConnections
            | Self::Overloaded
            | Self::SourceUnavailable
            | Self::UpstreamUnreachable
            | Self::UpstreamInvalid
            | Self::UpstreamTimeout => Outcome::Error,
            _ => Outcome::Denied,
        }
    }
}

/// How the exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr, Serialize, VariantArray)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Ended {
    /// The whole answer was handed over.
    Complete,
    /// The client left before that.
    ClientGone,
    /// The upstream broke off.
    UpstreamFailed,
    /// The token was revoked, or a right of it or its user was taken away, and the answer was cut.
    Revoked,
    /// The token came to its end, and the answer was cut.
    Expired,
    /// This process was told to stop.
    Drained,
    /// This program failed in the middle of it.
    Failed,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of an enumeration in the log, and elsewhere.
    fn words<T: VariantArray + Serialize>() -> Vec<(String, &'static str)>
    where
        &'static str: for<'t> From<&'t T>,
    {
        T::VARIANTS
            .iter()
            .map(|value| (serde_json::to_value(value).unwrap().as_str().unwrap().to_owned(), value.into()))
            .collect()
    }

    #[test]
    fn the_log_and_the_metrics_use_the_same_words() {
        let words = [words::<Outcome>(), words::<Reason>(), words::<Ended>()].concat();
        assert!(words.len() > 30, "{words:?}");
        assert!(words.iter().all(|(log, metrics)| log == metrics), "{words:?}");
        assert!(words.contains(&("insufficient_scope".to_owned(), "insufficient_scope")));
    }
}
