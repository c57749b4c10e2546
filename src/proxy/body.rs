//! The bodies that pass through: counted, bounded, and true about how they ended.

use std::error::Error;
use std::fmt::Display;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::endpoint::Endpoint;
use super::in_flight::Turn;
use super::pace::Pace;
use super::screen::{Broken, Screened};
use super::streams::{Leash, Right, Streams, Watched};
use super::tap::Tap;
use crate::audit::{AuditRecord, McpFacts, OpenRecord, RequestId, session_digest};
use crate::deadline::Deadline;
use crate::verdict::Ended;

// --- From the client ------------------------------------------------------------------------

/// The body of a request on its way to the upstream.
#[derive(Debug)]
pub struct Inbound {
    /// What was read of it in advance.
    begun: Option<Bytes>,
    /// What is still to come; none if all of it was read.
    body: Option<Incoming>,
    bounds: InboundBounds,
    pace: Pace,
    meter: Arc<Meter>,
    tap: Option<Box<Tap>>,
}

/// The bounds of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboundBounds {
    /// Its largest size, in bytes.
    pub size: u64,
    /// How long the next part of it may be in coming.
    pub pause: Duration,
    /// How many bytes of it must come in each second, on the average of all the time that it is waited for but
    /// for one pause.
    pub rate: u64,
}

/// What the other side of the proxy needs to know of a request's body.
#[derive(Debug, Default)]
pub(super) struct Meter {
    bytes: AtomicU64,
    state: AtomicU8,
    facts: Mutex<Option<McpFacts>>,
}

/// A body starts at 0: still to come.
const WHOLE: u8 = 1;
const TOO_LARGE: u8 = 2;
const BROKEN: u8 = 3;
const LEFT: u8 = 4;
const STALLED: u8 = 5;

impl Meter {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// All of it has been handed to the upstream's connection.
    pub(super) fn is_whole(&self) -> bool {
        self.state.load(Ordering::Acquire) == WHOLE
    }

    pub(super) fn is_too_large(&self) -> bool {
        self.state.load(Ordering::Acquire) == TOO_LARGE
    }

    pub(super) fn is_broken(&self) -> bool {
        self.state.load(Ordering::Acquire) == BROKEN
    }

    /// The client left before it was through.
    pub(super) fn is_left(&self) -> bool {
        self.state.load(Ordering::Acquire) == LEFT
    }

    /// The client stopped sending and stayed.
    pub(super) fn is_stalled(&self) -> bool {
        self.state.load(Ordering::Acquire) == STALLED
    }

    /// What was read in it for the record, once, when all of it has passed.
    pub(super) fn tell(&self, record: &mut OpenRecord) {
        if let Some(facts) = self.facts.lock().unwrap_or_else(PoisonError::into_inner).take() {
            record.note(|record| record.mcp = Some(Box::new(facts.after(record.mcp.take()))));
        }
    }

    fn set(&self, state: u8) {
        self.state.store(state, Ordering::Release);
    }
}

/// Why a request's body stops short.
#[derive(Debug, thiserror::Error)]
pub enum InboundError {
    /// The limit was reached.
    #[error("the request body is too large")]
    TooLarge,
    /// The next part was too long in coming.
    #[error("the request body stalled")]
    Stalled,
    /// The client broke off.
    #[error("the request body broke off")]
    Broken(#[source] hyper::Error),
}

impl Inbound {
    /// A body of which some may have been read in advance, and all if there is no `body` any more.
    pub(super) fn new(
        begun: Option<Bytes>,
        body: Option<Incoming>,
        bounds: InboundBounds,
        tap: Option<Box<Tap>>,
    ) -> Self {
        let begun = begun.filter(|begun| !begun.is_empty());
        let body = body.filter(|body| !body.is_end_stream());
        let mut inbound = Self { begun, body, bounds, pace: Pace::new(&bounds), meter: Arc::default(), tap };
        inbound.note_end();
        inbound
    }

    pub(super) fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// Counts what passes.
    fn pass(&mut self, data: Bytes) -> Result<Frame<Bytes>, InboundError> {
        let length = data.len() as u64;
        let bytes = self.meter.bytes.fetch_add(length, Ordering::Relaxed) + length;
        if bytes > self.bounds.size {
            self.meter.set(TOO_LARGE);
            return Err(InboundError::TooLarge);
        }
        if let Some(tap) = &mut self.tap {
            tap.keep(&data);
        }
        self.note_end();
        Ok(Frame::data(data))
    }

