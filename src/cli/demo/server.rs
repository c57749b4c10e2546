//! The small MCP server inside `patgate demo`: three harmless tools over Streamable HTTP at `/mcp`.
//!
//! It holds no lock of its own. It believes the `X-Auth-*` headers, as any server behind the
//! proxy does, so its listener belongs on loopback.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::AUTHORIZATION;
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use rmcp::handler::server::tool::Extension;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{CallToolResult, ContentBlock, ProgressNotificationParam};
use rmcp::schemars::{self, JsonSchema};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{RoleServer, ServerHandler, tool, tool_handler, tool_router};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Where the server answers; every other path is a 404.
pub(super) const PATH: &str = "/mcp";

/// What `whoami` reports: its own key, and the header that the proxy injects for it.
const IDENTITY: [(&str, &str); 8] = [
    ("user", "x-auth-user"),
    ("email", "x-auth-email"),
    ("name", "x-auth-name"),
    ("org", "x-auth-org"),
    ("roles", "x-auth-roles"),
    ("scopes", "x-auth-scopes"),
    ("token_id", "x-auth-token-id"),
    ("source", "x-auth-source"),
];

const MAX_FROM: u32 = 20;
const MAX_INTERVAL_MS: u64 = 5_000;

/// How long open responses may take to end once the server is told to stop.
const DRAIN: Duration = Duration::from_millis(500);

/// The pause after a failed accept (no descriptors left), so that the loop does not spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

// ---- the listener -----------------------------------------------------------

/// Serves MCP on `listener` until `shutdown` resolves, then returns within half a second: open
/// event streams are ended, and what has not ended by then is cut.
///
/// Speaks plain HTTP/1.1 and every protocol revision that the MCP library knows: with sessions
/// up to 2025-11-25, stateless from 2026-07-28 on. Only loopback `Host` headers are accepted.
pub(super) async fn serve(listener: TcpListener, shutdown: impl Future<Output = ()> + Send) {
    // A plain JSON answer where nothing has to be streamed reads better after a `curl`.
    let config = StreamableHttpServerConfig::default().with_json_response(true);
    let stop_streams = config.cancellation_token.clone();
    let sessions = Arc::new(LocalSessionManager::default());
    let mcp = StreamableHttpService::new(|| Ok(Demo), sessions, config);

    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let Ok((stream, _peer)) = accepted else {
                    sleep(ACCEPT_BACKOFF).await;
                    continue;
                };
                // a slower stream is still a stream
                let _ = stream.set_nodelay(true);
                let mcp = mcp.clone();
                let service = service_fn(move |request| {
                    let mcp = mcp.clone();
                    async move { Ok::<_, Infallible>(route(&mcp, request).await) }
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .serve_connection(TokioIo::new(stream), service);
                connections.spawn(graceful.watch(connection));
            }
        }
    }

    stop_streams.cancel();
    // Dropping `connections` afterwards cuts whatever did not end in time.
    let _ = timeout(DRAIN, graceful.shutdown()).await;
}

async fn route(
    mcp: &StreamableHttpService<Demo, LocalSessionManager>,
    request: Request<Incoming>,
) -> Response<BoxBody<Bytes, Infallible>> {
    if request.uri().path() == PATH {
        return mcp.handle(request).await;
    }
    let body = Full::from(format!("not found: this server answers at {PATH}\n"));
    let mut response = Response::new(body.boxed());
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

// ---- the tools --------------------------------------------------------------

struct Demo;

#[derive(Deserialize, JsonSchema)]
struct Echo {
    /// What to say.
    text: String,
}

#[derive(Deserialize, JsonSchema)]
struct Countdown {
    /// The number to start from.
    #[schemars(range(min = 1, max = MAX_FROM))]
    from: u32,
    /// Milliseconds between two steps.
    #[serde(default = "default_interval_ms")]
    #[schemars(range(max = MAX_INTERVAL_MS))]
    interval_ms: u64,
}

fn default_interval_ms() -> u64 {
    500
}

#[tool_router]
impl Demo {
    /// Says back the text it is given.
    #[tool(annotations(read_only_hint = true))]
    fn echo(Parameters(Echo { text }): Parameters<Echo>) -> String {
        text
    }

    /// Tells who the proxy says is calling, and whether a credential came through.
    #[tool(annotations(read_only_hint = true))]
    fn whoami(Extension(request): Extension<Parts>) -> CallToolResult {
        CallToolResult::structured(caller(&request.headers))
    }

    /// Counts down to liftoff and, if asked for progress, reports every step.
    #[tool(annotations(read_only_hint = true))]
    async fn countdown(
        Parameters(Countdown { from, interval_ms }): Parameters<Countdown>,
        context: RequestContext<RoleServer>,
    ) -> CallToolResult {
        if !(1..=MAX_FROM).contains(&from) || interval_ms > MAX_INTERVAL_MS {
            return failure(format!("from must be 1 to {MAX_FROM}, interval_ms at most {MAX_INTERVAL_MS}"));
        }
        let token = context.meta.get_progress_token();
        for (done, left) in (1..=from).zip((1..=from).rev()) {
            if let Some(token) = &token {
                let progress = ProgressNotificationParam::new(token.clone(), f64::from(done))
                    .with_total(f64::from(from))
                    .with_message(left.to_string());
                if context.peer.notify_progress(progress).await.is_err() {
                    return failure("the caller has gone".to_owned());
                }
            }
            tokio::select! {
                () = sleep(Duration::from_millis(interval_ms)) => {}
                () = context.ct.cancelled() => return failure("cancelled".to_owned()),
            }
        }
        CallToolResult::success(vec![ContentBlock::text("liftoff")])
    }
}

#[tool_handler(name = "patgate-demo", instructions = "Harmless tools to try the proxy with: echo, whoami, countdown.")]
impl ServerHandler for Demo {}

/// The caller's identity as the request headers tell it; what was not sent is left out. A header
/// sent twice shows both values, so that a spoofed one cannot hide.
fn caller(headers: &HeaderMap) -> Value {
    let mut facts = Map::new();
    for (key, header) in IDENTITY {
        let values: Vec<_> =
            headers.get_all(header).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        if !values.is_empty() {
            facts.insert(key.to_owned(), values.join(", ").into());
        }
    }
    let authorization_seen = headers.contains_key(AUTHORIZATION);
    facts.insert("authorization_seen".to_owned(), authorization_seen.into());
    facts.into()
}

fn failure(reason: String) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(reason)])
}
