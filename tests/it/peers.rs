//! Released MCP servers and clients, and the official conformance suite, through the proxy.
//! What they are and how they are called: `tests/peers/README.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::demo::Demo;
use crate::harness::{Folder, Origin, PATIENCE, Proxy};
use crate::installed::peers;
use crate::rmcp_client::{COUNTDOWN_FROM, COUNTDOWN_INTERVAL, Tour, attempt, tour, tour_stateless};

/// The last revision with sessions, and the first without.
const SESSIONS: &str = "2025-11-25";
const STATELESS: &str = "2026-07-28";

/// How soon a client must have told its user of a refusal, its own start included.
const PROMPTLY: Duration = Duration::from_mins(1);

// --- The installed peers --------------------------------------------------------------------

/// A script of the peers, with what runs it.
pub fn script(path: &str) -> Command {
    let python = Path::new(path).extension().is_some_and(|extension| extension == "py");
    let interpreter = if python { "venv/bin/python" } else { "node_modules/.bin/node" };
    let mut command = Command::new(peers().join(interpreter));
    command.arg(peers().join(path)).stdin(Stdio::null());
    command
}

// --- Servers --------------------------------------------------------------------------------

/// A server on loopback. Dropping it kills it.
struct Server {
    child: Child,
    /// `http://127.0.0.1:port`
    url: String,
}

impl Server {
    fn everything(transport: &str) -> Self {
        Self::start(script("servers/everything.mjs").arg(transport))
    }

    fn python() -> Self {
        Self::start(script("servers/python_server.py").args(["--port", "0"]))
    }

    fn conformance() -> Self {
        Self::start(&mut script("servers/conformance_server.mjs"))
    }

    fn start(command: &mut Command) -> Self {
        let mut complaints = tempfile::tempfile().unwrap();
        command.env("PORT", "0").stdout(Stdio::piped()).stderr(complaints.try_clone().unwrap());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut server = Self { child, url: String::new() };
        let (tell, told) = mpsc::channel();
        // it reads on to the end, for some servers print more and need a reader
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some(address) = line.strip_prefix("listening ") {
                    let _ = tell.send(address.to_owned());
                }
            }
        });
        let Ok(address) = told.recv_timeout(PATIENCE) else {
            let mut text = String::new();
            complaints.rewind().and_then(|()| complaints.read_to_string(&mut text)).unwrap();
            panic!("{command:?} does not listen: {text}");
        };
        server.url = format!("http://{address}");
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A proxy in front of a server, and Alice's token for it.
struct Locked {
    proxy: Proxy,
    token: String,
    _folder: Folder,
}

impl Locked {
    fn new(upstream: &str) -> Self {
        Self::under(upstream, "")
    }

    /// The same, with a policy.
    fn under(upstream: &str, policy: &str) -> Self {
        let folder = Folder::new();
        let token = folder.token("alice", &["--scope", "mcp:read"]);
        let proxy = folder.serve(upstream, policy);
        Self { proxy, token, _folder: folder }
    }

    /// Every request so far was Alice's, was let in and came to a proper end.
    fn assert_all_went_well(&self) {
        let records = self.proxy.audit(4);
        for record in &records {
            assert_eq!((&record["outcome"], &record["user"]), (&"allowed".into(), &"alice".into()), "{record}");
            // a client closes its event stream when it has seen enough
            assert!(["complete", "client_gone"].contains(&record["ended"].as_str().unwrap()), "{record}");
        }
    }
}

// --- Clients --------------------------------------------------------------------------------

/// A client, and how it is to speak.
#[derive(Clone, Copy, Debug)]
struct Client {
    script: &'static str,
    flags: &'static [&'static str],
    /// The revision that comes of it.
    revision: &'static str,
    /// What its user reads when the token is wrong.
    refusal: &'static str,
}

const TS_V1: Client =
    Client { script: "clients/ts-v1.mjs", flags: &[], revision: SESSIONS, refusal: "the token is not valid" };
