//! The MCP server behind the lock: one HTTP/1.1 connection for each exchange, kept for the next.
//!
//! A connection goes back to the pool only when both the answer and the request's body are through;
//! in every other case it is closed at once, so nothing of one exchange can reach another. A request
//! is sent again only when the connection was found closed before any of its bytes were written.

mod address;
mod arriving;
mod connect;
mod counts;
#[cfg(test)]
mod differential;
mod framing;
mod head;
mod pool;
mod probe;
mod upload;

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::header::CONTENT_TYPE;
use http_body::Body;
use tokio::time::Instant;

pub use address::{Address, AddressError};
pub(super) use arriving::Arriving;
pub use connect::UpstreamTls;
pub use counts::Counts;
pub use probe::{HealthParams, Probe};

use super::inbound::Meter;
use super::rewrite::Forward;
use crate::descriptors::Descriptors;
use connect::Connector;
pub(super) use head::{Arrived, Awaited, Limits, RequestHead};
use pool::{Connection, Pool};
use upload::{Stopped, Upload};

/// The settings of the way to the upstream.
#[derive(Clone, Debug)]
pub struct Params {
    /// Where it is.
    pub address: Address,
    /// Trust, for an `https` address.
    pub tls: Option<UpstreamTls>,
    /// The time for resolving the name, connecting and the TLS handshake together.
    pub connect_timeout: Duration,
    /// The time from sending a request to the head of its answer.
    pub head_timeout: Duration,
    /// How long an answer may pause that is no event stream; for ever, if nothing is set.
    pub answer_idle: Option<Duration>,
    /// How long an unused connection is kept; less than the upstream keeps it itself.
    pub idle_timeout: Duration,
    /// The largest head of an answer, with the interim answers before it, in bytes; what is larger is not
    /// passed on.
    pub max_head: usize,
    /// The most header fields in it.
    pub max_headers: usize,
    /// How many unused connections each worker keeps.
    pub idle_connections: usize,
}

impl Params {
    fn limits(&self) -> Limits {
        Limits { size: self.max_head, fields: self.max_headers }
    }
}

