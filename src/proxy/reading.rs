//! What a request asks for, read from its body. Where a right depends on it, the body is read before any of
//! it moves on, and judged; the very same bytes follow then. Where none does, a copy is read as it passes,
//! for the record alone.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, EXPECT, IF_RANGE, RANGE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request};
use http_body::Body as _;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;

use super::answer::{self, Answer};
use super::hints::{Hints, Marks};
use super::holding::{Budget, Holding};
use super::inbound::{Inbound, InboundBounds, is_malformed};
use super::judgement::{self, Asked, Case};
use super::objection::Objection;
use super::pace::Pace;
use super::screen::Screen;
use super::tap::{self, Tap};
use super::upstream::Failure;
use crate::access::{Calls, Permit};
use crate::audit::{McpFacts, OpenRecord};

/// What is read of the body of a refused request.
const DRAIN_BYTES: usize = 64 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// The settings of reading.
#[derive(Clone, Debug)]
pub struct Params {
    /// The largest body that is read before it moves on, in bytes.
    pub inspect: usize,
    /// The largest answer that is held back to take something out of it, in bytes.
    pub inspect_answer: usize,
    /// How much of bodies and answers may be held at once, in bytes.
    pub inspect_total: usize,
    /// How long a single answer may take to come to its end where it has to be read whole.
    pub answer_timeout: Duration,
    /// What the record has of a body.
    pub tap: tap::Params,
}

impl Params {
    /// Room for what is to be held at once.
    pub fn budget(&self) -> Budget {
        Budget::new(self.inspect_total, self.inspect.max(self.inspect_answer).max(self.tap.limit))
    }
}

/// What reads the bodies of one worker's requests.
#[derive(Debug)]
pub(super) struct Reading {
    params: Arc<Params>,
    bounds: InboundBounds,
    hints: Hints,
    budget: Budget,
}

/// A request whose body may move on: it was read and judged if a right of its caller depends on it.
/// Only `Reading::clear` makes one.
///
/// ```compile_fail
/// fn forge(head: http::request::Parts, body: patgate::proxy::Inbound) -> patgate::proxy::Cleared {
///     patgate::proxy::Cleared { head, body, screen: None }
/// }
/// ```
#[derive(Debug)]
pub struct Cleared {
    head: Parts,
    body: Inbound,
    screen: Option<Box<Screen>>,
}

impl Cleared {
    /// The request, and what its answer has to pass.
    pub(super) fn into_parts(self) -> (Parts, Inbound, Option<Box<Screen>>) {
        (self.head, self.body, self.screen)
    }
}

/// A body that was read in advance.
enum Gathered {
    Whole(Bytes),
    /// There is more than may be read, or than there is room for.
    Begun(Bytes, Objection),
}

impl Reading {
    pub(super) fn new(params: &Params, hints: &Hints, budget: &Budget, bounds: InboundBounds) -> Self {
        Self { params: Arc::new(params.clone()), bounds, hints: hints.clone(), budget: budget.clone() }
    }

    /// Reads what has to be read before a request moves on. The error is what to answer instead, if
    /// there is anybody left to hear it.
    pub(super) async fn clear(
        &self,
        request: Request<Incoming>,
        permit: &Permit,
        record: &mut OpenRecord,
    ) -> Result<Cleared, Option<Answer>> {
        let (mut head, body) = request.into_parts();
        record.note(|facts| facts.mcp = McpFacts::of_headers(&head.headers).map(Box::new));
        let (body, screen) = match permit.grant().calls() {
            // apart, for most requests have no need of the room that it takes
            Some(calls) => Box::pin(self.judge(&mut head, body, permit, calls, record)).await?,
            None if self.params.tap.limit > 0 && judgement::is_comparable(&head) => {
                (Box::pin(self.compare(&head, body, permit, record)).await?, None)
            }
            None => {
                let tap = Tap::new(&head, &self.params, || self.budget.share(permit.grant()));
                (Inbound::new(None, Some(body), self.bounds, tap), None)
            }
        };
        Ok(Cleared { head, body, screen })
    }

    /// Reads the whole body before any of it moves on, for the headers repeat what is in it, and others on the way go by
    /// them. What is larger than is read for the record passes as it is.
    async fn compare(
        &self,
        head: &Parts,
        mut body: Incoming,
        permit: &Permit,
        record: &mut OpenRecord,
    ) -> Result<Inbound, Option<Answer>> {
        let Params { tap, .. } = &*self.params;
        let (bytes, rest) = match self.gather(&mut body, tap.limit, permit, record).await? {
            Gathered::Begun(bytes, _) => (bytes, Some(body)),
            Gathered::Whole(bytes) => (bytes, None),
        };
        if rest.is_none() && !bytes.is_empty() {
            let compared = judgement::compare(head, &bytes, &tap.arguments, record);
            compared.map_err(|objection| Some(objection.refuse(record)))?;
        }
        Ok(Inbound::new(Some(bytes), rest, self.bounds, None))
    }