    /// Notes that all has passed, if it has.
    fn note_end(&mut self) {
        if !self.is_end_stream() {
            return;
        }
        if let Some(facts) = self.tap.take().and_then(|tap| tap.read()) {
            *self.meter.facts.lock().unwrap_or_else(PoisonError::into_inner) = Some(facts);
        }
        self.meter.set(WHOLE);
    }
}

/// Whether a body was sent wrongly; else its sender has left.
pub(super) fn is_malformed(error: &hyper::Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|source| matches!(source.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData))
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = InboundError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, InboundError>>> {
        if let Some(data) = self.begun.take() {
            return Poll::Ready(Some(self.pass(data)));
        }
        loop {
            let bytes = self.meter.bytes();
            let Some(body) = &mut self.body else { return Poll::Ready(None) };
            let attempt = Pin::new(body).poll_frame(cx);
            let Some(frame) = ready!(self.pace.in_time(cx, attempt, bytes)) else {
                self.meter.set(STALLED);
                return Poll::Ready(Some(Err(InboundError::Stalled)));
            };
            let Some(frame) = frame else {
                self.body = None;
                self.note_end();
                return Poll::Ready(None);
            };
            let frame = frame.map_err(|error| {
                self.meter.set(if is_malformed(&error) { BROKEN } else { LEFT });
                InboundError::Broken(error)
            })?;
            // trailers could smuggle an identity past the head: they end here
            let Ok(data) = frame.into_data() else { continue };
            return Poll::Ready(Some(self.pass(data)));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.begun.is_none() && self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let begun = self.begun.as_ref().map_or(0, |begun| begun.len() as u64);
        let rest = self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        let mut hint = SizeHint::default();
        hint.set_lower(rest.lower() + begun);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + begun);
        }
        hint
    }
}

// --- To the client --------------------------------------------------------------------------

/// The body of a response: an answer of our own, or what the upstream streams.
#[derive(Debug)]
pub struct Outgoing(Kind);

#[derive(Debug)]
enum Kind {
    Own(Option<Bytes>),
    Relay(Box<Relay>),
}

/// The upstream's answer on its way, with all that must happen when it ends.
#[derive(Debug)]
struct Relay {
    body: Screened,
    /// Until it is watched.
    record: Option<OpenRecord>,
    request: Arc<Meter>,
    bytes: u64,
    ended: Option<Ended>,
    right: Right,
    /// How long the next part of an answer that is no stream may be in coming, where the operator wants that.
    patience: Option<Duration>,
    deadline: Deadline,
    /// Counts until the end.
    _turn: Turn,
    streams: Arc<Streams>,
    /// Until it is known which session the stream has.
    endpoint: Option<Box<Endpoint>>,
    /// From the first look that did not bring the end on.
    watched: Option<Watched>,
    /// What broke it off, until what came before has been sent.
    broken: Option<BrokenOff>,
}

