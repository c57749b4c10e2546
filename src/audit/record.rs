//! What the audit log says about one request, from the first look at it to its last byte.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use http::{HeaderValue, Method, StatusCode, Uri};
use jiff::Timestamp;
use strum::IntoStaticStr;

use super::json::{Object, key};
use super::log::AuditLog;
use super::mcp::{McpFacts, McpSource, ShownCall};
use crate::access::Grant;
use crate::digits;
use crate::token::Prefix;
use crate::trace::{Hex, TraceContext};
use crate::verdict::{Ended, Outcome, Reason};

/// The longest text from outside that a record repeats, in bytes.
const MAX_TEXT: usize = 512;

/// Names one request in our answer, towards the upstream and in the log: 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId([u8; 32]);

impl RequestId {
    /// Draws an id. It is not secret and not meant to be unguessable.
    pub fn draw() -> Self {
        Self(digits::hex(fastrand::u128(..)))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Event {
    /// A request that has ended.
    Request,
    /// A stream that has been open for a while and goes on; the record of its end follows.
    StreamOpened,
    /// Records before this one could not be written.
    AuditLost,
    /// The line before this one is torn: an earlier process could not finish it.
    AuditTorn,
}

/// The facts about one request. Absent facts are absent keys in the log.
#[derive(Clone, Debug)]
pub struct AuditRecord {
    /// When the head of the request had arrived (wall clock).
    pub at: Timestamp,
    /// What this is about.
    pub event: Event,
    /// Why the request was allowed, denied or failed.
    pub reason: Reason,
    /// Its id.
    pub request_id: RequestId,
    /// The trace that it belongs to; none where no request could be read.
    pub trace: Option<TraceContext>,
    /// The client's `tracestate`, where spans are sent.
    pub trace_state: Option<Box<str>>,
    /// The token, where one was recognised, dead or alive.
    pub grant: Option<Arc<Grant>>,
    /// The address that the connection came from; none on a Unix socket.
    pub client_ip: Option<IpAddr>,
    /// Whether it came by TLS, as far as that is known; no record tells it, but a span does.
    pub secure: Option<bool>,
    /// What the client calls itself.
    pub user_agent: Option<HeaderValue>,
    /// Its method; none where no request could be read.
    pub method: Option<Method>,
    /// Its target, of which only the path is written.
    pub uri: Option<Uri>,
    /// The MCP in it.
    pub mcp: Option<Box<McpFacts>>,
    /// The session, by the beginning of the SHA-256 of its id.
    pub session: Option<Box<str>>,
    /// The rule of the policy that denied it, or would have.
    pub policy_rule: Option<Box<str>>,
    /// Whether it passed only because the policy reports and does not enforce.
    pub would_deny: bool,
    /// The status of the answer; none where the client left before one.
    pub status: Option<StatusCode>,
    /// Bytes of the request's body that were taken.
    pub bytes_in: u64,
    /// Bytes of the answer's body that were handed over.
    pub bytes_out: u64,
    /// From the head of the request to the end of the answer (monotonic clock).
    pub duration: Duration,
    /// How it ended.
    pub ended: Ended,
    /// The state of the token list that judged it.
    pub source_revision: Option<Arc<str>>,
}

/// The line as it is written, borrowed from the record.
pub(super) struct Line<'r> {
    pub(super) ts: Timestamp,
    pub(super) event: Event,
    pub(super) outcome: Outcome,
    pub(super) reason: Reason,
    pub(super) request_id: &'r str,
    pub(super) trace_id: Option<Hex<32>>,
    pub(super) span_id: Option<Hex<16>>,
    pub(super) auth_source: Option<&'static str>,
    pub(super) pat_id: Option<&'r str>,
    pub(super) pat_name: Option<&'r str>,
    pub(super) user: Option<&'r str>,
    pub(super) org: Option<&'r str>,
    pub(super) client_ip: Option<IpAddr>,
    pub(super) user_agent: Option<Cow<'r, str>>,
    pub(super) http_method: Option<Cow<'r, str>>,
    pub(super) path: Option<Cow<'r, str>>,
    pub(super) status: Option<u16>,
    pub(super) mcp_method: Option<Cow<'r, str>>,
    pub(super) mcp_tool: Option<Cow<'r, str>>,
    pub(super) mcp_resource: Option<Cow<'r, str>>,
    pub(super) mcp_prompt: Option<Cow<'r, str>>,
    pub(super) mcp_arguments: Option<Cow<'r, str>>,
    mcp_arguments_sha256: Option<Cow<'r, str>>,
    mcp_calls: Option<Vec<ShownCall<'r>>>,
    pub(super) mcp_session: Option<&'r str>,
    pub(super) mcp_protocol_version: Option<&'r str>,
    pub(super) mcp_source: Option<McpSource>,
    pub(super) policy: Option<&'static str>,
    pub(super) policy_rule: Option<Cow<'r, str>>,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) duration: Option<Duration>,
    pub(super) ended: Option<Ended>,
    pub(super) source_revision: Option<&'r str>,
}

impl AuditRecord {
    /// Appends the record to `out` as one line of JSON. Of a token with this prefix that somebody put
    /// where none belongs, only what is no secret is written.
    pub fn write(&self, out: &mut Vec<u8>, prefix: &Prefix) {
        self.line(prefix).write(out);
    }

