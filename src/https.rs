//! The way out to other services over HTTP, with or without TLS, for all who ask one.

use std::error::Error;
use std::time::Duration;

use http_body::Body;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;

/// A client that keeps connections and sends bodies of the kind `B`.
pub type Client<B> = legacy::Client<HttpsConnector<HttpConnector>, B>;

/// The largest head of an answer, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// How long an unused connection is kept, which is less than servers usually do, and how many of them.
const IDLE: Duration = Duration::from_secs(4);
const IDLE_CONNECTIONS: usize = 32;

/// Makes a client.
pub fn client<B>(tls: ClientConfig) -> Client<B>
where
    B: Body + Send,
    B::Data: Send,
{
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
    legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .http1_max_buf_size(MAX_HEAD)
        .build(connector)
}

/// An error with all that it was caused by.
pub fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
