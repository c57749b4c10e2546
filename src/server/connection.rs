//! One connection, from its first byte to its last: which HTTP it speaks, its deadlines, its end.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, TRANSFER_ENCODING};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::counts::Counts;
use super::drain::{Drain, Phase};
use super::leash::{OpenAnswer, StreamExecutor, until_cut};
use super::occupancy::Occupancy;
use super::patience::Reading;
use super::rest::{Loan, relay};
use super::stream::{AnswerUnread, Requests, Stream, Transport};
use crate::proxy::{Gate, Outgoing, Peer, TrustedProxies, close_unread};
use crate::tls::Live;
use crate::verdict::{Ended, Reason};

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
    /// The time for the first byte of a connection, and from the first byte of a request to the end of its head.
    pub head_timeout: Duration,
    /// The time for which a connection may stay unused after an answer.
    pub idle_timeout: Duration,
    /// The time for which bytes may wait for the client to take them.
    pub write_timeout: Duration,
    /// How often a silent client is asked whether it is still there.
    pub keep_alive: Duration,
}

/// What serves the connections of one worker.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) gate: Gate,
    pub(super) tls: Option<Live<ServerConfig>>,
    pub(super) limits: Limits,
    pub(super) drain: Drain,
    pub(super) counts: Arc<Counts>,
    pub(super) occupancy: Occupancy,
    pub(super) proxies: TrustedProxies,
    pub(super) proxy_protocol: bool,
}

const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How much is read at first: mostly the whole head of a request. If the HTTP library sees only the beginning of
/// it, it takes twice the buffer for the rest, and keeps it.
const FIRST: usize = 4 * 1024;

/// What HTTP/1.1 may buffer each way, and HTTP/2 for each stream towards the client.
const BUFFER: usize = 128 * 1024;

/// How many header fields the HTTP library takes where nobody says.
const HYPERS_MAX_HEADERS: usize = 100;

/// What an HTTP/2 client may send before it is read: for one stream, and for all.
const STREAM_WINDOW: u32 = 128 * 1024;
const CONNECTION_WINDOW: u32 = 512 * 1024;

/// How many streams a client of HTTP/2 may have reset before they were looked at, and how many it may have
/// made us reset. One that does more is an attacker (CVE-2023-44487, CVE-2025-8671) and loses its connection.
const PENDING_RESETS: usize = 20;
const LOCAL_RESETS: usize = 100;

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
        // in a place of its own, so that connections of HTTP/1.1 are not as large
        Box::pin(serve_http2(transport, first, peer, context)).await;
    } else {
        serve_http1(transport, first, peer, context).await;
    }
}

/// Reads until it is clear whether this is HTTP/2 with prior knowledge; `None` if the client left.
async fn hear_preface(transport: &mut Transport, first: &mut BytesMut) -> Option<bool> {
    first.reserve(FIRST);
    while HTTP2_PREFACE.starts_with(first) && first.len() < HTTP2_PREFACE.len() {
        if transport.read_buf(first).await.ok()? == 0 {
            return None;
        }
    }
    Some(first.starts_with(HTTP2_PREFACE))
}