    /// What the line says.
    pub(super) fn line(&self, prefix: &Prefix) -> Line<'_> {
        let grant = self.grant.as_deref();
        let is_over = self.event == Event::Request;
        let masked = |text| prefix.mask(shown(text));
        let mcp = self.mcp.as_deref();
        let mut calls: Vec<_> = mcp.iter().flat_map(|mcp| &mcp.calls).map(|call| call.shown(prefix)).collect();
        let call = if calls.len() == 1 { calls.pop() } else { None }.unwrap_or_default();
        Line {
            ts: self.at,
            event: self.event,
            outcome: self.reason.outcome(),
            reason: self.reason,
            request_id: self.request_id.as_str(),
            trace_id: self.trace.map(|trace| trace.trace_id()),
            span_id: self.trace.map(|trace| trace.span_id()),
            auth_source: grant.map(|_| Grant::SOURCE),
            pat_id: grant.map(|grant| grant.token_id().as_str()),
            pat_name: grant.and_then(Grant::token_name),
            user: grant.map(Grant::user),
            org: grant.and_then(Grant::org),
            client_ip: self.client_ip,
            user_agent: self.user_agent.as_ref().map(|value| masked(value.as_bytes())),
            http_method: self.method.as_ref().map(|method| masked(method.as_str().as_bytes())),
            path: self.uri.as_ref().map(|uri| masked(uri.path().as_bytes())),
            status: self.status.map(|status| status.as_u16()),
            mcp_method: call.method,
            mcp_tool: call.tool,
            mcp_resource: call.resource,
            mcp_prompt: call.prompt,
            mcp_arguments: call.arguments,
            mcp_arguments_sha256: call.arguments_sha256,
            mcp_calls: (!calls.is_empty()).then_some(calls),
            mcp_session: self.session.as_deref(),
            mcp_protocol_version: mcp.and_then(|mcp| mcp.version.as_deref()),
            mcp_source: mcp.map(|mcp| mcp.source),
            policy: self.would_deny.then_some("would_deny"),
            policy_rule: self.policy_rule.as_ref().map(|rule| masked(rule.as_bytes())),
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            duration: is_over.then_some(self.duration),
            ended: is_over.then_some(self.ended),
            source_revision: self.source_revision.as_deref().filter(|revision| !revision.is_empty()),
        }
    }
}

impl Line<'_> {
    /// Appends it as one line of JSON.
    fn write(&self, out: &mut Vec<u8>) {
        let mut object = Object::begin(out, self.ts);
        object.word(key!("event"), Some(self.event.into()));
        object.word(key!("outcome"), Some(self.outcome.into()));
        object.word(key!("reason"), Some(self.reason.into()));
        object.word(key!("request_id"), Some(self.request_id));
        object.hex(key!("trace_id"), self.trace_id);
        object.hex(key!("span_id"), self.span_id);
        object.word(key!("auth_source"), self.auth_source);
        object.text(key!("pat_id"), self.pat_id);
        object.text(key!("pat_name"), self.pat_name);
        object.text(key!("user"), self.user);
        object.text(key!("org"), self.org);
        object.address(key!("client_ip"), self.client_ip);
        object.text(key!("user_agent"), self.user_agent.as_deref());
        object.text(key!("http_method"), self.http_method.as_deref());
        object.text(key!("path"), self.path.as_deref());
        object.value(key!("status"), self.status);
        object.text(key!("mcp_method"), self.mcp_method.as_deref());
        object.text(key!("mcp_tool"), self.mcp_tool.as_deref());
        object.text(key!("mcp_resource"), self.mcp_resource.as_deref());
        object.text(key!("mcp_prompt"), self.mcp_prompt.as_deref());
        object.text(key!("mcp_arguments"), self.mcp_arguments.as_deref());
        object.text(key!("mcp_arguments_sha256"), self.mcp_arguments_sha256.as_deref());
        object.value(key!("mcp_calls"), self.mcp_calls.as_ref());
        object.word(key!("mcp_session"), self.mcp_session);
        object.text(key!("mcp_protocol_version"), self.mcp_protocol_version);
        object.word(key!("mcp_source"), self.mcp_source.map(<&str>::from));
        object.word(key!("policy"), self.policy);
        object.text(key!("policy_rule"), self.policy_rule.as_deref());
        object.value(key!("bytes_in"), Some(self.bytes_in));
        object.value(key!("bytes_out"), Some(self.bytes_out));
        object.milliseconds(key!("duration_ms"), self.duration);
        object.word(key!("ended"), self.ended.map(<&str>::from));
        object.text(key!("source_revision"), self.source_revision);
        object.end();
    }
}

