//! The MCP server behind the lock: one HTTP/1.1 connection for each exchange, kept for the next.
//!
//! A connection goes back to the pool only when both the answer and the request's body are through;
//! in every other case it is closed at once, so nothing of one exchange can reach another. A request
//! is sent again only when the connection was found closed before any of its bytes were written.

mod address;
mod budget;
mod connect;
mod counts;
mod pool;
mod probe;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::CONTENT_TYPE;
use http::{Request, Response};
use hyper::body::Incoming;

pub use address::{Address, AddressError};
pub use connect::UpstreamTls;
pub use counts::Counts;
pub(super) use pool::Lease;
pub use probe::{HealthParams, Probe};

use super::body::{Inbound, Meter};
use super::rewrite::Forward;
use connect::Connector;
use pool::{Connection, Pool};

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
    /// The largest head of an answer, in bytes; a larger one is not passed on.
    pub max_head: usize,
    /// The most header fields in it.
    pub max_headers: usize,
    /// How many unused connections each worker keeps.
    pub idle_connections: usize,
}

/// Why there is no answer to pass on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// No connection, so nothing was sent.
    #[error("cannot connect to the upstream: {0}")]
    Unreachable(#[source] std::io::Error),
    /// The connection ended before the head of the answer.
    #[error("the upstream broke off: {0}")]
    Broken(#[source] hyper::Error),
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

/// An answer and the connection that it comes through.
#[derive(Debug)]
pub(super) struct Reply<B> {
    pub(super) response: Response<B>,
    pub(super) lease: Lease,
    pub(super) request: Arc<Meter>,
}

/// One worker's way to the upstream.
#[derive(Debug)]
pub(super) struct Upstream {
    connector: Connector,
    pool: Arc<Pool>,
    head_timeout: Duration,
    answer_idle: Option<Duration>,
    counts: Arc<Counts>,
}

/// What became of a request on one connection.
enum Sent {
    Answered(Reply<Incoming>),
    /// The connection was closed already and took nothing.
    NotTaken(Request<Inbound>),
}

impl Upstream {
    pub(super) fn new(params: &Params, counts: &Arc<Counts>) -> Self {
        Self {
            connector: Connector::new(params, counts),
            pool: Arc::new(Pool::new(params.idle_connections, params.idle_timeout)),
            head_timeout: params.head_timeout,
            answer_idle: params.answer_idle,
            counts: Arc::clone(counts),
        }
    }

    /// Sends a request and waits for the head of its answer. Dropping the future closes the connection.
    pub(super) async fn send(&self, forward: Forward) -> Result<Reply<Incoming>, Failure> {
        let since = Instant::now();
        let reply = self.deliver(forward).await?;
        self.counts.answered.observe(since.elapsed());
        Ok(reply)
    }

    async fn deliver(&self, forward: Forward) -> Result<Reply<Incoming>, Failure> {
        let mut request = forward.into_request();
        while let Some(connection) = self.pool.take() {
            match self.exchange(connection, request).await? {
                Sent::Answered(reply) => return Ok(reply),
                Sent::NotTaken(untouched) => request = untouched,
            }
        }
        match self.exchange(self.connector.connect().await?, request).await? {
            Sent::Answered(reply) => Ok(reply),
            Sent::NotTaken(_) => Err(Failure::Unreachable(std::io::ErrorKind::ConnectionReset.into())),
        }
    }

    async fn exchange(&self, connection: Connection, request: Request<Inbound>) -> Result<Sent, Failure> {
        let meter = Arc::clone(request.body().meter());
        // from here on, whatever drops the lease closes the connection
        let mut lease = Lease::new(connection, &self.pool);
        let sending = lease.send(request);
        let Ok(sent) = tokio::time::timeout(self.head_timeout, sending).await else {
            return Err(Failure::Timeout("to answer"));
        };
        match sent {
            Ok(response) => {
                let lease = lease.with_patience(self.answer_idle.filter(|_| !is_event_stream(&response)));
                Ok(Sent::Answered(Reply { response, lease, request: meter }))
            }
            Err((_, Some(untouched))) => Ok(Sent::NotTaken(untouched)),
            Err(_) if meter.is_too_large() => Err(Failure::BodyTooLarge),
            Err(_) if meter.is_stalled() => Err(Failure::BodyStalled),
            Err(_) if meter.is_left() => Err(Failure::ClientGone),
            Err(_) if meter.is_broken() => Err(Failure::BodyBroken),
            Err(_) if lease.is_flooded() => Err(Failure::Invalid("the upstream says too much before its answer")),
            Err((error, None)) if error.is_parse() => Err(Failure::Invalid("the upstream's answer is not HTTP")),
            Err((error, None)) => Err(Failure::Broken(error)),
        }
    }
}

fn is_event_stream(answer: &Response<Incoming>) -> bool {
    let content_type = answer.headers().get(CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().to_ascii_lowercase().starts_with(b"text/event-stream"))
}
