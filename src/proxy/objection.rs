//! What speaks against a body that was read: the rule for the record, and the answer for the client.

use std::fmt::Write as _;

use http::StatusCode;
use serde_json::json;

use super::answer::{self, Answer, INVALID_REQUEST, SERVER_ERROR};
use crate::access::Rule;
use crate::audit::OpenRecord;
use crate::mcp::headers::Mismatch;
use crate::mcp::{Body, Call, Kind, Unreadable};
use crate::verdict::Reason;

/// JSON-RPC 2.0: this is no JSON.
const PARSE_ERROR: i32 = -32700;
const METHOD_NOT_FOUND: i32 = -32601;
const INVALID_PARAMS: i32 = -32602;
/// MCP 2026-07-28: a header does not say what the body says.
const HEADER_MISMATCH: i32 = -32020;

/// The longest name that an answer repeats, in characters.
const MAX_NAME: usize = 200;

/// What is denied of all that a message asks for, and by which rule.
pub(super) type Verdict<'c> = Option<(Call<'c>, Rule<'c>)>;

/// A rule that speaks against a request, and what to answer because of it.
#[derive(Debug)]
pub(super) struct Objection {
    rule: String,
    answer: Answer,
    /// Whether it holds where a policy is only tried, for it would hold without any.
    pub(super) holds_always: bool,
}

impl Objection {
    /// Whether it holds in any case.
    pub(super) fn always(self, holds_always: bool) -> Self {
        Self { holds_always, ..self }
    }

    /// Notes the rule and gives the answer.
    pub(super) fn refuse(self, record: &mut OpenRecord) -> Answer {
        record.note(|facts| facts.policy_rule = Some(self.rule.into()));
        self.answer
    }

    /// Notes what would have been refused.
    pub(super) fn report(self, record: &mut OpenRecord) {
        record.note(|facts| {
            facts.would_deny = true;
            facts.policy_rule = Some(self.rule.into());
        });
    }

    fn malformed(status: StatusCode, code: i32, what: &str, message: &str) -> Self {
        let answer = Answer::rpc(status, Reason::MalformedRequest, code, message);
        Self { rule: what.to_owned(), answer, holds_always: false }
    }

    /// More than may be read.
    pub(super) fn too_large() -> Self {
        let message =
            "the request body is larger than this server reads: send less, or ask its operator to raise limits.inspect";
        let answer = Answer::rpc(StatusCode::PAYLOAD_TOO_LARGE, Reason::TooLarge, SERVER_ERROR, message);
        Self { rule: "body: larger than limits.inspect".to_owned(), answer, holds_always: false }
    }

    /// More than can be held back at the moment.
    pub(super) fn no_room() -> Self {
        Self { rule: "body: past limits.inspect_total".to_owned(), answer: answer::no_room(), holds_always: false }
    }

    /// Bytes that stand for others.
    pub(super) fn unreadable_coding() -> Self {
        let message = "the request body is compressed, or in another encoding than UTF-8: send it plain";
        let what = "body: Content-Encoding or charset";
        Self::malformed(StatusCode::UNSUPPORTED_MEDIA_TYPE, INVALID_REQUEST, what, message)
    }

    /// A body that is not one message or batch in one reading.
    pub(super) fn unreadable(why: Unreadable) -> Self {
        let code = if matches!(why, Unreadable::Json(_) | Unreadable::NotUtf8) { PARSE_ERROR } else { INVALID_REQUEST };
        let message = format!("the request body cannot be taken for a message of MCP: {why}");
        Self::malformed(StatusCode::BAD_REQUEST, code, &format!("body: {why}"), &message)
    }

    /// A header that says something else than the body.
    pub(super) fn mismatch(why: Mismatch) -> Self {
        Self::malformed(StatusCode::BAD_REQUEST, HEADER_MISMATCH, &format!("headers: {why}"), &why.to_string())
    }

    /// A batch where none is taken.
    pub(super) fn batch() -> Self {
        let message = "this server takes no batches: send each message by itself";
        Self::malformed(StatusCode::BAD_REQUEST, INVALID_REQUEST, "policy.batches", message)
    }

    /// Calls that the caller may not make: there is a verdict for each message, the call and the rule where one is
    /// denied. `in_result` answers as a server does that knows nothing of what was called; otherwise the status says it.
    pub(super) fn denied(body: &Body<'_>, rule: Rule<'_>, in_result: bool, verdicts: &[Verdict<'_>]) -> Self {
        let scope = if let Rule::Needs { scope, .. } = rule { Some(scope.as_str()) } else { None };
        let asked = body.messages.iter().zip(verdicts).filter(|(message, _)| message.kind == Kind::Request);
        let mut errors = String::new();
        for (message, verdict) in asked {
            let (code, text) = match (*verdict, in_result) {
                (Some((call, _)), true) => unknown(call),
                (Some((call, _)), false) => (SERVER_ERROR, lacking(call, scope)),
                (None, _) => (SERVER_ERROR, "not done: another call of this batch is not allowed".to_owned()),
            };
            let comma = if errors.is_empty() { "" } else { "," };
            let id = message.id.unwrap_or("null");
            // writing to a string does not fail
            let _ = write!(
                errors,
                r#"{comma}{{"jsonrpc":"2.0","id":{id},"error":{}}}"#,
                json!({"code": code, "message": text})
            );
        }
        let answer = if errors.is_empty() {
            // nobody waits for the result of a notification
            let text = verdicts.iter().flatten().next().map_or_else(String::new, |(call, _)| lacking(*call, scope));
            Answer::rpc(StatusCode::FORBIDDEN, Reason::InsufficientScope, SERVER_ERROR, &text)
        } else {
            let status = if in_result { StatusCode::OK } else { StatusCode::FORBIDDEN };
            let errors = if body.is_batch { format!("[{errors}]") } else { errors };
            Answer::with_body(status, Reason::InsufficientScope, errors)
        };
        Self { rule: rule.to_string(), answer: answer.challenging(scope), holds_always: false }
    }
}

/// What a server says that does not have what was called.
fn unknown(call: Call<'_>) -> (i32, String) {
    let either = "it does not exist, or this token may not use it";
    match call {
        Call::Tool(name) => (INVALID_PARAMS, format!("Unknown tool: {}: {either}", short(name))),
        Call::Resource(uri) => (INVALID_PARAMS, format!("Unknown resource: {}: {either}", short(uri))),
        Call::Prompt(name) => (INVALID_PARAMS, format!("Unknown prompt: {}: {either}", short(name))),
        Call::Method(method) => (METHOD_NOT_FOUND, format!("Method not found: {}: {either}", short(method))),
    }
}

/// What is said where the status tells that a right is lacking.
fn lacking(call: Call<'_>, scope: Option<&str>) -> String {
    let what = match call {
        Call::Tool(name) => format!("the tool {}", short(name)),
        Call::Resource(uri) => format!("the resource {}", short(uri)),
        Call::Prompt(name) => format!("the prompt {}", short(name)),
        Call::Method(method) => format!("the method {}", short(method)),
    };
    match scope {
        Some(scope) => format!(
            "this token may not use {what}: it needs the scope {scope}; ask your operator for a token that has it"
        ),
        None => format!("this token may not use {what}: ask your operator for one that may"),
    }
}

fn short(name: &str) -> String {
    name.chars().take(MAX_NAME).collect()
}
