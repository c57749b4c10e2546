//! Whose session is whose. A session belongs to the user for whom it was made, not to a token, so
//! that rotation keeps it and theft is of no use.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, Uri};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use sha2::{Digest, Sha256};

const MCP_SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");

/// The settings of the session table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    /// How many sessions are remembered.
    pub capacity: u64,
    /// For how long one is remembered without being used.
    pub idle: Duration,
}

/// The owners of sessions. A session that is not known, after a restart for instance, goes to the
/// first user whose use of it the upstream accepts.
#[derive(Clone, Debug)]
pub struct Sessions {
    owners: Cache<SessionKey, Arc<str>>,
}

/// The SHA-256 of a session's id: of one size, and nothing that could be used if it leaked.
type SessionKey = [u8; 32];

/// The sessions that a request names; mostly one or none.
pub(super) type Named = Vec<SessionKey>;

impl Sessions {
    /// An empty table.
    pub fn new(params: &Params) -> Self {
        let owners = Cache::builder().max_capacity(params.capacity).time_to_idle(params.idle);
        // moka's own choice may turn a new session away, and it would be nobody's
        Self { owners: owners.eviction_policy(EvictionPolicy::lru()).build() }
    }

    /// How many sessions are remembered, give or take those that have just come and gone.
    pub fn count(&self) -> u64 {
        self.owners.entry_count()
    }

    /// Whether `user` may use every session that she names.
    pub(super) fn may_use(&self, named: &Named, user: &str) -> bool {
        named.iter().all(|session| self.owners.get(session).is_none_or(|owner| *owner == *user))
    }

    /// The upstream accepted these sessions from `user`, or made one for her: hers they are, unless
    /// they are somebody's already.
    pub(super) fn claim(&self, sessions: impl Iterator<Item = SessionKey>, user: &str) {
        for session in sessions {
            if !self.owners.contains_key(&session) {
                self.owners.entry(session).or_insert_with(|| user.into());
            }
        }
    }
}

/// The sessions that a request names, in its header or, with the older transport, in its query.
pub(super) fn named(headers: &HeaderMap, uri: &Uri) -> Named {
    let in_query = uri.query().into_iter().flat_map(|query| {
        // decoded as an upstream would, so that no spelling of the name goes unseen
        let pairs = form_urlencoded::parse(query.as_bytes());
        pairs.filter(|(name, _)| is_session_name(name)).map(|(_, id)| key(id.as_bytes())).collect::<Vec<_>>()
    });
    let mut named = in_headers(headers);
    named.extend(in_query);
    named
}

/// Whether a request names its session in the query, as the older transport does.
pub(super) fn in_query(uri: &Uri) -> bool {
    let query = uri.query().unwrap_or_default();
    form_urlencoded::parse(query.as_bytes()).any(|(name, _)| is_session_name(&name))
}

pub(super) fn in_headers(headers: &HeaderMap) -> Named {
    headers.get_all(MCP_SESSION_ID).iter().map(|value| key(value.as_bytes())).collect()
}

/// A bracket makes a list of the value for some parsers, and the list of one is as good as the value.
fn is_session_name(name: &str) -> bool {
    let name = name.split('[').next().unwrap_or_default();
    name.eq_ignore_ascii_case("sessionId") || name.eq_ignore_ascii_case("session_id")
}

fn key(id: &[u8]) -> SessionKey {
    Sha256::digest(id).into()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn sessions() -> Sessions {
        Sessions::new(&Params { capacity: 100, idle: Duration::from_hours(1) })
    }

    fn in_header(id: &'static str) -> HeaderMap {
        [(MCP_SESSION_ID, HeaderValue::from_static(id))].into_iter().collect()
    }

    #[test]
    fn a_session_belongs_to_the_user_for_whom_it_was_made() {
        let sessions = sessions();
        let named = named(&in_header("s1"), &Uri::from_static("/mcp"));
        sessions.claim(in_headers(&in_header("s1")).into_iter(), "alice");
        assert!(sessions.may_use(&named, "alice"));
        assert!(!sessions.may_use(&named, "bob"));
        sessions.claim(named.clone().into_iter(), "bob");
        assert!(sessions.may_use(&named, "alice") && !sessions.may_use(&named, "bob"));
    }

    #[test]
    fn a_new_session_is_kept_however_often_the_old_ones_were_used() {
        let sessions = sessions();
        let of = |id: &str| named(&HeaderMap::new(), &format!("/message?sessionId={id}").parse().unwrap());
        for _ in 0..50 {
            for old in 0..100 {
                sessions.claim(of(&old.to_string()).into_iter(), "bob");
                assert!(sessions.may_use(&of(&old.to_string()), "bob"));
            }
        }
        sessions.claim(of("new").into_iter(), "alice");
        sessions.owners.run_pending_tasks();
        assert!(!sessions.may_use(&of("new"), "bob"));
    }

    #[test]
    fn every_spelling_in_the_query_is_the_same_session() {
        let sessions = sessions();
        let of = |target: &'static str| named(&HeaderMap::new(), &Uri::from_static(target));
        sessions.claim(of("/message?sessionId=a-b").into_iter(), "alice");
        for target in [
            "/message?sessionId=a-b",
            "/message?x=1&session_id=a-b",
            "/message?%73essionId=a%2Db",
            "/message?SESSIONID=a-b&y",
            "/message?sessionId[]=a-b",
            "/message?session_id%5B0%5D=a-b",
            "/message?sessionId=other&sessionId=a-b",
        ] {
            assert!(!sessions.may_use(&of(target), "bob"), "{target}");
        }
        assert!(sessions.may_use(&of("/message?sessionId=other"), "bob"));
    }
}