/// Why an answer stops short. The client must not take what it has for the whole.
#[derive(Debug, thiserror::Error)]
pub enum BrokenOff {
    /// The upstream broke off.
    #[error("the upstream broke off")]
    Upstream(#[source] io::Error),
    /// What comes must not be passed on.
    #[error("{0}")]
    Screened(&'static str),
    /// The upstream paused for too long.
    #[error("the upstream stalled")]
    Late,
    /// The right to the answer has ended.
    #[error("the token is no longer valid")]
    Cut,
}

impl Outgoing {
    pub(super) fn own(body: Bytes) -> Self {
        Self(Kind::Own(Some(body).filter(|body| !body.is_empty())))
    }

    pub(super) fn relay(
        body: Screened,
        patience: Option<Duration>,
        request: Arc<Meter>,
        record: OpenRecord,
        right: Right,
        turn: Turn,
        streams: Arc<Streams>,
    ) -> Self {
        let mut relay = Relay {
            body,
            patience,
            record: Some(record),
            request,
            bytes: 0,
            ended: None,
            right,
            deadline: Deadline::default(),
            _turn: turn,
            streams,
            endpoint: None,
            watched: None,
            broken: None,
        };
        if relay.body.is_end_stream() {
            relay.ended = Some(Ended::Complete);
        }
        Self(Kind::Relay(Box::new(relay)))
    }
}

impl Outgoing {
    /// Has the beginning of the answer read on its way.
    pub(super) fn read_by(mut self, endpoint: Option<Box<Endpoint>>) -> Self {
        if let Kind::Relay(relay) = &mut self.0 {
            relay.endpoint = endpoint;
        }
        self
    }

    /// Whether all of the request that this answers has been taken in.
    pub fn has_taken_request(&self) -> bool {
        match &self.0 {
            Kind::Own(_) => false,
            Kind::Relay(relay) => relay.request.is_whole(),
        }
    }

    /// Whether the answer has been open for so long that the audit log has been told of it.
    pub fn is_announced(&self) -> bool {
        match &self.0 {
            Kind::Own(_) => false,
            Kind::Relay(relay) => relay.watched.as_ref().is_some_and(Watched::is_announced),
        }
    }

    /// Lets go of what a stream that goes on has no use for.
    pub fn settle(&self) {
        if let Kind::Relay(relay) = &self.0
            && let Some(watched) = &relay.watched
        {
            watched.settle();
        }
    }

    /// Where to see that the answer has been cut, once it is watched.
    pub fn leash(&self) -> Option<&Leash> {
        match &self.0 {
            Kind::Own(_) => None,
            Kind::Relay(relay) => relay.watched.as_ref().map(Watched::leash),
        }
    }
}

impl Relay {
    /// Whether the answer has to end: then the client loses it and the upstream its connection, both at
    /// once. From here on it is watched, for nobody knows when the next look will be.
    fn is_cut(&mut self, cx: &Context<'_>) -> bool {
        let watched = self
            .watched
            .get_or_insert_with(|| self.streams.watch(&mut self.right, self.record.take(), &self.request, self.bytes));
        let Some(ended) = watched.poll_cut(cx) else { return false };
        self.ended = Some(ended);
        self.body.close();
        true
    }
}

impl Relay {
    /// Reads what the stream begins with. Whose the session is, is known before the client hears of it.
    fn look_for_session(&mut self, data: &[u8]) {
        let Some(Poll::Ready(named)) = self.endpoint.as_mut().map(|endpoint| endpoint.read(data)) else { return };
        self.endpoint = None;
        let Some(named) = named else { return };
        let note = |facts: &mut AuditRecord| facts.session = named.first().map(session_digest);
        match (&self.watched, &mut self.record) {
            (Some(watched), _) => watched.note(note),
            (None, Some(record)) => record.note(note),
            (None, None) => {}
        }
        self.streams.claim(named, &mut self.right, self.watched.as_ref());
    }

    /// Ready once the upstream has paused for too long.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.patience.map_or(Poll::Pending, |patience| self.deadline.poll_or_set(cx, patience))
    }

    /// The upstream has not kept its promise: its connection is of no further use.
    fn fail(&mut self, error: &dyn Display) {
        self.ended = Some(Ended::UpstreamFailed);
        self.body.close();
        let request_id = match &self.watched {
            Some(watched) => watched.request_id(),
            None => self.record.as_ref().map(OpenRecord::request_id),
        };
        tracing::warn!(request_id = request_id.as_ref().map(RequestId::as_str), %error, "an answer broke off");
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let relay = match &mut self.0 {
            Kind::Own(body) => return Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
            Kind::Relay(relay) => relay,
        };
        loop {
            if relay.watched.is_some() && relay.is_cut(cx) {
                return Poll::Ready(Some(Err(BrokenOff::Cut)));
            }
            if let Some(broken) = relay.broken.take() {
                return Poll::Ready(Some(Err(broken)));
            }
            let Poll::Ready(frame) = Pin::new(&mut relay.body).poll_frame(cx) else {
                if relay.watched.is_none() && relay.is_cut(cx) {
                    return Poll::Ready(Some(Err(BrokenOff::Cut)));
                }
                ready!(relay.poll_late(cx));
                relay.fail(&"it paused for longer than timeouts.answer_idle");
                return Poll::Ready(Some(Err(BrokenOff::Late)));
            };
            relay.deadline.clear();
            match frame {
                Some(Ok(frame)) => {
                    // an upstream's trailers have no meaning in MCP and are not passed on
                    let Ok(data) = frame.into_data() else { continue };
                    if relay.body.is_end_stream() {
                        relay.ended = Some(Ended::Complete);
                    } else if relay.watched.is_none() && relay.is_cut(cx) {
                        return Poll::Ready(Some(Err(BrokenOff::Cut)));
                    }
                    if relay.endpoint.is_some() {
                        relay.look_for_session(&data);
                    }
                    relay.bytes += data.len() as u64;
                    if let Some(watched) = &relay.watched {
                        watched.passed(relay.bytes);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => {
                    relay.fail(&error);
                    // The HTTP library drops what it has gathered when a body fails, which may be the head as
                    // well: a client that hears nothing at all may send its request again. So it is told to
                    // wait, which makes it send, and asks again at once.
                    relay.broken = Some(match error {
                        Broken::Upstream(error) => BrokenOff::Upstream(error),
                        Broken::Screened(why) => BrokenOff::Screened(why),
                    });
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                None => {
                    relay.ended = Some(Ended::Complete);
                    return Poll::Ready(None);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Own(body) => body.is_none(),
            Kind::Relay(relay) => relay.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Own(body) => SizeHint::with_exact(body.as_ref().map_or(0, |body| body.len() as u64)),
            Kind::Relay(relay) => relay.body.size_hint(),
        }
    }
}

/// The record is closed here and nowhere else: the server drops a body when its last byte has been
/// taken or when nobody is left to take it.
impl Drop for Relay {
    fn drop(&mut self) {
        let record = self.record.take().or_else(|| self.watched.as_ref().and_then(Watched::take_record));
        let Some(mut record) = record else { return };
        self.request.tell(&mut record);
        record.note(|facts| {
            facts.bytes_in = self.request.bytes();
            facts.bytes_out = self.bytes;
        });
        // one that was cut while nobody asked for more of it does not know yet
        if let Some(ended) = self.ended.or_else(|| self.watched.as_ref().and_then(Watched::ended)) {
            record.close(ended);
        }
    }
}
