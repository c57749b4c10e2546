//! The body of an answer: counted, and true about how it ended.

use std::fmt::Display;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::endpoint::Endpoint;
use super::in_flight::Turn;
use super::inbound::Meter;
use super::screen::{Broken, Screened};
use super::sessions::NOT_HERS;
use super::streams::{Leash, Right, Streams, Watched};
use crate::audit::{AuditRecord, OpenRecord, RequestId, session_digest};
use crate::deadline::Deadline;
use crate::verdict::Ended;

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

    /// Reads what the stream begins with. Whose the session is, is known before the client hears of it; if it is
    /// somebody else's, she does not.
    fn look_for_session(&mut self, data: &[u8]) -> Result<(), Broken> {
        let read = self.endpoint.as_mut().map_or(Poll::Pending, |endpoint| endpoint.read(data));
        let Poll::Ready(named) = read else { return Ok(()) };
        self.endpoint = None;
        let Some(named) = named else { return Ok(()) };
        let note = |facts: &mut AuditRecord| facts.session = named.first().map(session_digest);
        match (&self.watched, &mut self.record) {
            (Some(watched), _) => watched.note(note),
            (None, Some(record)) => record.note(note),
            (None, None) => {}
        }
        let is_hers = self.streams.claim(named, &mut self.right, self.watched.as_ref());
        is_hers.then_some(()).ok_or(Broken::Screened(NOT_HERS))
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

    /// Nothing more may pass. The HTTP library drops what it has gathered when a body fails, which may be the head as
    /// well: a client that hears nothing at all may send its request again. So it is told to wait, which makes it
    /// send, and asks again at once.
    fn break_off<T>(&mut self, error: Broken, cx: &Context<'_>) -> Poll<T> {
        self.fail(&error);
        self.broken = Some(match error {
            Broken::Upstream(error) => BrokenOff::Upstream(error),
            Broken::Screened(why) => BrokenOff::Screened(why),
        });
        cx.waker().wake_by_ref();
        Poll::Pending
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
                    if relay.endpoint.is_some()
                        && let Err(error) = relay.look_for_session(&data)
                    {
                        return relay.break_off(error, cx);
                    }
                    relay.bytes += data.len() as u64;
                    if let Some(watched) = &relay.watched {
                        watched.passed(relay.bytes);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return relay.break_off(error, cx),
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
            Kind::Relay(relay) => relay.broken.is_none() && relay.body.is_end_stream(),
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