/// Appends the record that tells how many records were lost.
pub(super) fn write_lost(out: &mut Vec<u8>, at: Timestamp, lost: u64, since: Timestamp) {
    let mut object = Object::begin(out, at);
    object.word(key!("event"), Some(Event::AuditLost.into()));
    object.value(key!("lost"), Some(lost));
    object.moment(key!("since"), since);
    object.end();
}

/// Appends the record that tells that the line before it is torn, and how much there is of it.
pub(super) fn write_torn(out: &mut Vec<u8>, at: Timestamp, bytes: usize) {
    let mut object = Object::begin(out, at);
    object.word(key!("event"), Some(Event::AuditTorn.into()));
    object.value(key!("torn_bytes"), Some(bytes as u64));
    object.end();
}

/// Text from outside: cut to a bound, and rid of all that could end a line or steer a terminal.
pub(super) fn shown(text: &[u8]) -> Cow<'_, str> {
    let text = text.get(..MAX_TEXT).unwrap_or(text);
    match str::from_utf8(text) {
        Ok(text) => harmless(text),
        Err(_) => harmless(&String::from_utf8_lossy(text)).into_owned().into(),
    }
}

/// The text without what could end a line or steer a terminal.
pub fn harmless(text: &str) -> Cow<'_, str> {
    // counting looks at many bytes at once
    let is_printable = text.bytes().filter(|byte| !(b' '..=b'~').contains(byte)).count() == 0;
    if is_printable || text.chars().all(is_harmless) {
        return text.into();
    }
    text.chars().map(|char| if is_harmless(char) { char } else { char::REPLACEMENT_CHARACTER }).collect()
}

/// Whether a character can neither end a line, nor turn the direction of writing, nor steer a terminal.
pub fn is_harmless(char: char) -> bool {
    let turns = matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !char.is_control() && !turns && !matches!(char, '\u{2028}' | '\u{2029}')
}

// --- A record in the making -----------------------------------------------------------------

/// A record that is still being filled. It is written when it is closed or dropped, whichever comes
/// first, and so exactly once on every path.
#[derive(Debug)]
pub struct OpenRecord {
    record: Option<Box<AuditRecord>>,
    request_id: RequestId,
    started: Instant,
    answered: bool,
    log: AuditLog,
    /// Whether room is kept for it in the queue; none if there is no room, and there must be.
    room: Option<bool>,
}

impl OpenRecord {
    pub(super) fn new(record: Box<AuditRecord>, log: AuditLog, room: Option<bool>) -> Self {
        Self {
            request_id: record.request_id,
            record: Some(record),
            started: Instant::now(),
            answered: false,
            log,
            room,
        }
    }

    /// Whether the request may go on: not if the operator wants no request served without a record,
    /// and the log cannot take one.
    pub fn has_room(&self) -> bool {
        self.room.is_some()
    }

    /// Writes an opening record with what is known so far, for an exchange that goes on.
    pub fn announce(&mut self, facts: impl FnOnce(&mut AuditRecord)) {
        self.note(facts);
        if let Some(record) = &self.record {
            self.log.submit(&AuditRecord { event: Event::StreamOpened, ..AuditRecord::clone(record) }, false);
        }
    }

    /// Copies what it has of the request's head: a few bytes of that hold the whole buffer into which it was read.
    pub fn detach(&mut self) {
        self.note(|facts| {
            if let Some(agent) = &mut facts.user_agent
                && let Ok(copy) = HeaderValue::from_bytes(agent.as_bytes())
            {
                *agent = copy;
            }
            if let Some(uri) = &mut facts.uri
                && let Ok(path) = Uri::try_from(uri.path())
            {
                *uri = path;
            }
        });
    }

