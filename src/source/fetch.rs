//! Asking a source over HTTP: one GET, in bounded time and to a bounded size, and an answer taken
//! only if it is exactly what was asked for.
//!
//! One client serves all who ask. It keeps connections, for a look-up must not cost a handshake each
//! time, nor a port for a minute after it. The task of a connection lives on the runtime of the worker
//! that opened it; any other may use it, and if it is gone with its worker, a new one is opened.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, DATE, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    LAST_MODIFIED, USER_AGENT,
};
use http::uri::InvalidUri;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use http_body::Body;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use jiff::fmt::rfc2822;
use rustls::ClientConfig;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::https::{self, causes};
use crate::token::Token;

/// The settings of the way to a source.
#[derive(Clone, Debug)]
pub struct ClientParams {
    /// Trust, and perhaps a certificate of our own. A source that is asked without TLS has no use for it.
    pub tls: ClientConfig,
    /// A file with the bearer token that the source asks of us. It is read again each time.
    pub bearer_file: Option<PathBuf>,
    /// The time from the beginning of an exchange to its last byte.
    pub timeout: Duration,
    /// The largest answer, in bytes.
    pub max_size: usize,
}

/// Asks one source.
#[derive(Debug)]
pub(super) struct Client {
    http: https::Client<Empty<Bytes>>,
    bearer_file: Option<PathBuf>,
    timeout: Duration,
    max_size: usize,
}

/// What a source said.
#[derive(Debug)]
pub(super) enum Reply {
    /// This, and how to ask whether it has changed.
    Content(Vec<u8>, Validators),
    /// What we know already.
    Unchanged,
    /// That there is no such thing.
    Absent,
}

/// Why a source's answer is not known. The texts tell nothing that changes from one time to the next.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    #[error("broke off: {0}")]
    Broken(String),
    #[error("took longer than {0:?}")]
    Timeout(Duration),
    #[error("too many others are waiting for an answer")]
    Busy,
    #[error("answered with a redirect, which is not followed: name the place itself")]
    Redirect,
    #[error("answered with status {}", .0.as_u16())]
    Status(StatusCode),
    #[error("answered with a Content-Encoding, which was not asked for")]
    Encoded,
    #[error("answered with more than {0} bytes")]
    TooLarge(usize),
    #[error("cannot be asked for this: {0}")]
    Url(#[from] InvalidUri),
    #[error("cannot be asked: the bearer token in {} cannot be read: {error}", file.display())]
    Bearer { file: PathBuf, error: io::Error },
}

impl Client {
    pub(super) fn new(params: &ClientParams) -> Self {
        let ClientParams { tls, bearer_file, timeout, max_size } = params.clone();
        let http = https::client(tls);
        Self { http, bearer_file, timeout, max_size }
    }

    /// Asks for the content of `uri`, if it is another than the one that `known` stands for.
    pub(super) async fn get(&self, uri: Uri, known: &Validators) -> Result<Reply, Failure> {
        timeout(self.timeout, self.exchange(uri, known)).await.unwrap_or(Err(Failure::Timeout(self.timeout)))
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    async fn exchange(&self, uri: Uri, known: &Validators) -> Result<Reply, Failure> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        // a small answer must not become a large one here
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("patgate/", env!("CARGO_PKG_VERSION"))));
        known.ask(headers);
        if let Some(file) = &self.bearer_file {
            headers.insert(AUTHORIZATION, bearer(file).await?);
        }
        let response = self.http.request(request).await.map_err(|error| {
            if error.is_connect() { Failure::Unreachable(causes(&error)) } else { Failure::Broken(causes(&error)) }
        })?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(Reply::Absent),
            StatusCode::NOT_MODIFIED if known.exist() => return Ok(Reply::Unchanged),
            status if status.is_redirection() && status != StatusCode::NOT_MODIFIED => return Err(Failure::Redirect),
            status => return Err(Failure::Status(status)),
        }
        if response.headers().get_all(CONTENT_ENCODING).iter().any(|coding| coding != "identity") {
            return Err(Failure::Encoded);
        }
        let validators = Validators::of(response.headers());
        Ok(Reply::Content(self.content(response.into_body()).await?, validators))
    }

    async fn content(&self, mut body: Incoming) -> Result<Vec<u8>, Failure> {
        let too_large = Failure::TooLarge(self.max_size);
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if announced > self.max_size {
            return Err(too_large);
        }
        let mut content = Vec::with_capacity(announced);
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|error| Failure::Broken(causes(&error)))?.into_data() else { continue };
            if content.len() + data.len() > self.max_size {
                return Err(too_large);
            }
            content.extend_from_slice(&data);
        }
        Ok(content)
    }
}

