//! One connection, from its first byte to its last: which HTTP it speaks, its deadlines, its end.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::counts::Counts;
use super::drain::{Drain, Phase};
use super::leash::{OpenAnswer, StreamExecutor, until_cut};
use super::stream::{AnswerUnread, Stream, Transport};
use crate::proxy::{Gate, Outgoing, Peer, close_unread};

/// The bounds of one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest head of a request, in bytes.
    pub head: usize,
    /// The most header fields in it.
    pub headers: usize,
    /// The most streams at once on an HTTP/2 connection.
    pub streams: u32,
    /// The time for the TLS handshake.
    pub handshake_timeout: Duration,
    /// The time for the head of a request, and for which a connection may stay unused.
    pub head_timeout: Duration,
}

/// What serves the connections of one worker.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) gate: Gate,
    pub(super) limits: Limits,
    pub(super) drain: Drain,
    pub(super) counts: Arc<Counts>,
}

const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves one connection until it ends or is cut.
pub(super) async fn serve(mut transport: Transport, peer: Peer, context: Arc<Service>) {
    let speaks_http2 = match &transport {
        Transport::Tls(stream) => stream.get_ref().1.alpn_protocol().map(|protocol| protocol == b"h2"),
        Transport::Tcp(_) | Transport::Unix(_) => None,
    };
    let mut first = BytesMut::new();
    let speaks_http2 = match speaks_http2 {
        Some(known) => known,
        None => tokio::select! {
            // no request yet, so nothing is owed to this client
            () = context.drain.reached(Phase::Draining) => return,
            heard = timeout(context.limits.head_timeout, hear_preface(&mut transport, &mut first)) => match heard {
                Ok(Some(http2)) => http2,
                _ => return,
            },
        },
    };
    if speaks_http2 {
        serve_http2(transport, first, peer, context).await;
    } else {
        serve_http1(transport, first, peer, context).await;
    }
}

/// Reads until it is clear whether this is HTTP/2 with prior knowledge; `None` if the client left.
async fn hear_preface(transport: &mut Transport, first: &mut BytesMut) -> Option<bool> {
    while HTTP2_PREFACE.starts_with(first) && first.len() < HTTP2_PREFACE.len() {
        if transport.read_buf(first).await.ok()? == 0 {
            return None;
        }
    }
    Some(first.starts_with(HTTP2_PREFACE))
}

async fn serve_http1(transport: Transport, first: BytesMut, peer: Peer, context: Arc<Service>) {
    let (answering, streaming) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let stream = Stream::new(transport, first, answer_unread(&context, peer, &answering)).looking_ahead(&streaming);
    let answer = OpenAnswer::default();
    let service = service_fn(|request: Request<Incoming>| {
        let busy = Busy::new(&answering);
        let (context, streaming, answer) = (Arc::clone(&context), Arc::clone(&streaming), answer.clone());
        async move {
            let response = context.gate.handle(request, peer).await;
            let streaming = Streaming::Not(streaming);
            Ok::<_, Infallible>(response.map(|body| Answering { body, answer, _busy: busy, streaming }))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(context.limits.head_timeout)
        .max_header_size(context.limits.head)
        .max_headers(context.limits.headers)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        biased;
        () = until_cut(connection.as_mut(), &answer) => return,
        () = context.drain.reached(Phase::Draining) => connection.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        () = until_cut(connection.as_mut(), &answer) => {}
        () = context.drain.reached(Phase::Over) => {}
    }
}

async fn serve_http2(transport: Transport, first: BytesMut, peer: Peer, context: Arc<Service>) {
    // over HTTP/2 nothing is answered outside a stream
    let stream = Stream::new(transport, first, Box::new(|_| None));
    let usage = Arc::new(Use::default());
    let (gate, using) = (Arc::clone(&context), Arc::clone(&usage));
    let executor = StreamExecutor::default();
    let opening = executor.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        using.requests.fetch_add(1, Ordering::AcqRel);
        let busy = Busy::new(&using.answering);
        let (context, answer) = (Arc::clone(&gate), opening.open());
        async move {
            let response = context.gate.handle(request, peer).await;
            let streaming = Streaming::Not(Arc::default());
            Ok::<_, Infallible>(response.map(|body| Answering { body, answer, _busy: busy, streaming }))
        }
    });
    let head = u32::try_from(context.limits.head).unwrap_or(u32::MAX);
    let connection = http2::Builder::new(executor)
        .timer(TokioTimer::new())
        .max_concurrent_streams(context.limits.streams)
        .max_header_list_size(head)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        biased;
        _ = connection.as_mut() => return,
        () = context.drain.reached(Phase::Draining) => connection.as_mut().graceful_shutdown(),
        () = usage.ceases(context.limits.head_timeout) => connection.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        _ = connection.as_mut() => {}
        () = context.drain.reached(Phase::Over) => {}
        // one that does not even take its goodbye
        () = usage.ceases(context.limits.head_timeout) => {}
    }
}

/// Whether an HTTP/2 connection is of any use.
#[derive(Debug, Default)]
struct Use {
    answering: Arc<AtomicUsize>,
    requests: AtomicUsize,
}

impl Use {
    /// Waits until there has been no request, new or old, for `patience`.
    async fn ceases(&self, patience: Duration) {
        loop {
            let before = self.requests.load(Ordering::Acquire);
            tokio::time::sleep(patience).await;
            if self.answering.load(Ordering::Acquire) == 0 && self.requests.load(Ordering::Acquire) == before {
                return;
            }
        }
    }
}

// --- Answers to what was never a request ----------------------------------------------------

fn answer_unread(context: &Arc<Service>, peer: Peer, answering: &Arc<AtomicUsize>) -> AnswerUnread {
    let (context, answering) = (Arc::clone(context), Arc::clone(answering));
    Box::new(move |status| {
        if answering.load(Ordering::Acquire) > 0 {
            return None;
        }
        let status = StatusCode::from_u16(status).ok().filter(StatusCode::is_client_error)?;
        let record = context.gate.audit().begin_unread(peer.ip, |_| {});
        Some(encode(&close_unread(status, record)))
    })
}

/// HTTP/1.1 as RFC 9112 writes it, for a response that ends its connection.
fn encode(response: &Response<Bytes>) -> Bytes {
    let mut out = format!("HTTP/1.1 {}\r\n", response.status()).into_bytes();
    for (name, value) in response.headers() {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(format!("content-length: {}\r\nconnection: close\r\n\r\n", response.body().len()).as_bytes());
    out.extend_from_slice(response.body());
    out.into()
}

/// Counts a request from its call to the end of its answer.
#[derive(Debug)]
struct Busy(Arc<AtomicUsize>);

impl Busy {
    fn new(answering: &Arc<AtomicUsize>) -> Self {
        answering.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(answering))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A body during which its connection counts as answering, and as streaming once the request's own
/// body has been taken in.
#[derive(Debug)]
struct Answering {
    body: Outgoing,
    answer: OpenAnswer,
    _busy: Busy,
    streaming: Streaming,
}

#[derive(Debug)]
enum Streaming {
    Not(Arc<AtomicUsize>),
    Counted { _busy: Busy },
}

impl Body for Answering {
    type Data = Bytes;
    type Error = <Outgoing as Body>::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Streaming::Not(count) = &self.streaming
            && self.body.has_taken_request()
        {
            self.streaming = Streaming::Counted { _busy: Busy::new(count) };
        }
        let was_watched = self.body.leash().is_some();
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if !was_watched && let Some(leash) = self.body.leash() {
            self.answer.begin(leash.clone());
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.answer.end();
    }
}
