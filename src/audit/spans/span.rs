//! A span from an audit record, with the names of the semantic conventions for HTTP servers; what these do
//! not know has the name that it has in the audit log, after `patgate.`.
//! <https://opentelemetry.io/docs/specs/semconv/http/http-spans/>

use std::borrow::Cow;

use http::Method;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, SpanFlags, Status};

use crate::audit::record::AuditRecord;
use crate::token::Prefix;
use crate::verdict::Outcome;

const NAME: &str = env!("CARGO_PKG_NAME");
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The methods that have a name; others could be anything.
const METHODS: [Method; 9] = [
    Method::CONNECT,
    Method::DELETE,
    Method::GET,
    Method::HEAD,
    Method::OPTIONS,
    Method::PATCH,
    Method::POST,
    Method::PUT,
    Method::TRACE,
];

/// The message that hands spans over.
pub(super) fn message(spans: Vec<Span>) -> ExportTraceServiceRequest {
    let attributes = [text("service.name", NAME), text("service.version", VERSION)].into();
    let scope = InstrumentationScope { name: NAME.to_owned(), version: VERSION.to_owned(), ..Default::default() };
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..Default::default() }];
    let resource = Some(Resource { attributes, ..Default::default() });
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { resource, scope_spans, ..Default::default() }] }
}

/// The span of a request; none where no request could be read.
pub(super) fn of(record: &AuditRecord, prefix: &Prefix) -> Option<Span> {
    let trace = record.trace?;
    let parent = trace.parent_id();
    let start = u64::try_from(record.at.as_nanosecond()).unwrap_or_default();
    let took = u64::try_from(record.duration.as_nanos()).unwrap_or(u64::MAX);
    let method = record.method.as_ref().filter(|method| METHODS.contains(method));
    let is_error = record.reason.outcome() == Outcome::Error;
    let mut flags = u32::from(trace.flags()) | SpanFlags::ContextHasIsRemoteMask as u32;
    if parent.is_some() {
        flags |= SpanFlags::ContextIsRemoteMask as u32;
    }
    Some(Span {
        trace_id: trace.trace_id().to_bytes(),
        span_id: trace.span_id().to_bytes(),
        trace_state: trace_state(record, prefix).to_owned(),
        parent_span_id: parent.map(|parent| parent.to_bytes()).unwrap_or_default(),
        flags,
        // no path: there may be as many as clients think of
        name: method.map_or("HTTP", Method::as_str).to_owned(),
        kind: SpanKind::Server.into(),
        start_time_unix_nano: start,
        end_time_unix_nano: start.saturating_add(took),
        attributes: attributes(record, prefix, method),
        status: is_error.then(|| Status { code: StatusCode::Error.into(), ..Default::default() }),
        ..Default::default()
    })
}

/// The client's `tracestate`. With a token masked in it, it would not be well-formed any more: then there is none.
fn trace_state<'r>(record: &'r AuditRecord, prefix: &Prefix) -> &'r str {
    let state = record.trace_state.as_deref().unwrap_or_default();
    if prefix.mask(state.into()) == state { state } else { "" }
}

/// What the record says, masked as it is there.
fn attributes(record: &AuditRecord, prefix: &Prefix, method: Option<&Method>) -> Vec<KeyValue> {
    let line = record.line(prefix);
    let (outcome, reason) = (<&str>::from(line.outcome), <&str>::from(line.reason));
    let (address, end) = (line.client_ip.map(|ip| ip.to_string()), line.ended.map(<&str>::from));
    let (known, original) = match method {
        Some(method) => (method.as_str(), None),
        None => ("_OTHER", line.http_method.as_deref()),
    };
    let texts: [(&'static str, Option<Cow<'_, str>>); _] = [
        ("http.request.method", Some(known.into())),
        ("http.request.method_original", original.map(Cow::from)),
        ("url.scheme", record.secure.map(|secure| if secure { "https" } else { "http" }.into())),
        ("url.path", line.path),
        ("client.address", address.map(Cow::from)),
        ("user_agent.original", line.user_agent),
        ("enduser.id", line.user.map(Cow::from)),
        ("error.type", (line.outcome == Outcome::Error).then_some(reason.into())),
        ("patgate.outcome", Some(outcome.into())),
        ("patgate.reason", Some(reason.into())),
        ("patgate.ended", end.map(Cow::from)),
        ("patgate.request_id", Some(line.request_id.into())),
        ("patgate.auth_source", line.auth_source.map(Cow::from)),
        ("patgate.pat_id", line.pat_id.map(Cow::from)),
        ("patgate.pat_name", line.pat_name.map(Cow::from)),
        ("patgate.org", line.org.map(Cow::from)),
        ("patgate.mcp_method", line.mcp_method),
        ("patgate.mcp_tool", line.mcp_tool),
        ("patgate.mcp_resource", line.mcp_resource),
        ("patgate.mcp_prompt", line.mcp_prompt),
        ("patgate.mcp_session", line.mcp_session.map(Cow::from)),
        ("patgate.mcp_protocol_version", line.mcp_protocol_version.map(Cow::from)),
        ("patgate.policy", line.policy.map(Cow::from)),
        ("patgate.policy_rule", line.policy_rule),
        ("patgate.source_revision", line.source_revision.map(Cow::from)),
    ];
    let numbers = [
        ("http.response.status_code", line.status.map(i64::from)),
        ("http.request.body.size", i64::try_from(line.bytes_in).ok()),
        ("http.response.body.size", i64::try_from(line.bytes_out).ok()),
    ];
    let texts = texts.into_iter().filter_map(|(key, value)| Some(text(key, value?)));
    let numbers = numbers.into_iter().filter_map(|(key, value)| Some(attribute(key, Value::IntValue(value?))));
    texts.chain(numbers).collect()
}

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}
