//! The body of a request on its way to the upstream: counted, bounded, and read for the record.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::pace::Pace;
use super::tap::Tap;
use crate::audit::{McpFacts, OpenRecord};

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
