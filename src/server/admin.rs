//! The admin listener: health for orchestrators and metrics for operators, on an address of its own.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::drain::{Drain, Phase};
use super::listener::{self, BindError, Bound, ListenAddress, Listener};
use super::scrape::Scrape;
use crate::access::Directory;
use crate::descriptors;
use crate::metrics;
use crate::source::Trouble;

const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one may last, so that whoever waits comes to be served; what is being answered then is finished.
const LIFETIME: Duration = Duration::from_mins(1);

const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// What health is judged by.
#[derive(Clone, Debug)]
pub struct Health {
    /// Who may do what, once that is known.
    pub directory: Arc<ArcSwap<Directory>>,
    /// What the token source complains of, while the last good list is in use.
    pub trouble: Arc<ArcSwapOption<Trouble>>,
    /// What is wrong with files of TLS, while the last good ones are in use.
    pub certificates: Vec<Arc<ArcSwapOption<String>>>,
    /// What is wrong with the upstream, where it is asked.
    pub upstream: Option<Arc<ArcSwapOption<String>>>,
    /// Whether the process is about to end.
    pub drain: Drain,
}

impl Health {
    /// Ready, or not and why not.
    pub(super) fn readiness(&self) -> Result<String, String> {
        let trouble = self.trouble.load();
        if self.drain.phase() >= Phase::Draining {
            return Err("not ready: draining\n".to_owned());
        }
        if !self.directory.load().is_available() {
            let why = trouble.as_ref().map_or("not yet", |trouble| &trouble.text);
            return Err(format!("not ready: tokens are not loaded: {why}\n"));
        }
        if let Some(trouble) = trouble.as_ref().filter(|trouble| trouble.blind) {
            return Err(format!("not ready: the look-up of tokens has not worked yet: {}\n", trouble.text));
        }
        if let Some(trouble) = self.upstream.as_ref().and_then(|trouble| trouble.load_full()) {
            return Err(format!("not ready: {trouble}\n"));
        }
        let certificates: Vec<_> = self.certificates.iter().filter_map(|trouble| trouble.load_full()).collect();
        let troubles = trouble.iter().map(|trouble| {
            let Trouble { text, .. } = &**trouble;
            format!("ready, with the last good list of tokens: {text}\n")
        });
        let certificates =
            certificates.iter().map(|trouble| format!("ready, with the last good certificates: {trouble}\n"));
        let text: String = troubles.chain(certificates).collect();
        Ok(if text.is_empty() { "ready\n".to_owned() } else { text })
    }
}

async fn answer(scrape: &Scrape, method: &Method, path: &str) -> Response<Full<Bytes>> {
    let mut content_type = "text/plain; charset=utf-8";
    let (status, text) = match path {
        _ if method != Method::GET && method != Method::HEAD => {
            (StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned())
        }
        "/livez" => (StatusCode::OK, "alive\n".to_owned()),
        "/readyz" => match scrape.health.readiness() {
            Ok(text) => (StatusCode::OK, text),
            Err(text) => (StatusCode::SERVICE_UNAVAILABLE, text),
        },
        "/metrics" => {
            content_type = metrics::CONTENT_TYPE;
            scrape.proxy.finder.settle().await;
            let scrape = scrape.clone();
            match spawn_blocking(move || scrape.text()).await {
                Ok(text) => (StatusCode::OK, text),
                Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            }
        }
        _ => (StatusCode::NOT_FOUND, "there are /livez, /readyz and /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

/// The bound admin socket.
#[derive(Debug)]
pub struct Admin {
    socket: Bound,
    address: ListenAddress,
}

impl Admin {
    /// Binds the address.
    ///
    /// # Errors
    /// The address cannot be had.
    pub fn bind(address: &ListenAddress) -> Result<Self, BindError> {
        let (mut sockets, address) = listener::bind(address, 1, HEAD_TIMEOUT)?;
        let missing = || BindError::Failed(address.clone(), std::io::ErrorKind::NotFound.into());
        Ok(Self { socket: sockets.pop().ok_or_else(missing)?, address })
    }

    /// The address that it came to be.
    pub fn address(&self) -> &ListenAddress {
        &self.address
    }

    /// Answers until the process ends; during the drain, too.
    pub async fn serve(self, scrape: Scrape) {
        let scrape = Arc::new(scrape);
        let listener = match Listener::new(self.socket) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "the admin listener failed"),
        };
        let places = Arc::new(Semaphore::new(descriptors::most_admin_connections()));
        // it is never closed; whoever finds no place waits to be accepted
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            let Ok((transport, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_BACKOFF).await;
                continue;
            };
            let scrape = Arc::clone(&scrape);
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let scrape = Arc::clone(&scrape);
                async move { Ok::<_, Infallible>(answer(&scrape, request.method(), request.uri().path()).await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(transport), service);
            tokio::spawn(async move {
                let mut connection = pin!(connection);
                if timeout(LIFETIME, connection.as_mut()).await.is_err() {
                    connection.as_mut().graceful_shutdown();
                    drop(timeout(HEAD_TIMEOUT, connection).await);
                }
                drop(place);
            });
        }
    }
}
