//! Sends spans to a collector in batches: OTLP over HTTP, as protobuf.
//! <https://opentelemetry.io/docs/specs/otlp/#otlphttp>

use std::fs;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use zeroize::Zeroizing;

use super::{LAST_WORDS, Params, span};
use crate::audit::record::AuditRecord;
use crate::https::{self, causes};
use crate::metrics::Counter;
use crate::token::Prefix;

/// How many spans are sent at once, at most, and how long the first of them waits for others.
const BATCH: usize = 512;
const GATHER: Duration = Duration::from_secs(1);

/// For one exchange with the collector, to its last byte.
const EXCHANGE: Duration = Duration::from_secs(10);

/// How long it rests after a failure; twice as long each time, up to a bound.
const RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(30);

/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// Why spans were not sent.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the collector cannot be asked: {0}")]
    Http(String),
    #[error("the collector took longer than {EXCHANGE:?}")]
    Timeout,
    #[error("the collector answered with status {}", .0.as_u16())]
    Status(StatusCode),
    #[error("the headers in {} cannot be used: {why}", file.display())]
    Headers { file: PathBuf, why: String },
}

impl Failure {
    /// Whether the same spans would fail again.
    fn is_final(&self) -> bool {
        matches!(self, Self::Status(status) if !matches!(status.as_u16(), 429 | 502 | 503 | 504))
    }
}

/// The exporter's side of the queue.
#[derive(Debug)]
pub(super) struct Exporting {
    params: Params,
    prefix: Prefix,
    client: https::Client<Full<Bytes>>,
    queue: mpsc::Receiver<AuditRecord>,
    dropped: Arc<Counter>,
    failing: bool,
}

impl Exporting {
    pub(super) fn new(
        params: Params,
        prefix: Prefix,
        queue: mpsc::Receiver<AuditRecord>,
        dropped: Arc<Counter>,
    ) -> Self {
        let client = https::client(params.tls.clone());
        Self { params, prefix, client, queue, dropped, failing: false }
    }

    /// Exports until it is told to stop, and then what is left, if that does not take long.
    pub(super) async fn run(mut self, stopped: oneshot::Receiver<()>) {
        let mut batch = Vec::new();
        let (stop, mut stopping) = watch::channel(false);
        {
            let mut working = pin!(async {
                self.export(&mut batch, &mut stopping).await;
                self.queue.close();
                self.flush(&mut batch).await;
            });
            tokio::select! {
                () = &mut working => {}
                _ = stopped => {
                    stop.send_replace(true);
                    // if that takes too long, the same is to be said
                    let _ = timeout(LAST_WORDS.mul_f64(0.9), working).await;
                }
            }
        }
        let spans = batch.len() + self.queue.len();
        if spans > 0 {
            tracing::warn!(spans, "the last spans could not be sent");
        }
    }

    /// Exports until it is to stop. What is being sent then is not broken off: it may have arrived, and would arrive
    /// again.
    async fn export(&mut self, batch: &mut Vec<AuditRecord>, stopping: &mut watch::Receiver<bool>) {
        loop {
            tokio::select! {
                _ = stopping.wait_for(|stopping| *stopping) => return,
                more = self.gather(batch) => if !more { return },
            }
            self.deliver(batch, stopping).await;
        }
    }

    /// Waits for a record, and then a while for more; `false` if there will be none.
    async fn gather(&mut self, batch: &mut Vec<AuditRecord>) -> bool {
        if self.queue.recv_many(batch, BATCH).await == 0 {
            return false;
        }
        let until = Instant::now() + GATHER;
        while batch.len() < BATCH {
            match timeout_at(until, self.queue.recv_many(batch, BATCH - batch.len())).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        true
    }

    /// Sends a batch, however often it takes, unless the collector refuses it or it is time to stop.
    async fn deliver(&mut self, batch: &mut Vec<AuditRecord>, stopping: &mut watch::Receiver<bool>) {
        let mut pause = RETRY;
        while let Err(failure) = self.send(batch).await {
            if failure.is_final() {
                self.dropped.add(batch.len() as u64);
                break;
            }
            // collectors that come back are not asked by all at once
            tokio::select! {
                _ = stopping.wait_for(|stopping| *stopping) => return,
                () = sleep(pause.mul_f64(0.5 + 0.5 * fastrand::f64())) => {}
            }
            pause = MAX_RETRY.min(pause * 2);
        }
        batch.clear();
    }

    /// Sends all that is left, each batch once.
    async fn flush(&mut self, batch: &mut Vec<AuditRecord>) {
        while !batch.is_empty() || self.queue.recv_many(batch, BATCH).await > 0 {
            if self.send(batch).await.is_err() {
                return;
            }
            batch.clear();
        }
    }

    /// Sends a batch once. A failure is told when it begins and when it is over.
    async fn send(&mut self, batch: &[AuditRecord]) -> Result<(), Failure> {
        let sent = timeout(EXCHANGE, self.exchange(batch)).await.unwrap_or(Err(Failure::Timeout));
        match &sent {
            Ok(rejected) => {
                self.dropped.add(*rejected);
                if std::mem::take(&mut self.failing) {
                    tracing::info!("spans are sent again");
                }
            }
            Err(error) if !self.failing => {
                self.failing = true;
                tracing::warn!(%error, endpoint = %self.params.endpoint, "spans cannot be sent");
            }
            Err(_) => {}
        }
        sent.map(|_| ())
    }

    /// Returns how many spans the collector did not want.
    async fn exchange(&self, batch: &[AuditRecord]) -> Result<u64, Failure> {
        let spans = batch.iter().filter_map(|record| span::of(record, &self.prefix)).collect();
        let body = Full::new(Bytes::from(span::message(spans).encode_to_vec()));
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.params.endpoint.clone();
        if let Some(file) = &self.params.headers_file {
            *request.headers_mut() = headers(file).map_err(|why| Failure::Headers { file: file.clone(), why })?;
        }
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("patgate/", env!("CARGO_PKG_VERSION"))));
        let response = self.client.request(request).await.map_err(|error| Failure::Http(causes(&error)))?;
        if response.status() != StatusCode::OK {
            return Err(Failure::Status(response.status()));
        }
        // the spans have arrived, whatever becomes of the rest of the answer
        let Ok(answer) = Limited::new(response.into_body(), MAX_ANSWER).collect().await else { return Ok(0) };
        let answer = ExportTraceServiceResponse::decode(answer.to_bytes()).unwrap_or_default();
        let rejected = answer.partial_success.map_or(0, |partial| partial.rejected_spans);
        Ok(u64::try_from(rejected).unwrap_or_default())
    }
}

/// One `Name: value` a line. What is wrong is told without the text, which may be secret.
fn headers(file: &Path) -> Result<HeaderMap, String> {
    let text = Zeroizing::new(fs::read_to_string(file).map_err(|error| error.to_string())?);
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        let mut value = HeaderValue::from_str(value.trim()).ok()?;
        value.set_sensitive(true);
        Some((HeaderName::from_bytes(name.trim().as_bytes()).ok()?, value))
    };
    let headers =
        lines.map(|(index, line)| header(line).ok_or_else(|| format!("line {}: write `Name: value`", index + 1)));
    headers.collect()
}