    /// Reads the whole body and judges it before any of it moves on.
    async fn judge(
        &self,
        head: &mut Parts,
        mut body: Incoming,
        permit: &Permit,
        calls: Calls<'_>,
        record: &mut OpenRecord,
    ) -> Result<(Inbound, Option<Box<Screen>>), Option<Answer>> {
        let narrowing = judgement::narrowing(&mut head.headers)?;
        let enforced = calls.holds(&narrowing);
        let case =
            Case { head, calls, narrowing: &narrowing, hints: &self.hints, arguments: &self.params.tap.arguments };
        let (bytes, rest, verdict) = match self.gather(&mut body, self.params.inspect, permit, record).await? {
            Gathered::Begun(bytes, objection) => (bytes, Some(body), Err(objection)),
            // no body, no call
            Gathered::Whole(bytes) if bytes.is_empty() => (bytes, None, Ok(Asked::Stream)),
            Gathered::Whole(bytes) => {
                let verdict = case.judge(&bytes, record);
                (bytes, None, verdict)
            }
        };
        let asked = match verdict {
            Ok(asked) => asked,
            Err(objection) if enforced || objection.holds_always => return Err(Some(objection.refuse(record))),
            Err(objection) => {
                objection.report(record);
                Asked::Stream
            }
        };
        let inbound = Inbound::new(Some(bytes), rest, self.bounds, None);
        let sees_all = calls.sees_all() && narrowing.is_none();
        let screen = (asked == Asked::List || !sees_all)
            .then(|| {
                let (share, marks) = (self.budget.share(permit.grant()), Marks::new(&self.hints, &head.uri));
                Screen::new(permit.clone(), narrowing, marks, asked, enforced, &self.params, share)
            })
            .map(Box::new);
        if screen.is_some() {
            // a part of a list, or one that is compressed, could not be read on its way back
            head.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            head.headers.remove(RANGE);
            head.headers.remove(IF_RANGE);
        }
        Ok((inbound, screen))
    }

    /// Takes in a body, as much of it as may be read.
    async fn gather(
        &self,
        body: &mut Incoming,
        limit: usize,
        permit: &Permit,
        record: &mut OpenRecord,
    ) -> Result<Gathered, Option<Answer>> {
        if body.size_hint().lower() > limit as u64 {
            return Ok(Gathered::Begun(Bytes::new(), Objection::too_large()));
        }
        let mut held = Holding::new(limit, self.budget.share(permit.grant()));
        let mut pace = Pace::new(&self.bounds);
        while !body.is_end_stream() && !held.is_too_large() {
            let read = held.bytes().len() as u64;
            let next = poll_fn(|cx| {
                let attempt = Pin::new(&mut *body).poll_frame(cx);
                pace.in_time(cx, attempt, read)
            });
            let Some(frame) = next.await else {
                return Err(Some(answer::failed(&Failure::BodyStalled)));
            };
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|error| is_malformed(&error).then(|| answer::failed(&Failure::BodyBroken)))?;
            let Ok(data) = frame.into_data() else { continue };
            record.note(|facts| facts.bytes_in = read + data.len() as u64);
            if held.push(data).is_err() {
                return Ok(Gathered::Begun(held.into_bytes(), Objection::no_room()));
            }
        }
        let is_too_large = held.is_too_large();
        let bytes = held.into_bytes();
        Ok(if is_too_large { Gathered::Begun(bytes, Objection::too_large()) } else { Gathered::Whole(bytes) })
    }
}

/// Reads a little of a refused request's body, so that its connection can go on if there is not more. Nothing is read
/// from a client that waits to be told to go on.
pub(super) async fn drain(body: &mut Incoming, headers: &HeaderMap) {
    if body.is_end_stream() || headers.contains_key(EXPECT) {
        return;
    }
    let rest = Limited::new(body, DRAIN_BYTES);
    let mut rest = std::pin::pin!(rest);
    let all = async { while let Some(Ok(_)) = rest.frame().await {} };
    // whether it ended, broke, grew too long or took too long, the answer is the same
    let _ = tokio::time::timeout(DRAIN_TIME, all).await;
}
