//! Whose session is whose. A session belongs to the user for whom it was made, not to a token, so
//! that rotation keeps it and theft is of no use.

use std::borrow::Cow;
use std::iter;
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

/// Why an answer is not passed on that names a session which [`Sessions::claim`] does not grant.
pub(super) const NOT_HERS: &str = "the MCP server gave out a session that is somebody else's";

/// The most sessions that a request may name. Each may take a place in the table.
const MOST: usize = 4;

/// A SHA-256: of one size, and nothing that could be used if it leaked.
type Sha256Of = [u8; 32];

/// The SHA-256 of a session's id, or of what all spellings of it have in common.
pub(super) type SessionKey = Sha256Of;

/// The sessions that a request names, and then its answer; mostly one or none.
#[derive(Debug)]
pub(super) struct Named {
    sessions: Vec<SessionKey>,
    /// The SHA-256 of the first one as it was sent.
    first: Option<Sha256Of>,
    /// The first one as its header has it: most answers repeat it.
    as_sent: Option<HeaderValue>,
}

impl Named {
    /// The SHA-256 of the first id.
    pub(super) fn first(&self) -> Option<&Sha256Of> {
        self.first.as_ref()
    }

    /// All of them.
    pub(super) fn into_keys(self) -> Vec<SessionKey> {
        self.sessions
    }

    /// Adds those that the head of an answer names; returns the SHA-256 of the first id, unless it is the one that the
    /// request had in its header, and so is there already.
    pub(super) fn add(&mut self, answer: &HeaderMap) -> Option<Sha256Of> {
        let is_other = |value: &&HeaderValue| !value.is_empty() && Some(*value) != self.as_sent.as_ref();
        let values = answer.get_all(MCP_SESSION_ID);
        self.sessions.extend(values.iter().filter(is_other).map(|value| key(value.as_bytes())));
        values.iter().next().filter(is_other).map(|value| Sha256::digest(value.as_bytes()).into())
    }
}

impl Sessions {
    /// An empty table.
    pub fn new(params: &Params) -> Self {
        let owners = Cache::builder().max_capacity(params.capacity).time_to_idle(params.idle);
        // moka's own choice may turn a new session away, and it would be nobody's
        Self { owners: owners.eviction_policy(EvictionPolicy::lru()).build() }
    }

    /// How many sessions are remembered. The table counts those that have just come and gone when it is told to.
    pub fn count(&self) -> u64 {
        self.owners.run_pending_tasks();
        self.owners.entry_count()
    }

    /// Whether `user` may use every session that she names.
    pub(super) fn may_use(&self, named: &Named, user: &str) -> bool {
        named.sessions.iter().all(|session| self.owners.get(session).is_none_or(|owner| *owner == *user))
    }

    /// Whether each session that the header names is known to be `user`'s, if it names any. The query does not count:
    /// only the older transport reads it, which resumes nothing.
    pub(super) fn are_known(&self, headers: &HeaderMap, user: &str) -> Option<bool> {
        let is_known = |id: &HeaderValue| self.owners.get(&key(id.as_bytes())).is_some_and(|owner| *owner == *user);
        headers.contains_key(MCP_SESSION_ID).then(|| headers.get_all(MCP_SESSION_ID).iter().all(is_known))
    }

    /// The upstream accepted these sessions from `user`, or made one for her: hers they are, unless
    /// they are somebody's already. Says whether all are hers: otherwise she must not hear of them.
    #[must_use]
    pub(super) fn claim(&self, named: &Named, user: &str) -> bool {
        let owner = |session: &SessionKey| {
            // it may have been forgotten since it was looked up
            let insert = || self.owners.entry(*session).or_insert_with(|| user.into()).into_value();
            self.owners.get(session).unwrap_or_else(insert)
        };
        named.sessions.iter().all(|session| *owner(session) == *user)
    }

    /// `user` has an answer open in these sessions, which is as good as a request of hers.
    pub(super) fn keep(&self, sessions: &[SessionKey], user: &str) {
        for session in sessions {
            self.owners.entry(*session).or_insert_with(|| user.into());
        }
    }
}

/// The sessions that a request names, in its header or, with the older transport, in its query. Nothing if there are
/// more than anybody has cause to name, or an id that is not visible ASCII: MCP knows none, and readers differ about it.
pub(super) fn named(headers: &HeaderMap, uri: &Uri) -> Option<Named> {
    let (mut sessions, mut first) = (Vec::new(), None);
    let mut add = |id: &[u8]| {
        // who sends an empty id names none
        if !id.is_empty() {
            first.get_or_insert_with(|| Sha256::digest(id).into());
            sessions.push(key(id));
        }
        id.iter().all(u8::is_ascii_graphic)
    };
    let in_header = headers.get_all(MCP_SESSION_ID);
    let mut are_good = in_header.iter().all(|value| add(value.as_bytes()));
    are_good &= of_query(uri).all(|id| add(id.as_bytes()));
    let named = Named { sessions, first, as_sent: in_header.iter().next().cloned() };
    (are_good && named.sessions.len() <= MOST).then_some(named)
}