async fn serve_http1(transport: Transport, first: BytesMut, peer: Peer, context: Arc<Service>) {
    let (requests, streaming) = (Arc::<Requests>::default(), Arc::new(AtomicUsize::new(0)));
    let Limits { head, headers, head_timeout, idle_timeout, write_timeout, .. } = context.limits;
    let mut stream = Stream::new(transport, first, answer_unread(&context, peer), write_timeout)
        .counting(&requests)
        .looking_ahead(&streaming)
        .reading_in_time(Reading::new(&requests.answering, head_timeout, idle_timeout));
    let (answer, loan) = (OpenAnswer::default(), Loan::default());
    let service = |request: Request<Incoming>| {
        requests.begun.fetch_add(1, Ordering::AcqRel);
        let busy = Busy::new(&requests.answering);
        let (context, streaming, answer, loan) =
            (Arc::clone(&context), Arc::clone(&streaming), answer.clone(), loan.clone());
        async move {
            let (is_get, may_rest) = (request.method() == Method::GET, may_rest(&request));
            let response = context.gate.handle(request, peer).await;
            let is_chunked = response.body().size_hint().exact().is_none();
            let way = Way::Http1 { count: streaming, streaming: None, is_get };
            Ok::<_, Infallible>(
                response.map(|body| loan.lend(Answering { body, answer, _busy: busy, way }, may_rest && is_chunked)),
            )
        }
    };
    let mut http = http1::Builder::new();
    http.max_header_size(head).max_buf_size(head.max(BUFFER));
    // for its own default it has room on the stack, which it need not fill for each request
    if headers != HYPERS_MAX_HEADERS {
        http.max_headers(headers);
    }
    // it is the stream that notices the client's end: the library would take a buffer for that
    http.half_close(true);
    loop {
        // in a place of its own, which is given back while an answer rests
        let served = Box::pin(async {
            let mut connection = http.serve_connection(TokioIo::new(stream), service_fn(&service));
            let served = poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
                Poll::Pending if loan.rests() && requests.flushed() => Poll::Ready(Served::Rests),
                served => served.map(|_| Served::Ended),
            });
            tokio::select! {
                biased;
                served = until_cut(served, &answer) => if served != Some(Served::Rests) { return None },
                () = context.drain.reached(Phase::Draining) => {
                    Pin::new(&mut connection).graceful_shutdown();
                    tokio::select! {
                        _ = until_cut(&mut connection, &answer) => {}
                        () = context.drain.reached(Phase::Over) => {}
                    }
                    return None;
                }
            }
            let (parts, resting) = loan.call_back(|| connection.into_parts());
            let mut stream = parts.io.into_inner();
            stream.put_back(parts.read_buf);
            Some((stream, resting?))
        });
        let Some((mut resumed, resting)) = served.await else { return };
        resting.body.settle();
        {
            let sent = pin!(relay(&mut resumed, resting));
            tokio::select! {
                biased;
                sent = until_cut(sent, &answer) => if !matches!(sent, Some(Ok(()))) { return },
                () = context.drain.reached(Phase::Over) => return,
            }
        }
        if context.drain.phase() >= Phase::Draining {
            let _ = resumed.shutdown().await;
            return;
        }
        stream = resumed;
    }
}

/// How far the HTTP library has come with a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Served {
    /// To its end.
    Ended,
    /// To an answer that rests.
    Rests,
}

/// Whether the answer to a request may rest: not if the connection ends with it, or if it has no body. It ends with
/// a request that had two framings, of which the HTTP library shows the chunked one alone (RFC 9112 section 6.1).
fn may_rest<B>(request: &Request<B>) -> bool {
    request.version() == Version::HTTP_11
        && request.method() != Method::HEAD
        && !request.headers().contains_key(CONNECTION)
        && !request.headers().contains_key(TRANSFER_ENCODING)
}

async fn serve_http2(transport: Transport, first: BytesMut, peer: Peer, context: Arc<Service>) {
    // over HTTP/2 nothing is answered outside a stream
    let Limits { head, streams, head_timeout, idle_timeout, write_timeout, keep_alive, .. } = context.limits;
    let usage = Arc::new(Use::default());
    let stream =
        Stream::new(transport, first, Box::new(|_| None), write_timeout).counting(&usage.requests).ending_last();
    let (gate, using) = (Arc::clone(&context), Arc::clone(&usage));
    let executor = StreamExecutor::default();
    let opening = executor.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        using.requests.begun.fetch_add(1, Ordering::AcqRel);
        let busy = Busy::new(&using.requests.answering);
        let (context, using, answer) = (Arc::clone(&gate), Arc::clone(&using), opening.open());
        // in a place of its own, which is given back once the answer has begun
        Box::pin(async move {
            let response = context.gate.handle(request, peer).await;
            let way = Way::Http2 { owed: Some(Busy::new(&using.owed)), usage: using };
            Ok::<_, Infallible>(response.map(|body| Answering { body, answer, _busy: busy, way }))
        })
    });
    let connection = http2::Builder::new(executor)
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams)
        .max_header_list_size(u32::try_from(head).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(BUFFER)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(LOCAL_RESETS)
        .keep_alive_interval(keep_alive)
        .keep_alive_timeout(keep_alive)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        biased;
        _ = connection.as_mut() => return,
        () = context.drain.reached(Phase::Draining) => connection.as_mut().graceful_shutdown(),
        () = usage.ceases(head_timeout, idle_timeout) => connection.as_mut().graceful_shutdown(),
        () = usage.stalls(write_timeout) => return,
    }
    tokio::select! {
        _ = connection.as_mut() => {}
        () = context.drain.reached(Phase::Over) => {}
        // one that does not even take its goodbye
        () = usage.ceases(head_timeout, head_timeout) => {}
        () = usage.stalls(write_timeout) => {}
    }
}