async fn bearer(file: &Path) -> Result<HeaderValue, Failure> {
    let path = file.to_owned();
    let read = spawn_blocking(move || {
        let token = Token::new(std::fs::read_to_string(path)?);
        let value = Zeroizing::new(format!("Bearer {}", token.expose().trim()));
        let mut value = HeaderValue::from_str(&value).map_err(|_| io::ErrorKind::InvalidData)?;
        value.set_sensitive(true);
        Ok(value)
    });
    let read = read.await.unwrap_or_else(|panic| Err(io::Error::other(panic)));
    read.map_err(|error| Failure::Bearer { file: file.to_owned(), error })
}

// --- Whether it has changed -----------------------------------------------------------------

/// By what a source can tell whether its content is still the one that we have (RFC 9110 section 13.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Validators {
    etag: Option<HeaderValue>,
    last_modified: Option<HeaderValue>,
}

impl Validators {
    fn of(headers: &HeaderMap) -> Self {
        let etag = headers.get(ETAG).cloned();
        let last_modified = headers.get(LAST_MODIFIED).filter(|_| etag.is_none());
        let date = headers.get(DATE);
        let last_modified = last_modified.filter(|modified| date.is_some_and(|date| is_later(date, modified)));
        Self { last_modified: last_modified.cloned(), etag }
    }

    fn exist(&self) -> bool {
        self.etag.is_some() || self.last_modified.is_some()
    }

    fn ask(&self, headers: &mut HeaderMap) {
        if let Some(etag) = &self.etag {
            headers.insert(IF_NONE_MATCH, etag.clone());
        }
        if let Some(moment) = &self.last_modified {
            headers.insert(IF_MODIFIED_SINCE, moment.clone());
        }
    }
}

/// A moment has no fractions here. A content that changed in the very second in which it was sent could
/// change again in it, and would then look unchanged for ever (RFC 9110 section 8.8.2.2).
fn is_later(date: &HeaderValue, modified: &HeaderValue) -> bool {
    let moment = |value: &HeaderValue| Some(rfc2822::parse(value.to_str().ok()?).ok()?.timestamp());
    moment(date).zip(moment(modified)).is_some_and(|(date, modified)| date > modified)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validators(headers: &[(&str, &str)]) -> Validators {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        Validators::of(&headers.collect())
    }

    #[test]
    fn an_etag_is_preferred_and_a_moment_counts_only_once_it_is_over() {
        let (noon, later) = ("Sun, 22 Nov 2026 12:00:00 GMT", "Sun, 22 Nov 2026 12:00:01 GMT");
        let found = validators(&[("etag", "W/\"1\""), ("last-modified", noon), ("date", later)]);
        assert_eq!((found.etag.unwrap(), found.last_modified), ("W/\"1\"".parse().unwrap(), None));
        let found = validators(&[("last-modified", noon), ("date", later)]);
        assert_eq!(found.last_modified.unwrap(), noon);
        for headers in [
            &[("last-modified", noon), ("date", noon)][..],
            &[("last-modified", noon)],
            &[("last-modified", "yesterday"), ("date", later)],
            &[("date", later)],
        ] {
            assert!(!validators(headers).exist(), "{headers:?}");
        }
    }
}
