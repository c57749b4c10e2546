//! The headers of a trace: what is sent on is a well-formed `traceparent`, and a `tracestate` only with the
//! client's own.

use http::{HeaderMap, HeaderValue};
use patgate::trace::TraceContext;

/// The first line is a `tracestate`, each other one a `traceparent`.
pub fn check(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok());
    let mut headers = HeaderMap::new();
    headers.extend(lines.next().map(|state| (http::HeaderName::from_static("tracestate"), state)));
    let sent: Vec<HeaderValue> = lines.collect();
    for parent in &sent {
        headers.append("traceparent", parent.clone());
    }
    let trace = TraceContext::of(&headers);
    let header = trace.header();
    let value = std::str::from_utf8(&header).unwrap();
    let parts: Vec<_> = value.split('-').collect();
    assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [2, 32, 16, 2]);
    assert!(value.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)));
    assert!(parts[1].bytes().any(|byte| byte != b'0') && parts[2].bytes().any(|byte| byte != b'0'));
    let continued = sent.iter().any(|parent| parent.as_bytes().windows(32).any(|id| id == parts[1].as_bytes()));
    assert!(continued || trace.state(&headers).next().is_none(), "the state of another trace is sent on");
    assert!(!continued || sent.len() == 1, "one of several traces was chosen");
}
