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

/// The sessions that a request names, and then its answer; mostly one or none.
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

    /// Adds those that the head of an answer names; returns the first of them, unless it is the one that the
    /// request had in its header, and so is there already.
    pub(super) fn add(&mut self, answer: &HeaderMap) -> Option<&SessionKey> {
        let before = self.sessions.len();
        let is_other = |value: &&HeaderValue| Some(*value) != self.as_sent.as_ref();
        let values = answer.get_all(MCP_SESSION_ID);
        self.sessions.extend(values.iter().filter(is_other).map(|value| key(value.as_bytes())));
        values.iter().next().filter(is_other)?;
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

    /// Whether `user` may use every session that she names.
    pub(super) fn may_use(&self, named: &Named, user: &str) -> bool {
        named.sessions.iter().all(|session| self.owners.get(session).is_none_or(|owner| *owner == *user))
    }

    /// The upstream accepted these sessions from `user`, or made one for her: hers they are, unless
    /// they are somebody's already.
    pub(super) fn claim(&self, named: &Named, user: &str) {
        for session in &named.sessions {
            // it may have been forgotten since it was looked up
            if !self.owners.contains_key(session) {
                self.owners.entry(*session).or_insert_with(|| user.into());
            }
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
    fn uses(sessions: &Sessions, named: &Named, user: &str) -> bool {
        let may_use = sessions.may_use(named, user);
        if may_use {
            sessions.claim(named, user);
        }
        may_use
    }

    #[test]
    fn a_session_belongs_to_the_user_for_whom_it_was_made() {
        let sessions = sessions();
        let of = |id| named(&in_header(id), &Uri::from_static("/mcp"));
        let mut initialize = named(&HeaderMap::new(), &Uri::from_static("/mcp"));
        assert!(sessions.may_use(&initialize, "alice"));
        assert_eq!(initialize.add(&in_header("s1")), Some(&key(b"s1")));
        sessions.claim(&initialize, "alice");
        assert!(uses(&sessions, &of("s1"), "alice"));
        assert!(!uses(&sessions, &of("s1"), "bob"));
        sessions.claim(&of("s1"), "bob");
        assert!(uses(&sessions, &of("s1"), "alice"), "who came first keeps it");
    }

    #[test]
    fn one_session_of_somebody_else_is_too_many() {
        let sessions = sessions();
        assert!(uses(&sessions, &in_query("hers"), "alice") && uses(&sessions, &in_query("his"), "bob"));
        for both in ["hers&sessionId=his", "his&sessionId=hers", "new&sessionId=his"] {
            assert!(!uses(&sessions, &in_query(both), "alice"), "{both}");
        }
        assert!(uses(&sessions, &in_query("new"), "bob"), "who was turned away has claimed nothing");
    }

    #[test]
    fn a_session_that_was_forgotten_meanwhile_is_its_users_again() {
        let sessions = sessions();
        let mut named = named(&in_header("s1"), &Uri::from_static("/mcp"));
        assert!(uses(&sessions, &named, "alice"));
        sessions.owners.invalidate_all();
        assert_eq!(named.add(&in_header("s1")), None);
        sessions.claim(&named, "alice");
        assert!(!uses(&sessions, &in_query("s1"), "bob"));
    }

    #[test]
    fn an_answer_tells_of_a_session_only_if_it_is_not_the_requests() {
        let [one, two] = ["s1", "s2"].map(HeaderValue::from_static);
        let fields = |values: &[&HeaderValue]| -> HeaderMap {
            values.iter().map(|value| (MCP_SESSION_ID, (*value).clone())).collect()
        };
        for (request, answer, told, all) in [
            (&[&one][..], &[&one][..], None, &["s1"][..]),
            (&[&one], &[&two], Some("s2"), &["s1", "s2"]),
            (&[&one], &[&one, &two], None, &["s1", "s2"]),
            (&[&one], &[&two, &one], Some("s2"), &["s1", "s2"]),
            (&[&one, &two], &[&one], None, &["s1", "s2"]),
            (&[], &[&one, &two], Some("s1"), &["s1", "s2"]),
            (&[&one], &[], None, &["s1"]),
        ] {
            let mut named = named(&fields(request), &Uri::from_static("/mcp"));
            assert_eq!(named.add(&fields(answer)).copied(), told.map(|id: &str| key(id.as_bytes())), "{answer:?}");
            let all: Vec<_> = all.iter().map(|id| key(id.as_bytes())).collect();
            assert_eq!(named.sessions, all, "{request:?} {answer:?}");
        }
    }

    #[test]
    fn a_new_session_is_kept_however_often_the_old_ones_were_used() {
        let sessions = sessions();
        for _ in 0..50 {
            for old in 0..100 {
                assert!(uses(&sessions, &in_query(&old.to_string()), "bob"));
            }
        }
        assert!(uses(&sessions, &in_query("new"), "alice"));
        sessions.owners.run_pending_tasks();
        assert!(!uses(&sessions, &in_query("new"), "bob"));
    }

    #[test]
    fn every_spelling_in_the_query_is_the_same_session() {
        let sessions = sessions();
        let of = |target: &'static str| named(&HeaderMap::new(), &Uri::from_static(target));
        assert!(uses(&sessions, &of("/message?sessionId=a-b"), "alice"));
        for target in [
            "/message?sessionId=a-b",
            "/message?x=1&session_id=a-b",
            "/message?%73essionId=a%2Db",
            "/message?SESSIONID=a-b&y",
            "/message?sessionId[]=a-b",
            "/message?session_id%5B0%5D=a-b",
            "/message?sessionId=other&sessionId=a-b",
        ] {
            assert!(!uses(&sessions, &of(target), "bob"), "{target}");
        }
        assert!(uses(&sessions, &of("/message?sessionId=other"), "bob"));
    }
}
