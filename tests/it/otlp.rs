//! Spans, as a collector of OpenTelemetry gets them: true, without secrets, and never in a request's way.

use std::collections::BTreeMap;
use std::io::{BufReader, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::Value;

use crate::harness::{Answer, Folder, Keep, Origin, Proxy, eventually, get, post, read_answer};
use crate::tls::{certificate, client_config, tls_client, tls_in_front_of};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
const CALL: &str =
    r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"a":"canary"}}}"#;
const ACCEPTED: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";

/// A collector that takes everything.
fn collector() -> Origin {
    Origin::answering(ACCEPTED)
}

fn otlp(address: &str, more: &str) -> String {
    format!("[otlp]\nendpoint = \"http://{address}/v1/traces\"\n{more}")
}

/// What the collector got, one by one.
fn messages(collector: &Origin) -> Vec<ExportTraceServiceRequest> {
    let received = collector.received();
    received.iter().map(|received| ExportTraceServiceRequest::decode(&*received.body).unwrap()).collect()
}

fn spans(collector: &Origin) -> Vec<Span> {
    let resources = messages(collector).into_iter().flat_map(|message| message.resource_spans);
    resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).collect()
}

/// Attributes, with values as the audit log writes them.
fn attributes(list: &[KeyValue]) -> BTreeMap<&str, Value> {
    let value = |value: &Option<AnyValue>| match value.as_ref().unwrap().value.as_ref().unwrap() {
        Any::StringValue(text) => Value::from(text.as_str()),
        Any::IntValue(number) => Value::from(*number),
        other => panic!("{other:?}"),
    };
    let found: BTreeMap<_, _> = list.iter().map(|entry| (entry.key.as_str(), value(&entry.value))).collect();
    assert_eq!(found.len(), list.len(), "an attribute stands twice in {list:?}");
    found
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn dropped(proxy: &Proxy) -> u64 {
    let page = proxy.health("/metrics").body;
    let value = page.lines().find_map(|line| line.strip_prefix("patgate_spans_dropped_total "));
    value.unwrap_or_else(|| panic!("{page}")).parse().unwrap()
}

/// What a span must say, by the audit record of its request.
fn expected(record: &Value) -> BTreeMap<&'static str, Value> {
    let keys = [
        ("http.request.method", "http_method"),
        ("url.path", "path"),
        ("http.response.status_code", "status"),
        ("http.request.body.size", "bytes_in"),
        ("http.response.body.size", "bytes_out"),
        ("client.address", "client_ip"),
        ("user_agent.original", "user_agent"),
        ("enduser.id", "user"),
        ("patgate.outcome", "outcome"),
        ("patgate.reason", "reason"),
        ("patgate.ended", "ended"),
        ("patgate.request_id", "request_id"),
        ("patgate.auth_source", "auth_source"),
        ("patgate.pat_id", "pat_id"),
        ("patgate.pat_name", "pat_name"),
        ("patgate.org", "org"),
        ("patgate.mcp_method", "mcp_method"),
        ("patgate.mcp_tool", "mcp_tool"),
        ("patgate.mcp_resource", "mcp_resource"),
        ("patgate.mcp_prompt", "mcp_prompt"),
        ("patgate.mcp_session", "mcp_session"),
        ("patgate.mcp_protocol_version", "mcp_protocol_version"),
        ("patgate.policy", "policy"),
        ("patgate.policy_rule", "policy_rule"),
        ("patgate.source_revision", "source_revision"),
    ];
    let said = keys.into_iter().filter_map(|(key, field)| Some((key, record.get(field)?.clone())));
    let mut said: BTreeMap<_, _> = said.collect();
    said.insert("url.scheme", "http".into());
    if record["outcome"] == "error" {
        said.insert("error.type", record["reason"].clone());
    }
    said
}