/// Why there is no answer to pass on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// No descriptor for a connection, so nothing was sent.
    #[error("no descriptor is left for a connection to the upstream")]
    Overloaded,
    /// The answer has to be read whole, and no memory is left for that.
    #[error("no room is left in limits.inspect_total to hold back the answer")]
    NoRoom,
    /// No connection, so nothing was sent.
    #[error("cannot connect to the upstream: {0}")]
    Unreachable(#[source] io::Error),
    /// The connection ended before the head of the answer.
    #[error("the upstream broke off: {0}")]
    Broken(#[source] io::Error),
    /// An answer that must not be passed on.
    #[error("{0}")]
    Invalid(&'static str),
    /// No connection or no answer in time.
    #[error("the upstream took too long {0}")]
    Timeout(&'static str),
    /// The client sent more than it may.
    #[error("the request body is too large")]
    BodyTooLarge,
    /// The client stopped in the middle of its body.
    #[error("the request body stalled")]
    BodyStalled,
    /// The client sent its body wrongly.
    #[error("the request body is not well-formed")]
    BodyBroken,
    /// The client left before it had sent its body.
    #[error("the client left")]
    ClientGone,
}

/// An answer, which comes through a connection of its own.
#[derive(Debug)]
pub(super) struct Reply<B> {
    pub(super) response: Response<B>,
    /// When its head was there.
    pub(super) arrived: Instant,
    /// How long it may pause, if there is a limit.
    pub(super) patience: Option<Duration>,
    pub(super) request: Arc<Meter>,
}

/// One worker's way to the upstream.
#[derive(Debug)]
pub(super) struct Upstream {
    connector: Connector,
    pool: Arc<Pool>,
    head_timeout: Duration,
    answer_idle: Option<Duration>,
    limits: Limits,
    counts: Arc<Counts>,
}

/// What became of a request on one connection.
#[expect(clippy::large_enum_variant, reason = "it is taken apart where it is made, and mostly the large one")]
enum Sent {
    Answered(Reply<Arriving>),
    /// The connection was closed already and took nothing.
    NotTaken(Box<Upload>),
}

impl Upstream {
    pub(super) fn new(params: &Params, counts: &Arc<Counts>, descriptors: &Descriptors) -> Self {
        Self {
            connector: Connector::new(params, counts, descriptors),
            pool: Arc::new(Pool::new(params.idle_connections, params.idle_timeout)),
            head_timeout: params.head_timeout,
            answer_idle: params.answer_idle,
            limits: params.limits(),
            counts: Arc::clone(counts),
        }
    }

    /// Sends a request and waits for the head of its answer. Dropping the future closes the connection.
    pub(super) async fn send(&self, forward: Forward) -> Result<Reply<Arriving>, Failure> {
        let since = Instant::now();
        let reply = self.deliver(forward, since).await?;
        self.counts.answered.observe(reply.arrived - since);
        Ok(reply)
    }

    async fn deliver(&self, forward: Forward, since: Instant) -> Result<Reply<Arriving>, Failure> {
        // in one place, for it goes through many hands
        let mut upload = Box::new(Upload::new(forward));
        while let Some(connection) = self.pool.take(since) {
            match self.exchange(connection, upload, since).await? {
                Sent::Answered(reply) => return Ok(reply),
                Sent::NotTaken(untouched) => upload = untouched,
            }
        }
        // apart, for most requests have no need of the room that it takes
        let connection = Box::pin(self.connector.connect()).await?;
        match self.exchange(connection, upload, Instant::now()).await? {
            Sent::Answered(reply) => Ok(reply),
            Sent::NotTaken(_) => Err(Failure::Unreachable(io::ErrorKind::ConnectionReset.into())),
        }
    }

    async fn exchange(
        &self,
        mut connection: Connection,
        mut upload: Box<Upload>,
        since: Instant,
    ) -> Result<Sent, Failure> {
        let mut awaited = Awaited::new(upload.method().clone(), self.limits);
        let answer = answered(&mut connection, &mut upload, &mut awaited, since + self.head_timeout).await;
        let meter = upload.meter();
        let (arrived, sent) = match answer {
            Ok(answer) => answer,
            Err(_) if meter.is_too_large() => return Err(Failure::BodyTooLarge),
            Err(_) if meter.is_stalled() => return Err(Failure::BodyStalled),
            Err(_) if meter.is_left() => return Err(Failure::ClientGone),
            Err(_) if meter.is_broken() => return Err(Failure::BodyBroken),
            Err(Failure::Broken(_)) if upload.is_untouched() => return Ok(Sent::NotTaken(upload)),
            Err(failure) => return Err(failure),
        };
        let request = Arc::clone(upload.meter());
        let Arrived { response, framing, persists } = arrived;
        let patience = self.answer_idle.filter(|_| !is_event_stream(&response));
        let body = if sent {
            let pool = persists.then(|| Arc::clone(&self.pool));
            Arriving::new(framing, awaited.rest(), connection, pool)
        } else {
            Arriving::early(framing, awaited.rest(), connection, upload)
        };
        Ok(Sent::Answered(Reply { response: response.map(|()| body), arrived: Instant::now(), patience, request }))
    }
}

/// Whether an answer is a stream of server-sent events.
pub(super) fn is_event_stream<B>(answer: &Response<B>) -> bool {
    let content_type = answer.headers().get(CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().to_ascii_lowercase().starts_with(b"text/event-stream"))
}

/// Sends a request and reads the head of its answer, whichever is first, until that moment; also says whether all
/// of the request is out by then.
async fn answered<B: Body<Data = Bytes> + Unpin>(
    connection: &mut Connection,
    upload: &mut Upload<B>,
    awaited: &mut Awaited,
    until: Instant,
) -> Result<(Arrived, bool), Failure> {
    let (mut sent, mut refused) = (false, None);
    let mut is_first = true;
    connection.in_time().1.set_at(until);
    poll_fn(|cx| {
        // requests that came in together are all read before one is sent on: so the upstream is woken once for
        // all of them, which costs more than asking again. What is asked for of the body is there by then
        if std::mem::take(&mut is_first) {
            if let Poll::Ready(Err(_)) = upload.gather(cx) {
                return Poll::Ready(Err(Failure::BodyBroken));
            }
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        // what came before any of it has left is no answer to it
        if upload.is_untouched() && !connection.is_quiet(cx.waker()) {
            return Poll::Ready(Err(Failure::Broken(io::ErrorKind::ConnectionReset.into())));
        }
        let (socket, deadline) = connection.in_time();
        if !sent && refused.is_none() {
            match upload.poll(cx, socket) {
                Poll::Ready(Ok(())) => sent = true,
                // an upstream that reads no further may have answered
                Poll::Ready(Err(Stopped::Socket(error))) => refused = Some(error),
                Poll::Ready(Err(Stopped::Body)) => return Poll::Ready(Err(Failure::BodyBroken)),
                Poll::Pending => {}
            }
        }
        if let Poll::Ready(arrived) = awaited.poll(cx, socket) {
            return Poll::Ready(arrived.map(|arrived| (arrived, sent)));
        }
        match refused.take() {
            Some(error) => Poll::Ready(Err(Failure::Broken(error))),
            None => deadline.poll(cx).map(|()| Err(Failure::Timeout("to answer"))),
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use http::Method;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::metrics::Level;

    /// It would be taken for the answer, and the next request would get what is answered to this one.
    #[tokio::test]
    async fn what_comes_before_a_request_has_left_is_not_its_answer() {
        for unasked in [&b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"[..], b"x", b""] {
            let (socket, mut upstream) = duplex(1024);
            let mut connection = Connection::new(Box::new(socket), Arc::<Level>::default().hold());
            let (mut upload, until) = (upload::tests::request(), Instant::now() + Duration::from_secs(20));
            let mut awaited = Awaited::new(Method::POST, Limits { size: 1024, fields: 10 });
            let mut answer = Box::pin(answered(&mut connection, &mut upload, &mut awaited, until));
            let lets_others_go_first = answer.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending();
            upstream.write_all(unasked).await.unwrap();
            upstream.shutdown().await.unwrap();
            assert!(lets_others_go_first && answer.await.is_err(), "{unasked:?}");
            assert!(upload.is_untouched());
            drop(connection);
            assert_eq!(upstream.read(&mut [0]).await.unwrap(), 0, "nothing of it has left");
        }
    }
}
