//! The audit record: one for every request, written exactly once.

mod by_token;
mod chain;
mod json;
mod log;
mod logged;
mod mcp;
mod names;
mod reader;
mod record;
mod sink;
#[cfg(feature = "otlp")]
mod spans;
#[cfg(not(feature = "otlp"))]
#[path = "without_spans.rs"]
mod spans;
mod verify;
mod writer;

pub use by_token::ByToken;
pub use chain::{Hash, Head, Sealed};
pub use log::{AuditLog, Destination, OnLoss, Params, Rotation, Writer};
pub use logged::{Logged, Text};
pub use mcp::{Arguments, McpCall, McpFacts, McpSource, session_digest};
pub use names::siblings;
pub use reader::{Line, Lines};
pub use record::{AuditRecord, Event, OpenRecord, RequestId, harmless, is_harmless};
pub use spans::Params as SpanParams;
pub use verify::{Fault, Finding, Verification};