    /// The id of the request.
    pub fn request_id(&self) -> RequestId {
        self.request_id
    }

    /// When the request came.
    pub fn at(&self) -> Timestamp {
        self.record.as_ref().map_or_else(Timestamp::now, |record| record.at)
    }

    /// The trace that the request belongs to, if there is a request.
    pub fn trace(&self) -> Option<TraceContext> {
        self.record.as_ref().and_then(|record| record.trace)
    }

    /// Writes down facts that have become known.
    pub fn note(&mut self, facts: impl FnOnce(&mut AuditRecord)) {
        if let Some(record) = &mut self.record {
            facts(record);
        }
    }

    /// The head of the answer came at that moment.
    pub fn answered(&mut self, at: Instant) {
        self.answered_after(at.saturating_duration_since(self.started));
    }

    fn answered_after(&mut self, duration: Duration) {
        if let Some(record) = &self.record
            && !self.answered
        {
            self.answered = true;
            self.log.requests().answered(record.reason.outcome(), duration);
        }
    }

    /// Ends the record.
    pub fn close(mut self, ended: Ended) {
        let duration = self.started.elapsed();
        self.answered_after(duration);
        self.submit(ended, duration);
    }

    fn submit(&mut self, ended: Ended, duration: Duration) {
        if let Some(mut record) = self.record.take() {
            record.ended = ended;
            record.duration = duration;
            self.log.requests().ended(record.reason, ended, record.bytes_in, record.bytes_out);
            if let Some((by_token, grant)) = self.log.by_token().zip(record.grant.as_ref()) {
                by_token.ended(grant.token_id(), record.reason.outcome());
            }
            self.log.submit(&record, self.room == Some(true));
        }
    }
}

/// Whoever drops an open record did not see the exchange end.
impl Drop for OpenRecord {
    fn drop(&mut self) {
        if self.record.is_none() {
            return;
        }
        let mut ended = if self.log.is_draining() { Ended::Drained } else { Ended::ClientGone };
        if thread::panicking() {
            self.note(|facts| facts.reason = Reason::InternalError);
            ended = Ended::Failed;
        }
        self.submit(ended, self.started.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> AuditRecord {
        AuditRecord {
            at: "2026-11-22T08:00:00.123456789Z".parse().unwrap(),
            event: Event::Request,
            reason: Reason::MissingCredential,
            request_id: RequestId::draw(),
            trace: None,
            trace_state: None,
            grant: None,
            client_ip: Some(IpAddr::from([127, 0, 0, 1])),
            secure: None,
            user_agent: None,
            mcp: None,
            session: None,
            policy_rule: None,
            would_deny: false,
            method: Some(Method::POST),
            uri: Some(Uri::from_static("/mcp?access_token=canary")),
            status: Some(StatusCode::UNAUTHORIZED),
            bytes_in: 120,
            bytes_out: 84,
            duration: Duration::from_micros(3_200),
            ended: Ended::Complete,
            source_revision: Some("r1".into()),
        }
    }

    fn line(record: &AuditRecord) -> String {
        let mut out = Vec::new();
        record.write(&mut out, &Prefix::default());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_is_rid_of_what_turns_writing_and_keeps_what_people_write() {
        for char in
            "\n\u{1b}\u{7f}\u{9b}\u{61c}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202e}\u{2066}\u{2069}".chars()
        {
            assert_eq!(harmless(&format!("a{char}b")), "a\u{fffd}b", "{char:?}");
        }
        let text = "Ann’s “laptop” – 日本語, עברית, العربية…";
        assert_eq!(harmless(text), text);
    }

    #[test]
    fn a_line_has_the_published_shape() {
        let record = record();
        let expected = format!(
            r#"{{"ts":"2026-11-22T08:00:00.123456Z","event":"request","outcome":"denied","reason":"missing_credential","request_id":"{}","client_ip":"127.0.0.1","http_method":"POST","path":"/mcp","status":401,"bytes_in":120,"bytes_out":84,"duration_ms":3.2,"ended":"complete","source_revision":"r1"}}"#,
            record.request_id
        );
        assert_eq!(line(&record), expected + "\n");
    }

    proptest! {
        #[test]
        fn nothing_from_outside_can_break_a_line(agent in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut record = record();
            record.user_agent = HeaderValue::from_bytes(&agent).ok();
            let line = line(&record);
            prop_assert!(line.len() < 4 * MAX_TEXT);
            prop_assert_eq!(line.chars().filter(|char| char.is_control() || *char == '\u{2028}').count(), 1);
            prop_assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok());
        }
    }
}
