//! What the steps of the line cost that change what passes: the head of a request rewritten, the head of an answer
//! read and rewritten, and the owner of a session looked up.
//!
//! `cargo bench --bench line`. What is made is dropped each time, as it would be.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use divan::Bencher;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, Uri};
use jiff::Timestamp;
use patgate::access::{Credential, Directory, Finding, Generation, Permit};
use patgate::audit::RequestId;
use patgate::proxy::steps::{Rewriter, read_answer, use_session};
use patgate::proxy::{SessionParams, Sessions};
use patgate::token::{TokenDigest, TokenList};
use patgate::trace::TraceContext;

fn main() {
    divan::main();
}

/// What the TypeScript SDK in a Node process sends with a call, a trace of its own, and a claim that is not for it to make.
const REQUEST: [(&str, &str); 14] = [
    ("host", "mcp.example.com"),
    ("connection", "keep-alive"),
    ("authorization", "Bearer opaque"),
    ("accept", "application/json, text/event-stream"),
    ("content-type", "application/json"),
    ("content-length", "150"),
    ("mcp-session-id", "5f0f2f2e-9d9c-4f62-8a2b-0d8f0f6b1c55"),
    ("mcp-protocol-version", "2025-11-25"),
    ("user-agent", "node"),
    ("accept-language", "*"),
    ("accept-encoding", "gzip, deflate"),
    ("sec-fetch-mode", "cors"),
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ("x-auth-user", "root"),
];

/// What a server with the same SDK answers: one event.
const ANSWER: &str = "HTTP/1.1 200 OK\r\nX-Powered-By: Express\r\nAccess-Control-Allow-Origin: *\r\n\
    Access-Control-Expose-Headers: mcp-session-id\r\nContent-Type: text/event-stream\r\n\
    Cache-Control: no-cache, no-transform\r\nmcp-session-id: 5f0f2f2e-9d9c-4f62-8a2b-0d8f0f6b1c55\r\n\
    Date: Tue, 24 Nov 2026 12:00:00 GMT\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n\
    Transfer-Encoding: chunked\r\n\r\n";

fn fields(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let fields = fields.iter();
    fields.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}

/// A permit with everything that an upstream can be told.
fn permit(headers: &HeaderMap) -> Permit {
    let hash = TokenDigest::of("opaque");
    let text = format!(
        "[[tokens]]\nid = \"k3V9mQ2xTa\"\nhash = \"{hash}\"\nuser = \"alice\"\nscopes = [\"mcp:read\"]\n\
         [[users]]\nid = \"alice\"\nemail = \"alice@example.com\"\nname = \"Alice Doe\"\norg = \"acme\"\n\
         roles = [\"developer\"]\n[roles.developer]\nscopes = [\"mcp:read\", \"mcp:write\"]\n"
    );
    let list = TokenList::parse(Path::new("bench"), &text).unwrap();
    let directory = Directory::new(&list, &Arc::default(), Generation(1), "bench");
    let credential = Credential::from_headers(headers).unwrap();
    directory.authenticate(&credential, &Finding::Nobody, Timestamp::now()).unwrap()
}

fn rewriter() -> Rewriter {
    let upstream = "http://127.0.0.1:3000".parse().unwrap();
    let trace = TraceContext::of(&fields(&REQUEST));
    Rewriter::new(&upstream, IpAddr::from([192, 0, 2, 7]), RequestId::draw(), trace)
}

/// The head of a request, written as the upstream gets it.
#[divan::bench(sample_size = 1_000)]
fn rewrite_a_request(bencher: Bencher<'_, '_>) {
    let (rewriter, headers, uri) = (rewriter(), fields(&REQUEST), Uri::from_static("/mcp"));
    let permit = permit(&headers);
    let head = String::from_utf8(rewriter.request(Method::POST, &uri, &headers, &permit).unwrap()).unwrap();
    assert!(head.contains("\r\nx-auth-user: alice\r\n") && !head.contains("root") && !head.contains("opaque"));
    bencher
        .bench_local(|| drop(rewriter.request(Method::POST, black_box(&uri), black_box(&headers), &permit).unwrap()));
}

/// The head of an answer, read from bytes.
#[divan::bench(sample_size = 1_000)]
fn read_an_answer(bencher: Bencher<'_, '_>) {
    bencher.bench_local(|| drop(read_answer(black_box(ANSWER.as_bytes())).unwrap()));
}

/// The same head as the client gets it, its table edited in place.
#[divan::bench(sample_size = 1_000)]
fn rewrite_an_answer(bencher: Bencher<'_, '_>) {
    let rewriter = rewriter();
    let answer: Response<()> = rewriter.answer(read_answer(ANSWER.as_bytes()).unwrap()).unwrap();
    assert!(answer.headers().contains_key("x-request-id") && !answer.headers().contains_key("keep-alive"));
    let answers = bencher.with_inputs(|| read_answer(ANSWER.as_bytes()).unwrap());
    answers.bench_local_values(|answer| drop(rewriter.answer(answer).unwrap()));
}

const SESSIONS: usize = 10_000;

/// Whose session is whose: 10,000 sessions of 1,000 users, used in turn, and repeated by the answers.
#[divan::bench(threads = [1, 2], sample_size = 1_000)]
fn use_a_session(bencher: Bencher<'_, '_>) {
    let sessions = Sessions::new(&SessionParams { capacity: 100_000, idle: Duration::from_hours(24) });
    let uri = Uri::from_static("/mcp");
    let requests: Vec<_> = (0..SESSIONS)
        .map(|number| {
            let id = format!("5f0f2f2e-9d9c-4f62-8a2b-{number:012}");
            let named: HeaderMap =
                [(HeaderName::from_static("mcp-session-id"), id.parse().unwrap())].into_iter().collect();
            (named, format!("user{}", number % 1000))
        })
        .collect();
    let (none, next) = (HeaderMap::new(), AtomicUsize::new(0));
    // as the answer to its `initialize` does
    for (named, user) in &requests {
        assert!(use_session(&sessions, &none, &uri, user, named));
    }
    assert!(!use_session(&sessions, &requests[0].0, &uri, "mallory", &none));
    bencher.bench(|| {
        let (named, user) = &requests[next.fetch_add(1, Ordering::Relaxed) % SESSIONS];
        assert!(use_session(&sessions, named, &uri, user, named));
    });
}

/// A request that names no session, and has none made for it.
#[divan::bench(sample_size = 1_000)]
fn use_no_session(bencher: Bencher<'_, '_>) {
    let sessions = Sessions::new(&SessionParams { capacity: 100_000, idle: Duration::from_hours(24) });
    let (none, uri) = (HeaderMap::new(), Uri::from_static("/mcp"));
    bencher.bench_local(|| use_session(&sessions, black_box(&none), &uri, "alice", &none));
}