const TS_V2: Client = Client { script: "clients/ts-v2.mjs", ..TS_V1 };
const PYTHON: Client = Client { script: "clients/python.py", ..TS_V1 };

const TS_V2_STATELESS: Client = Client {
    flags: &["--revision", STATELESS],
    revision: STATELESS,
    refusal: "the server requires authorization (HTTP 401)",
    ..TS_V2
};
const TS_V2_AUTO: Client = Client { flags: &["--revision", "auto"], ..TS_V2_STATELESS };
const PYTHON_STATELESS: Client = Client { flags: &["--revision", STATELESS], revision: STATELESS, ..PYTHON };

const TS_V1_SSE: Client = Client { flags: &["--sse"], refusal: "401", ..TS_V1 };
const TS_V2_SSE: Client = Client { flags: &["--sse"], refusal: "401", ..TS_V2 };
const PYTHON_SSE: Client = Client { flags: &["--sse"], refusal: "401", ..PYTHON };

/// What a client does at a server: one call, and one with progress.
#[derive(Clone, Copy, Debug)]
struct Errand {
    tool: (&'static str, &'static str),
    slow_tool: (&'static str, &'static str),
    steps: u32,
    apart: Duration,
}

const AT_EVERYTHING: Errand = Errand {
    tool: ("echo", r#"{"message":"hello"}"#),
    slow_tool: ("trigger-long-running-operation", r#"{"duration":1,"steps":5}"#),
    steps: 5,
    apart: Duration::from_millis(200),
};
const AT_PYTHON: Errand = Errand {
    tool: ("whoami", "{}"),
    slow_tool: ("countdown", r#"{"n":5,"delay_ms":150}"#),
    steps: 5,
    apart: Duration::from_millis(150),
};
const AT_DEMO: Errand = Errand { slow_tool: ("countdown", r#"{"from":5,"interval_ms":150}"#), ..AT_PYTHON };
const AT_CONFORMANCE: Errand = Errand {
    tool: ("test_simple_text", "{}"),
    slow_tool: ("test_tool_with_progress", "{}"),
    steps: 3,
    // 50 ms in truth, too little to be timed on a busy machine
    apart: Duration::ZERO,
};

impl Client {
    /// Runs the client to its end; `Err` is its own report of a failure.
    fn run(&self, url: &str, token: &str, errand: &Errand) -> Result<Value, Value> {
        let mut command = script(self.script);
        command.arg(url).args(self.flags).env("TOKEN", token);
        command.args(["--tool", errand.tool.0, "--args", errand.tool.1]);
        command.args(["--progress-tool", errand.slow_tool.0, "--progress-args", errand.slow_tool.1]);
        let output = command.output().unwrap();
        let report = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{self:?}: {error}: {}", String::from_utf8_lossy(&output.stderr)));
        if output.status.success() { Ok(report) } else { Err(report) }
    }

    /// The whole way: connect, list, call, follow the progress. Returns the text of the call's result.
    fn visit(&self, url: &str, token: &str, errand: &Errand) -> String {
        let report = self.run(url, token, errand).unwrap_or_else(|report| panic!("{self:?}: {report}"));
        assert_eq!(report["protocolVersion"], self.revision, "{self:?}: {report}");
        let tools = report["tools"].as_array().unwrap();
        assert!(tools.contains(&errand.tool.0.into()), "{self:?}: {report}");

        let progress = report["progress"].as_array().unwrap();
        let arrivals = progress.iter().map(|event| Duration::from_millis(event["at_ms"].as_u64().unwrap()));
        assert_one_at_a_time(&arrivals.collect::<Vec<_>>(), errand.steps, errand.apart);
        report["call"]["content"][0]["text"].as_str().unwrap().to_owned()
    }

    /// A token that nobody knows: the user reads why, and soon.
    fn assert_refused(&self, url: &str, token: &str) {
        let begun = Instant::now();
        let report = self.run(url, token, &AT_EVERYTHING).expect_err("it came in");
        assert!(begun.elapsed() < PROMPTLY, "{self:?} took {:?}", begun.elapsed());
        assert_eq!(report["error"]["status"], 401, "{self:?}: {report}");
        let message = report["error"]["message"].as_str().unwrap();
        assert!(message.contains(self.refusal), "{self:?}: {report}");
    }
}

/// Events that came as they were sent, and not in one piece at the end. A client may miss the last,
/// which comes together with the result.
fn assert_one_at_a_time(arrivals: &[Duration], steps: u32, apart: Duration) {
    let count = u32::try_from(arrivals.len()).unwrap();
    assert!((steps - 1..=steps).contains(&count), "{count} of {steps} events: {arrivals:?}");
    let spread = arrivals[arrivals.len() - 1].saturating_sub(arrivals[0]);
    assert!(spread >= apart * (count - 1) / 2, "{steps} events, {apart:?} apart, came at {arrivals:?}");
}

// --- Through the proxy ----------------------------------------------------------------------

#[test]
fn server_everything_serves_every_client() {
    let server = Server::everything("streamableHttp");
    let locked = Locked::new(&server.url);
    let probing = Client { revision: SESSIONS, ..TS_V2_AUTO };
    for client in [TS_V1, TS_V2, probing, PYTHON] {
        let text = client.visit(&locked.proxy.url("/mcp"), &locked.token, &AT_EVERYTHING);
        assert_eq!(text, "Echo: hello");
    }
    locked.assert_all_went_well();
}

#[test]
fn server_everything_serves_every_client_over_http_and_sse() {
    let server = Server::everything("sse");
    let locked = Locked::new(&server.url);
    for client in [TS_V1_SSE, TS_V2_SSE, PYTHON_SSE] {
        let text = client.visit(&locked.proxy.url("/sse"), &locked.token, &AT_EVERYTHING);
        assert_eq!(text, "Echo: hello");
    }
    locked.assert_all_went_well();
}

#[test]
fn a_server_of_the_python_sdk_hears_who_calls() {
    let server = Server::python();
    let locked = Locked::new(&server.url);
    for client in [TS_V1, TS_V2, TS_V2_STATELESS, TS_V2_AUTO, PYTHON, PYTHON_STATELESS] {
        let text = client.visit(&locked.proxy.url("/mcp"), &locked.token, &AT_PYTHON);
        let seen: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(seen["authorization"], false, "{client:?}: {seen}");
        let identity = seen["headers"].as_object().unwrap();
        let token_id = locked.proxy.audit(1)[0]["pat_id"].clone();
        assert_eq!(identity["x-auth-user"], "alice", "{client:?}");
        assert_eq!(identity["x-auth-scopes"], "mcp:read", "{client:?}");
        assert_eq!(identity["x-auth-source"], "pat", "{client:?}");
        assert_eq!(identity["x-auth-token-id"], token_id, "{client:?}");
        assert_eq!(identity.len(), 4, "{client:?}: {seen}");
    }
    locked.assert_all_went_well();
}

#[test]
fn the_conformance_server_serves_clients_of_both_kinds() {
    let server = Server::conformance();
    let locked = Locked::new(&server.url);
    for client in [TS_V2, TS_V2_STATELESS, TS_V2_AUTO, PYTHON_STATELESS] {
        let text = client.visit(&locked.proxy.url("/mcp"), &locked.token, &AT_CONFORMANCE);
        assert!(text.contains("simple text"), "{client:?}: {text}");
    }
    locked.assert_all_went_well();
}

#[test]
fn the_demonstration_serves_every_client() {
    let demo = Demo::start();
    for client in [TS_V1, TS_V2, TS_V2_STATELESS, TS_V2_AUTO, PYTHON, PYTHON_STATELESS] {
        assert_alice(&client.visit(&demo.url(), &demo.token(), &AT_DEMO));
    }
}

/// The demonstration's `whoami` names Alice and has seen no token.
fn assert_alice(whoami: &str) {
    let seen: Value = serde_json::from_str(whoami).unwrap();
    assert_eq!((&seen["user"], &seen["authorization_seen"]), (&"alice".into(), &false.into()), "{seen}");
    assert_eq!((&seen["roles"], &seen["scopes"]), (&"developer".into(), &"mcp:read mcp:write".into()), "{seen}");
}

#[test]
fn the_rust_sdk_takes_the_tour() {
    let demo = Demo::start();
    let (url, token) = (demo.url(), demo.token());
    let tours = block_on(async { [tour(&url, Some(&token)).await, tour_stateless(&url, Some(&token)).await] });
    for (seen, revision) in tours.into_iter().zip([SESSIONS, STATELESS]) {
        let Tour { server_name, protocol_version, mut tools, whoami, progress } = seen.unwrap();
        assert_eq!((server_name.as_str(), protocol_version.as_str()), ("patgate-demo", revision));
        tools.sort();
        assert_eq!(tools, ["countdown", "echo", "whoami"]);
        assert_alice(&whoami);
        let arrivals: Vec<Duration> = progress.into_iter().map(|(_, at)| at).collect();
        assert_one_at_a_time(&arrivals, COUNTDOWN_FROM, COUNTDOWN_INTERVAL);
    }
}

#[test]
fn a_wrong_token_is_explained_by_every_client() {
    let origin = Origin::plain();
    let locked = Locked::new(&origin.url());
    let strange = Folder::new().token("mallory", &[]);
    for client in [TS_V1, TS_V2, TS_V2_STATELESS, TS_V2_AUTO, PYTHON, PYTHON_STATELESS] {
        client.assert_refused(&locked.proxy.url("/mcp"), &strange);
    }
    for client in [TS_V1_SSE, TS_V2_SSE, PYTHON_SSE] {
        client.assert_refused(&locked.proxy.url("/sse"), &strange);
    }
    let url = locked.proxy.url("/mcp");
    let begun = Instant::now();
    let tours = block_on(async { [tour(&url, Some(&strange)).await, tour_stateless(&url, Some(&strange)).await] });
    for refused in tours {
        let message = refused.expect_err("it came in");
        assert!(message.contains("The token is unknown, expired or revoked"), "{message}");
    }
    assert!(begun.elapsed() < PROMPTLY, "the Rust SDK took {:?}", begun.elapsed());
    assert!(origin.received().is_empty(), "a refused request went through: {:?}", origin.received());
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

// --- Under a policy -------------------------------------------------------------------------

/// A client sees the tools of its errand and no others, and its user reads why another one cannot be called.
fn assert_ruled(
    client: &Client,
    url: &str,
    token: &str,
    errand: &Errand,
    denied: (&'static str, &'static str),
    why: &str,
) {
    let report = client.run(url, token, errand).unwrap_or_else(|report| panic!("{client:?}: {report}"));
    let mut tools: Vec<_> = report["tools"].as_array().unwrap().iter().map(|tool| tool.as_str().unwrap()).collect();
    tools.sort_unstable();
    let mut expected = [errand.tool.0, errand.slow_tool.0];
    expected.sort_unstable();
    assert_eq!(tools, expected, "{client:?}");
    let report = client.run(url, token, &Errand { tool: denied, ..*errand }).expect_err("it was called");
    let message = report["error"]["message"].as_str().unwrap();
    assert!(message.contains(why), "{client:?}: {report}");
}

#[test]
fn every_client_sees_what_it_may_use_and_reads_why_not_more() {
    let policy = |errand: &Errand| {
        format!("[scopes.\"mcp:read\"]\ntools = [\"{}\", \"{}\"]\n", errand.tool.0, errand.slow_tool.0)
    };
    let server = Server::everything("streamableHttp");
    let locked = Locked::under(&server.url, &policy(&AT_EVERYTHING));
    let url = locked.proxy.url("/mcp");
    for client in [TS_V1, TS_V2, PYTHON] {
        let why = "Unknown tool: get-env: it does not exist, or this token may not use it";
        assert_ruled(&client, &url, &locked.token, &AT_EVERYTHING, ("get-env", "{}"), why);
    }

    let server = Server::python();
    let locked = Locked::under(&server.url, &policy(&AT_PYTHON));
    let url = locked.proxy.url("/mcp");
    let denied = ("echo", r#"{"text":"x"}"#);
    for client in [TS_V1, TS_V2, TS_V2_STATELESS, TS_V2_AUTO, PYTHON, PYTHON_STATELESS] {
        assert_ruled(&client, &url, &locked.token, &AT_PYTHON, denied, "Unknown tool: echo: it does not exist, or");
    }
    let refused = block_on(attempt(&url, &locked.token, "echo")).expect_err("it was called");
    assert!(refused.contains("Unknown tool: echo"), "{refused}");

    let named = format!(
        "[policy]\ndenied = \"insufficient_scope\"\n{}[scopes.\"mcp:all\"]\ntools = [\"*\"]\n",
        policy(&AT_PYTHON)
    );
    let locked = Locked::under(&server.url, &named);
    let url = locked.proxy.url("/mcp");
    for client in [TS_V1, TS_V2, TS_V2_STATELESS, PYTHON, PYTHON_STATELESS] {
        assert_ruled(&client, &url, &locked.token, &AT_PYTHON, denied, "mcp:all");
    }
}

#[test]
fn a_list_of_the_older_transport_has_only_what_may_be_used() {
    let server = Server::everything("sse");
    let policy = "[scopes.\"mcp:read\"]\ntools = [\"echo\", \"trigger-long-running-operation\"]\n";
    let locked = Locked::under(&server.url, policy);
    let url = locked.proxy.url("/sse");
    for client in [TS_V1_SSE, TS_V2_SSE, PYTHON_SSE] {
        let report =
            client.run(&url, &locked.token, &AT_EVERYTHING).unwrap_or_else(|report| panic!("{client:?}: {report}"));
        assert_eq!(report["tools"].as_array().unwrap().len(), 2, "{client:?}: {report}");
    }
    assert_ruled(
        &TS_V1_SSE,
        &url,
        &locked.token,
        &AT_EVERYTHING,
        ("get-env", "{}"),
        "this token may not use the tool get-env",
    );
}

// --- Conformance ----------------------------------------------------------------------------

#[test]
fn conformance_with_sessions_is_as_without_the_proxy() {
    assert_conformance_unchanged(SESSIONS);
}

#[test]
fn conformance_without_sessions_is_as_without_the_proxy() {
    assert_conformance_unchanged(STATELESS);
}

/// Runs the suite directly and through the proxy. Every check must come out the same.
fn assert_conformance_unchanged(revision: &str) {
    let server = Server::conformance();
    let locked = Locked::new(&server.url);
    let direct = conformance(&format!("{}/mcp", server.url), revision, "");
    let scenarios = direct.keys().map(|(scenario, _)| scenario).collect::<BTreeSet<_>>().len();
    assert!(scenarios >= 30, "only {scenarios} scenarios were run");
    let failures: Vec<_> = direct.iter().filter(|(_, status)| *status == "FAILURE").collect();
    assert!(failures.is_empty(), "the server itself fails: {failures:#?}");

    let through = conformance(&locked.proxy.url("/mcp"), revision, &locked.token);
    let checks: BTreeSet<_> = direct.keys().chain(through.keys()).collect();
    let differing: Vec<_> = checks
        .into_iter()
        .filter(|check| direct.get(*check) != through.get(*check))
        .map(|check| format!("{check:?}: {:?}, through the proxy {:?}", direct.get(check), through.get(check)))
        .collect();
    assert!(differing.is_empty(), "{differing:#?}");
}

/// The verdict on every check, by scenario and name.
fn conformance(url: &str, revision: &str, token: &str) -> BTreeMap<(String, String), String> {
    let mut command = script("conformance/run.mjs");
    let output = command.args(["--url", url, "--revision", revision]).env("TOKEN", token).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let results: BTreeMap<String, BTreeMap<String, String>> = serde_json::from_slice(&output.stdout).unwrap();
    let verdicts = results.into_iter().flat_map(|(scenario, checks)| {
        checks.into_iter().map(move |(check, status)| ((scenario.clone(), check), status))
    });
    verdicts.collect()
}