#[test]
fn every_request_has_a_span_that_says_what_its_record_says() {
    let collector = collector();
    let origin = Origin::scripted(|received, stream| {
        if received.head.starts_with("POST") {
            return Ok(Keep::Close);
        }
        let answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
        stream.write_all(answer).map(|()| Keep::Open)
    });
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    folder.write("otlp.headers", "X-Api-Key: canary-of-the-collector\n\n  X-Tenant:  acme \n");
    let proxy = folder.serve(&origin.url(), &otlp(&collector.address, "headers_file = \"otlp.headers\"\n"));

    let state = "TraceState: vendor=1,other=2\r\ntracestate: third=3\r\n";
    let parent = |flags: &str| format!("traceparent: 00-{TRACE}-{PARENT}-{flags}\r\n{state}");
    let status = |request: &str| proxy.ask(request).status;
    assert_eq!(status(&get(&token, &parent("01")).replacen("/mcp", &format!("/mcp/{token}?key={token}"), 1)), 200);
    let spread = format!("User-Agent: {token}\r\n{}tracestate: fourth={token}\r\n", parent("01"));
    assert_eq!(status(&get("unknown", &spread)), 401);
    assert_eq!(status(&post(&token, CALL)), 502);
    assert_eq!(status(&get(&token, "").replacen("GET", "BREW", 1)), 405);
    assert_eq!(status(&get(&token, &parent("00"))), 200, "not recorded");
    assert_eq!(status("nonsense\r\n\r\n"), 400, "no request");
    let log = proxy.log();
    // what was not sent yet is sent at the end
    let records = proxy.last_audit();
    assert_eq!(records.len(), 6);

    let spans = spans(&collector);
    let sent: Vec<_> = records.iter().filter(|record| spans.iter().any(|span| is_of(span, record))).collect();
    assert_eq!((spans.len(), sent.len()), (4, 4), "{spans:#?}");
    for record in sent {
        let span = spans.iter().find(|span| is_of(span, record)).unwrap();
        let mut said = attributes(&span.attributes);
        if record["http_method"] == "BREW" {
            assert_eq!(
                (said.remove("http.request.method_original"), span.name.as_str()),
                (Some("BREW".into()), "HTTP")
            );
            assert_eq!(said.insert("http.request.method", "BREW".into()), Some("_OTHER".into()));
        } else {
            assert_eq!(record["http_method"], span.name);
        }
        assert_eq!(said, expected(record));
        let is_call = record["http_method"] == "POST";
        assert_eq!(said.get("patgate.mcp_tool"), is_call.then(|| "echo".into()).as_ref());
        assert_eq!(span.kind, 2, "SERVER");
        let code = span.status.as_ref().map(|status| status.code);
        assert_eq!(code, (record["outcome"] == "error").then_some(2));
        let has_parent = record["trace_id"] == TRACE;
        assert_eq!(
            (hex(&span.parent_span_id), span.flags),
            if has_parent { (PARENT.to_owned(), 0x301) } else { (String::new(), 0x101) }
        );
        // what has a token in it is left out whole
        let has_state = has_parent && record["status"] != 401;
        assert_eq!(span.trace_state, if has_state { "vendor=1,other=2,third=3" } else { "" });
        let began: jiff::Timestamp = record["ts"].as_str().unwrap().parse().unwrap();
        assert_eq!(i128::from(span.start_time_unix_nano) / 1000, began.as_nanosecond() / 1000);
        let took = Duration::from_nanos(span.end_time_unix_nano - span.start_time_unix_nano).as_secs_f64();
        assert!((took * 1000.0 - record["duration_ms"].as_f64().unwrap()).abs() < 0.002, "{took}: {record}");
    }
    for received in collector.received() {
        assert_eq!(received.request_line(), "POST /v1/traces HTTP/1.1");
        assert_eq!(received.values("content-type"), ["application/x-protobuf"]);
        assert_eq!(received.values("x-api-key"), ["canary-of-the-collector"]);
        assert_eq!(received.values("x-tenant"), ["acme"]);
        let text = String::from_utf8_lossy(&received.body).into_owned();
        assert!(
            !text.contains("canary") && !text.contains(&token) && !text.contains(&token[token.len() - 20..]),
            "{text}"
        );
    }
    for message in messages(&collector) {
        let resource = message.resource_spans[0].resource.as_ref().unwrap();
        let version = env!("CARGO_PKG_VERSION");
        let named = [("service.name", "patgate".into()), ("service.version", version.into())];
        assert_eq!(attributes(&resource.attributes), BTreeMap::from(named));
    }
    assert!(!format!("{log:?}").contains("canary"));
}

/// Whether a span is that of a record.
fn is_of(span: &Span, record: &Value) -> bool {
    record["trace_id"] == hex(&span.trace_id) && record["span_id"] == hex(&span.span_id)
}

#[test]
fn a_collector_is_reached_by_tls_only_if_its_certificate_is_trusted() {
    let (collector, own) = (collector(), certificate());
    let port = tls_in_front_of(collector.address.clone(), &own, None);
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    folder.write("cert.pem", &own.cert.pem());
    folder.write("key.pem", &own.signing_key.serialize_pem());
    folder.write("other.pem", &certificate().cert.pem());
    let endpoint = format!("[otlp]\nendpoint = \"https://localhost:{port}/v1/traces\"\n");
    let tls = "[tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n";
    folder.configure(&origin.url(), &(endpoint + tls));
    for (trusted, arrived) in [("other.pem", 0), ("cert.pem", 1)] {
        let authorities = folder.path(trusted).display().to_string();
        let mut proxy = folder.serve_with(&[], &[("SSL_CERT_FILE", &authorities)]);
        let mut client = tls_client(&proxy.address, client_config(&own.cert.pem(), &[]));
        client.write_all(get(&token, "").as_bytes()).unwrap();
        assert_eq!(read_answer(&mut BufReader::new(&mut client)).status, 200);
        if arrived == 0 {
            let error = proxy.await_log("spans cannot be sent")["error"].as_str().unwrap().to_owned();
            assert!(error.contains("certificate"), "{error}");
        }
        proxy.end();
        let spans = spans(&collector);
        assert_eq!(spans.len(), arrived, "{trusted}");
        assert!(spans.iter().all(|span| attributes(&span.attributes)["url.scheme"] == "https"), "{spans:?}");
    }
    assert_eq!(collector.received()[0].values("host"), [format!("localhost:{port}")]);
}