/// Whether a request names its session in the query, as the older transport does.
pub(super) fn in_query(uri: &Uri) -> bool {
    of_query(uri).next().is_some()
}

/// The ids in the query, decoded as an upstream would, whichever of the two separators it knows.
fn of_query(uri: &Uri) -> impl Iterator<Item = Cow<'_, str>> {
    let query = uri.query().unwrap_or_default();
    let pieces = query.contains(';').then(|| query.split(';')).into_iter().flatten();
    let pairs = iter::once(query).chain(pieces).flat_map(|piece| form_urlencoded::parse(piece.as_bytes()));
    pairs.filter(|(name, _)| is_session_name(name)).map(|(_, id)| id)
}

/// Whether a parser could take a name for that of a session: some make lists of brackets, wherever they stand, and
/// some make one character of all that are no letters.
fn is_session_name(name: &str) -> bool {
    let is_session_id = |text: &str| alphanumeric(text).eq(*b"sessionid");
    is_session_id(name) || name.split(['[', ']']).any(is_session_id)
}

/// Letters in lower case, and digits.
fn alphanumeric(text: &str) -> impl Iterator<Item = u8> {
    text.bytes().filter(u8::is_ascii_alphanumeric).map(|byte| byte.to_ascii_lowercase())
}

/// The older transport of the Python SDK takes ids in its query for all that `uuid.UUID` reads: in any case, with hyphens,
/// braces and prefixes anywhere, and of leading zeros what a number may have instead. They are one id. All others are
/// what they are.
fn key(id: &[u8]) -> SessionKey {
    const DIGITS: usize = 32;

    let mut text = String::from_utf8_lossy(id).to_ascii_lowercase();
    if text.contains(':') {
        text = text.replace("urn:", "").replace("uuid:", "");
    }
    if text.bytes().filter(|byte| !b"{}-".contains(byte)).count() != DIGITS {
        return Sha256::digest(id).into();
    }
    let digits: Vec<u8> = alphanumeric(&text).skip_while(|byte| b"0x".contains(byte)).collect();
    Sha256::digest(digits).into()
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

    fn named(headers: &HeaderMap, target: &str) -> Named {
        super::named(headers, &target.parse().unwrap()).unwrap()
    }

    fn in_query(id: &str) -> Named {
        named(&HeaderMap::new(), &format!("/message?sessionId={id}"))
    }

    /// Whether the user may name these sessions; the upstream accepts that.
    fn uses(sessions: &Sessions, named: &Named, user: &str) -> bool {
        sessions.may_use(named, user) && sessions.claim(named, user)
    }

    #[test]
    fn a_session_belongs_to_the_user_for_whom_it_was_made() {
        let sessions = sessions();
        let of = |id| named(&in_header(id), "/mcp");
        let mut initialize = named(&HeaderMap::new(), "/mcp");
        assert!(sessions.may_use(&initialize, "alice"));
        assert_eq!(initialize.add(&in_header("s1")), Some(Sha256::digest("s1").into()));
        assert!(sessions.claim(&initialize, "alice"));
        assert!(uses(&sessions, &of("s1"), "alice"));
        assert!(!uses(&sessions, &of("s1"), "bob"));
        assert!(!sessions.claim(&of("s1"), "bob"));
        assert!(uses(&sessions, &of("s1"), "alice"), "who came first keeps it");
    }

    #[test]
    fn a_session_that_nobody_has_is_not_known_to_be_anybodys() {
        let sessions = sessions();
        assert!(sessions.claim(&named(&in_header("hers"), "/mcp"), "alice"));
        assert_eq!(sessions.are_known(&in_header("hers"), "alice"), Some(true));
        for (id, user) in [("hers", "bob"), ("new", "alice"), ("", "alice")] {
            assert_eq!(sessions.are_known(&in_header(id), user), Some(false), "{id}");
        }
        let mut two = in_header("hers");
        two.append(MCP_SESSION_ID, HeaderValue::from_static(""));
        assert_eq!(sessions.are_known(&two, "alice"), Some(false), "each of them, whichever a server reads");
        assert_eq!(sessions.are_known(&HeaderMap::new(), "alice"), None);
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
        let mut named = named(&in_header("s1"), "/mcp");
        assert!(uses(&sessions, &named, "alice"));
        sessions.owners.invalidate_all();
        assert_eq!(named.add(&in_header("s1")), None);
        assert!(sessions.claim(&named, "alice"));
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
            let mut named = named(&fields(request), "/mcp");
            assert_eq!(named.add(&fields(answer)), told.map(|id: &str| Sha256::digest(id).into()), "{answer:?}");
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
    fn a_session_that_is_kept_is_not_the_one_that_is_used_least() {
        let sessions = sessions();
        let hers = in_query("hers");
        assert!(uses(&sessions, &hers, "alice"));
        for other in 0..1000 {
            assert!(uses(&sessions, &in_query(&other.to_string()), "bob"));
            if other % 50 == 0 {
                sessions.keep(&hers.sessions, "alice");
                sessions.owners.run_pending_tasks();
            }
        }
        assert!(!uses(&sessions, &hers, "bob"));
        sessions.owners.invalidate_all();
        sessions.keep(&hers.sessions, "alice");
        assert!(!uses(&sessions, &hers, "bob"), "and if it was forgotten, it is hers again");
        sessions.keep(&hers.sessions, "bob");
        assert!(uses(&sessions, &hers, "alice"), "unless it is somebody's");
    }

    #[test]
    fn every_spelling_in_the_query_is_the_same_session() {
        let sessions = sessions();
        let of = |target: &str| named(&HeaderMap::new(), target);
        assert!(uses(&sessions, &of("/message?sessionId=00d4fae0-7dec-41d0-a765-00a0c91e6bf6"), "alice"));
        for query in [
            "sessionId=00d4fae0-7dec-41d0-a765-00a0c91e6bf6",
            "x=1&session_id=00d4fae0-7dec-41d0-a765-00a0c91e6bf6",
            "%73essionId=00d4fae0%2D7dec-41d0-a765-00a0c91e6bf6",
            "SESSIONID=00d4fae0-7dec-41d0-a765-00a0c91e6bf6&y",
            "sessionId[]=00d4fae0-7dec-41d0-a765-00a0c91e6bf6",
            "session_id%5B0%5D=00d4fae0-7dec-41d0-a765-00a0c91e6bf6",
            "[sessionId]=00d4fae0-7dec-41d0-a765-00a0c91e6bf6",
            "%5BsessionId%5D[]=00d4fae0-7dec-41d0-a765-00a0c91e6bf6",
            "session.id=00d4fae0-7dec-41d0-a765-00a0c91e6bf6",
            "session[id=00d4fae0-7dec-41d0-a765-00a0c91e6bf6",
            "sessionId=other&sessionId=00d4fae0-7dec-41d0-a765-00a0c91e6bf6",
            "x=1;session_id=00d4fae0-7dec-41d0-a765-00a0c91e6bf6",
            "sessionId=00D4FAE0-7DEC-41D0-A765-00A0C91E6BF6",
            "sessionId=00d4fae07dec41d0a76500a0c91e6bf6",
            "sessionId={00d4fae0-7dec41d0a76500a0c91e6bf6}",
            "sessionId=urn:uuid:%7B00d4fae0-7dec-41d0-a765-00a0c91e6bf6%7D",
            "sessionId=00d4fae0-7decurn:-41d0-a765-00a0c91e6bf6",
            "sessionId=0xd4fae0-7dec-41d0-a765-00a0c91e6bf6",
            "sessionId=%2B0d4fae0-7dec-41d0-a765-00a0c91e6bf6",
            "sessionId=d4fa_e07_dec-41d0-a765-00a0c91e6bf6",
        ] {
            assert!(!uses(&sessions, &of(&format!("/message?{query}")), "bob"), "{query}");
        }
        for query in [
            "sessionId=other",
            "x=00d4fae0-7dec-41d0-a765-00a0c91e6bf6",
            "requireSessionId=00d4fae0-7dec-41d0-a765-00a0c91e6bf6",
            "sessionId=;x=1",
            "sessionId",
        ] {
            assert!(uses(&sessions, &of(&format!("/message?{query}")), "bob"), "{query}");
        }
    }

    #[test]
    fn ids_that_are_no_uuids_are_what_they_are() {
        let sessions = sessions();
        for (number, id) in ["1-11", "11-1", "0", "00", "x", "aB", "ab", "1.5", "15"].iter().enumerate() {
            assert!(uses(&sessions, &in_query(id), &format!("user{number}")), "{id}");
        }
    }

    #[test]
    fn an_id_that_readers_differ_about_and_more_than_a_few_are_not_taken() {
        let of = |target: &str, id: &'static [u8]| {
            let id = HeaderValue::from_bytes(id).unwrap();
            super::named(&[(MCP_SESSION_ID, id)].into_iter().collect(), &target.parse().unwrap())
        };
        for id in [&b" s1"[..], b"s1 ", b"s\t1", b"s1\xa0", b"s\xc3\xa4", b"s1, s2"] {
            assert!(of("/mcp", id).is_none(), "{id:?}");
        }
        for id in ["%20s1", "s1+", "%D9%A0", "%00", "s%7F"] {
            assert!(of(&format!("/mcp?sessionId={id}"), b"s1").is_none(), "{id}");
        }
        assert!(of("/mcp?sessionId=2&sessionId=3&sessionId=4", b"s1").is_some());
        assert!(of("/mcp?sessionId=2&sessionId=3&sessionId=4&sessionId=5", b"s1").is_none());
        let none = of("/mcp", b"").unwrap();
        assert!(none.sessions.is_empty() && none.first().is_none(), "an empty one is none");
    }
}