/// Whether an HTTP/2 connection is of any use.
#[derive(Debug, Default)]
struct Use {
    requests: Arc<Requests>,
    /// How many answers wait for the client, and not for the upstream.
    owed: Arc<AtomicUsize>,
    /// How many parts of answers have been handed on.
    moves: AtomicUsize,
}

impl Use {
    /// Waits until there has been no request, new or old, for a while: `first`, or `later` once there was one.
    async fn ceases(&self, first: Duration, later: Duration) {
        let Requests { begun, answering, .. } = &*self.requests;
        loop {
            let before = begun.load(Ordering::Acquire);
            tokio::time::sleep(if before == 0 { first } else { later }).await;
            if answering.load(Ordering::Acquire) == 0 && begun.load(Ordering::Acquire) == before {
                return;
            }
        }
    }

    /// Waits until the client has taken nothing of what it is owed for `patience`. By the windows of
    /// HTTP/2 it can do so while its connection looks well.
    async fn stalls(&self, patience: Duration) {
        loop {
            let before = self.moves.load(Ordering::Acquire);
            tokio::time::sleep(patience).await;
            if self.owed.load(Ordering::Acquire) > 0 && self.moves.load(Ordering::Acquire) == before {
                return;
            }
        }
    }
}

/// Refuses a connection for which there is no place. Over TLS nothing can be said before a handshake,
/// and a flood is not answered at all: then it is closed at once.
pub(super) async fn turn_away(transport: Transport, peer: Peer, is_tls: bool, context: &Service) {
    context.counts.refused.inc();
    if !context.occupancy.refuse() {
        return;
    }
    let mut record = context.gate.audit().begin_unread(peer.ip, |_| {});
    if is_tls {
        record.note(|facts| facts.reason = Reason::TooManyConnections);
        return record.close(Ended::Complete);
    }
    let answer = encode(&close_unread(StatusCode::SERVICE_UNAVAILABLE, record));
    let mut stream = Stream::new(transport, BytesMut::new(), Box::new(|_| None), context.limits.write_timeout);
    // a client that has left already has no use for it
    if stream.write_all(&answer).await.is_ok() {
        let _ = stream.shutdown().await;
    }
}

// --- Answers to what was never a request ----------------------------------------------------

fn answer_unread(context: &Arc<Service>, peer: Peer) -> AnswerUnread {
    let context = Arc::clone(context);
    Box::new(move |status| {
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

/// A body during which its connection counts as answering.
#[derive(Debug)]
pub(super) struct Answering {
    body: Outgoing,
    answer: OpenAnswer,
    _busy: Busy,
    way: Way,
}

/// What else is counted, by the HTTP that is spoken.
#[derive(Debug)]
enum Way {
    /// Whether the answer is being streamed: it is once the request's own body has been taken in.
    /// `is_get`: whether it answers a GET.
    Http1 { count: Arc<AtomicUsize>, streaming: Option<Busy>, is_get: bool },
    /// Whether the client is owed a part: from when it is handed on until the next one is asked for.
    Http2 { usage: Arc<Use>, owed: Option<Busy> },
}

impl Answering {
    /// Whether this is a stream that will be open for a while. One that answers a GET is opened for that, of others
    /// it has been seen; and nothing is awaited of the request.
    pub(super) fn goes_on(&self) -> bool {
        let Way::Http1 { streaming, is_get, .. } = &self.way else { return false };
        streaming.is_some() && (*is_get || self.body.is_announced())
    }
}

impl Body for Answering {
    type Data = Bytes;
    type Error = <Outgoing as Body>::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Self { body, answer, way, .. } = &mut *self;
        match way {
            Way::Http1 { count, streaming, .. } if streaming.is_none() && body.has_taken_request() => {
                *streaming = Some(Busy::new(count));
            }
            Way::Http1 { .. } => {}
            Way::Http2 { owed, .. } => *owed = None,
        }
        let was_watched = body.leash().is_some();
        let frame = Pin::new(&mut *body).poll_frame(cx);
        if !was_watched && let Some(leash) = body.leash() {
            answer.begin(leash.clone());
        }
        if let (Way::Http2 { usage, owed }, true) = (way, frame.is_ready()) {
            usage.moves.fetch_add(1, Ordering::AcqRel);
            *owed = Some(Busy::new(&usage.owed));
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