#[test]
fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    let well = Arc::new(AtomicBool::new(false));
    let is_well = Arc::clone(&well);
    let collector = Origin::scripted(move |_, stream| {
        let answer = if is_well.load(Ordering::Relaxed) { ACCEPTED } else { BUSY };
        stream.write_all(answer.as_bytes()).map(|()| Keep::Open)
    });
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let mut proxy = folder.serve(&origin.url(), &otlp(&collector.address, "queue = 4\n"));
    let ask = |proxy: &Proxy| -> Answer { proxy.ask(&get(&token, "")) };
    assert_eq!((ask(&proxy).status, dropped(&proxy)), (200, 0));
    let failure = proxy.await_log("spans cannot be sent");
    assert_eq!(failure["error"], "the collector answered with status 503");
    for _ in 0..20 {
        assert_eq!(ask(&proxy).status, 200);
    }
    assert_eq!(proxy.audit(21).len(), 21);
    // one is being tried, and four wait
    assert_eq!(dropped(&proxy), 16);

    well.store(true, Ordering::Relaxed);
    proxy.await_log("spans are sent again");
    let failures = collector.received().len() - 1;
    assert_eq!(ask(&proxy).status, 200);
    let tried = 1 + failures;
    eventually("all spans that fitted", || {
        let arrived = spans(&collector).len().checked_sub(failures)?;
        (arrived == 6).then_some(())
    });
    assert!(collector.received().len() > tried);
    assert_eq!(dropped(&proxy), 16);
    let told = proxy.log().iter().filter(|entry| entry["message"] == "spans cannot be sent").count();
    assert_eq!(told, 1, "a failure is told once");
}

#[test]
fn what_the_collector_refuses_is_dropped() {
    let answer = |spans| {
        let partial_success = ExportTracePartialSuccess { rejected_spans: spans, error_message: String::new() };
        let body = ExportTraceServiceResponse { partial_success: Some(partial_success) }.encode_to_vec();
        [format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes(), body].concat()
    };
    let origin = Origin::plain();
    for (answer, logged) in [
        (answer(1), false),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec(), true),
        (b"HTTP/1.1 307 See There\r\nlocation: /v2\r\ncontent-length: 0\r\n\r\n".to_vec(), true),
    ] {
        let collector = Origin::scripted(move |_, stream| stream.write_all(&answer).map(|()| Keep::Open));
        let folder = Folder::new();
        let token = folder.token("alice", &[]);
        let proxy = folder.serve(&origin.url(), &otlp(&collector.address, ""));
        assert_eq!(proxy.ask(&get(&token, "")).status, 200);
        eventually("a dropped span", || (dropped(&proxy) == 1).then_some(()));
        assert_eq!(collector.received().len(), 1, "what is refused is not sent again");
        assert_eq!(proxy.log().iter().any(|entry| entry["message"] == "spans cannot be sent"), logged);
    }
}

#[test]
fn neither_start_nor_end_waits_for_a_collector_that_says_nothing() {
    // connections are made there, and nobody answers
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let mut proxy = folder.serve(&origin.url(), &otlp(&address, ""));
    assert_eq!(proxy.ask(&get(&token, "")).status, 200);
    let told = Instant::now();
    proxy.signal("TERM");
    assert!(proxy.wait().success());
    assert!(told.elapsed() < Duration::from_secs(6), "{:?}", told.elapsed());
    assert_eq!(proxy.await_log_after_end("the last spans could not be sent")["spans"], 1);
    assert_eq!(proxy.audit_so_far().len(), 1);
}

#[test]
fn spans_that_are_on_their_way_when_the_process_ends_arrive_once() {
    let collector = Origin::scripted(|_, stream| {
        // longer than the end takes by itself
        std::thread::sleep(Duration::from_millis(500));
        stream.write_all(ACCEPTED.as_bytes()).map(|()| Keep::Open)
    });
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let mut proxy = folder.serve(&origin.url(), &otlp(&collector.address, ""));
    assert_eq!(proxy.ask(&get(&token, "")).status, 200);
    eventually("a batch on its way", || (!collector.received().is_empty()).then_some(()));
    proxy.end();
    assert_eq!(spans(&collector).len(), 1);
}

#[test]
fn headers_that_cannot_be_used_are_told_of_without_their_text() {
    let collector = collector();
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    folder.write("otlp.headers", "X-Tenant: acme\ncanary\n");
    let mut proxy = folder.serve(&origin.url(), &otlp(&collector.address, "headers_file = \"otlp.headers\"\n"));
    assert_eq!(proxy.ask(&get(&token, "")).status, 200);
    let error = proxy.await_log("spans cannot be sent")["error"].as_str().unwrap().to_owned();
    assert!(error.contains("otlp.headers cannot be used: line 2: write `Name: value`"), "{error}");
    assert!(!error.contains("canary") && collector.received().is_empty());
    folder.write("otlp.headers", "X-Tenant: acme\n");
    proxy.await_log("spans are sent again");
    assert_eq!(spans(&collector).len(), 1);
}
