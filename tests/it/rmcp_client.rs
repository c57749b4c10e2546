//! A tour of an MCP server with the Rust SDK's own client (`rmcp`), as a program would make it:
//! connect with a bearer token, list the tools, call `whoami`, and time the progress of a
//! `countdown`. It knows nothing of the proxy, so what it sees is what a user's client sees.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rmcp::model::{CallToolRequestParams, ProgressNotificationParam, ProtocolVersion};
use rmcp::service::{ClientInitializeError, NotificationContext, RunningService, ServiceError};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientHandler, ClientLifecycleMode, ClientServiceExt, RoleClient};
use serde_json::{Value, json};

/// The countdown that the tour asks for: this many steps, this far apart.
pub const COUNTDOWN_FROM: u32 = 3;
pub const COUNTDOWN_INTERVAL: Duration = Duration::from_millis(200);

/// What the client saw.
#[derive(Debug)]
pub struct Tour {
    pub server_name: String,
    pub protocol_version: String,
    pub tools: Vec<String>,
    /// The text of `whoami`'s answer: a JSON object.
    pub whoami: String,
    /// Each progress value of the countdown, and how long after the call it arrived.
    pub progress: Vec<(f64, Duration)>,
}

/// The tour in the session way: `initialize`, then an `Mcp-Session-Id` (up to 2025-11-25).
pub async fn tour(url: &str, token: Option<&str>) -> Result<Tour, String> {
    walk(url, token, ClientLifecycleMode::Initialize).await
}

/// The same tour in the stateless way: `server/discover`, then requests that carry everything
/// themselves (2026-07-28).
pub async fn tour_stateless(url: &str, token: Option<&str>) -> Result<Tour, String> {
    let lifecycle = ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] };
    walk(url, token, lifecycle).await
}

/// One call, in the session way.
pub async fn attempt(url: &str, token: &str, tool: &'static str) -> Result<String, String> {
    let mut config = StreamableHttpClientTransportConfig::with_uri(url);
    config.auth_header = Some(token.to_owned());
    let transport = StreamableHttpClientTransport::from_config(config);
    let watcher = ProgressWatcher::default();
    let client = watcher.serve_with_lifecycle(transport, ClientLifecycleMode::Initialize).await;
    let client = client.map_err(|error| refusal(&error))?;
    let told = call(&client, tool, json!({})).await;
    client.cancel().await.map_err(|error| error.to_string())?;
    told
}

async fn walk(url: &str, token: Option<&str>, lifecycle: ClientLifecycleMode) -> Result<Tour, String> {
    let mut config = StreamableHttpClientTransportConfig::with_uri(url);
    config.auth_header = token.map(str::to_owned);
    let transport = StreamableHttpClientTransport::from_config(config);

    let watcher = ProgressWatcher::default();
    let arrivals = Arc::clone(&watcher.arrivals);
    let client = watcher.serve_with_lifecycle(transport, lifecycle).await.map_err(|error| refusal(&error))?;

    let server = client.peer_info().ok_or("the server did not introduce itself")?;
    let server_name = server.server_info.as_ref().map_or_else(String::new, |info| info.name.clone());
    let protocol_version = server.protocol_version.to_string();
    let tools = client.list_all_tools().await.map_err(|error| failure(&error))?;
    let whoami = call(&client, "whoami", json!({})).await?;

    let started = Instant::now();
    let arguments = json!({
        "from": COUNTDOWN_FROM,
        "interval_ms": COUNTDOWN_INTERVAL.as_millis(),
    });
    let landing = call(&client, "countdown", arguments).await?;
    if landing != "liftoff" {
        return Err(format!("the countdown ended with {landing:?}"));
    }
    let progress = arrivals
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .iter()
        .map(|&(value, at)| (value, at.duration_since(started)))
        .collect();

    client.cancel().await.map_err(|error| error.to_string())?;
    Ok(Tour {
        server_name,
        protocol_version,
        tools: tools.into_iter().map(|tool| tool.name.into_owned()).collect(),
        whoami,
        progress,
    })
}

/// Calls a tool and gives the first text of its answer. The library asks for progress by itself.
async fn call(
    client: &RunningService<RoleClient, ProgressWatcher>,
    tool: &'static str,
    arguments: Value,
) -> Result<String, String> {
    let arguments = arguments.as_object().cloned().unwrap_or_default();
    let request = CallToolRequestParams::new(tool).with_arguments(arguments);
    let result = client.call_tool(request).await.map_err(|error| failure(&error))?;
    let text = result.content.first().and_then(|content| content.as_text());
    Ok(text.map_or_else(String::new, |text| text.text.clone()))
}

/// Notes when each progress notification arrives.
#[derive(Default)]
struct ProgressWatcher {
    arrivals: Arc<Mutex<Vec<(f64, Instant)>>>,
}

impl ClientHandler for ProgressWatcher {
    async fn on_progress(&self, progress: ProgressNotificationParam, _context: NotificationContext<RoleClient>) {
        let mut arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        arrivals.push((progress.progress, Instant::now()));
    }
}

/// Why the connection failed. When the server sent a challenge, the challenge says it: the
/// library's own text stops at "Auth required".
fn refusal(error: &ClientInitializeError) -> String {
    match error.auth_challenge() {
        Some(challenge) => format!("refused: {challenge}"),
        None => error.to_string(),
    }
}

/// A failed request, with all its causes, for the same reason.
fn failure(error: &ServiceError) -> String {
    let mut text = error.to_string();
    if let ServiceError::TransportSend(transport) = error {
        let mut cause = transport.error.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
    }
    text
}
