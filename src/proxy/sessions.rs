//! Whose session is whose. A session belongs to the user for whom it was made, not to a token, so
//! that rotation keeps it and theft is of no use.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
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
#[derive(Debug)]
pub(super) struct Named {
    sessions: Vec<SessionKey>,
    /// The first one as its header has it: most answers repeat it.
    as_sent: Option<HeaderValue>,
}

impl Named {
    /// The first one.
    pub(super) fn first(&self) -> Option<&SessionKey> {
        self.sessions.first()
    }
}

/// What a user claims by a request, should the upstream accept it: the sessions in it that are nobody's as yet.
#[derive(Debug)]
pub(super) struct Claims {
    sessions: Vec<SessionKey>,
    as_sent: Option<HeaderValue>,
}

impl Claims {
    /// Claims the sessions that the head of an answer names as well; returns the first of them. One that the request
    /// had in its header is known already.
    pub(super) fn add(&mut self, answer: &HeaderMap) -> Option<&SessionKey> {
        let before = self.sessions.len();
        let others = answer.get_all(MCP_SESSION_ID).iter().filter(|value| Some(*value) != self.as_sent.as_ref());
        self.sessions.extend(others.map(|value| key(value.as_bytes())));
        self.sessions.get(before)
    }
}

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

    /// What `user` claims by naming these sessions; nothing if one of them is somebody else's.
    pub(super) fn may_use(&self, named: Named, user: &str) -> Option<Claims> {
        let Named { mut sessions, as_sent } = named;
        let mut is_hers = true;
        sessions.retain(|session| {
            let owner = self.owners.get(session);
            is_hers &= owner.as_ref().is_none_or(|owner| **owner == *user);
            owner.is_none()
        });
        is_hers.then_some(Claims { sessions, as_sent })
    }

    /// The upstream accepted these sessions from `user`, or made one for her: hers they are, unless
    /// they are somebody's by now.
    pub(super) fn claim(&self, claims: Claims, user: &str) {
        for session in claims.sessions {
            self.owners.entry(session).or_insert_with(|| user.into());
        }
    }
}

/// The sessions that a request names, in its header or, with the older transport, in its query.
pub(super) fn named(headers: &HeaderMap, uri: &Uri) -> Named {
    let in_header = headers.get_all(MCP_SESSION_ID);
    let mut sessions: Vec<_> = in_header.iter().map(|value| key(value.as_bytes())).collect();
    if let Some(query) = uri.query() {
        // decoded as an upstream would, so that no spelling of the name goes unseen
        let pairs = form_urlencoded::parse(query.as_bytes());
        sessions.extend(pairs.filter(|(name, _)| is_session_name(name)).map(|(_, id)| key(id.as_bytes())));
    }
    Named { sessions, as_sent: in_header.iter().next().cloned() }
}

/// Whether a request names its session in the query, as the older transport does.
pub(super) fn in_query(uri: &Uri) -> bool {
    let query = uri.query().unwrap_or_default();
    form_urlencoded::parse(query.as_bytes()).any(|(name, _)| is_session_name(&name))
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

    fn in_query(id: &str) -> Named {
        named(&HeaderMap::new(), &format!("/message?sessionId={id}").parse().unwrap())
    }

    /// Whether the user may name these sessions; the upstream accepts that.
    fn uses(sessions: &Sessions, named: Named, user: &str) -> bool {
        sessions.may_use(named, user).map(|claims| sessions.claim(claims, user)).is_some()
    }

    #[test]
    fn a_session_belongs_to_the_user_for_whom_it_was_made() {
        let sessions = sessions();
        let nothing = HeaderMap::new();
        let mut claims = sessions.may_use(named(&nothing, &Uri::from_static("/mcp")), "alice").unwrap();
        assert_eq!(claims.add(&in_header("s1")), Some(&key(b"s1")));
        sessions.claim(claims, "alice");
        let named = || named(&in_header("s1"), &Uri::from_static("/mcp"));
        assert!(sessions.may_use(named(), "bob").is_none());
        assert!(sessions.may_use(named(), "alice").is_some());
    }

    #[test]
    fn a_session_belongs_to_who_was_accepted_first() {
        let sessions = sessions();
        let (alice, bob) = (sessions.may_use(in_query("s1"), "alice"), sessions.may_use(in_query("s1"), "bob"));
        sessions.claim(bob.unwrap(), "bob");
        sessions.claim(alice.unwrap(), "alice");
        assert!(!uses(&sessions, in_query("s1"), "alice"));
        assert!(uses(&sessions, in_query("s1"), "bob"));
    }

    #[test]
    fn one_session_of_somebody_else_is_too_many() {
        let sessions = sessions();
        assert!(uses(&sessions, in_query("hers"), "alice") && uses(&sessions, in_query("his"), "bob"));
        for both in ["hers&sessionId=his", "his&sessionId=hers", "his&sessionId=new"] {
            assert!(!uses(&sessions, in_query(both), "alice"), "{both}");
        }
        assert!(uses(&sessions, in_query("new"), "bob"), "who was turned away has claimed nothing");
    }

    #[test]
    fn an_answer_that_repeats_the_session_of_its_request_names_no_other() {
        let sessions = sessions();
        let ask = |id| sessions.may_use(named(&in_header(id), &Uri::from_static("/mcp")), "alice").unwrap();
        assert_eq!(ask("s1").add(&in_header("s1")), None);
        assert_eq!(ask("s1").add(&in_header("s2")), Some(&key(b"s2")));
        sessions.claim(ask("s1"), "alice");
        // it is known by now, and the one that is new is told of all the same
        assert_eq!(ask("s1").add(&in_header("s2")), Some(&key(b"s2")));
        assert!(!uses(&sessions, in_query("s1"), "bob"));
    }

    #[test]
    fn a_new_session_is_kept_however_often_the_old_ones_were_used() {
        let sessions = sessions();
        for _ in 0..50 {
            for old in 0..100 {
                assert!(uses(&sessions, in_query(&old.to_string()), "bob"));
            }
        }
        assert!(uses(&sessions, in_query("new"), "alice"));
        sessions.owners.run_pending_tasks();
        assert!(!uses(&sessions, in_query("new"), "bob"));
    }

    #[test]
    fn every_spelling_in_the_query_is_the_same_session() {
        let sessions = sessions();
        let of = |target: &'static str| named(&HeaderMap::new(), &Uri::from_static(target));
        assert!(uses(&sessions, of("/message?sessionId=a-b"), "alice"));
        for target in [
            "/message?sessionId=a-b",
            "/message?x=1&session_id=a-b",
            "/message?%73essionId=a%2Db",
            "/message?SESSIONID=a-b&y",
            "/message?sessionId[]=a-b",
            "/message?session_id%5B0%5D=a-b",
            "/message?sessionId=other&sessionId=a-b",
        ] {
            assert!(!uses(&sessions, of(target), "bob"), "{target}");
        }
        assert!(uses(&sessions, of("/message?sessionId=other"), "bob"));
    }
}
