//! The answers that are our own. Each says what happened and what to do next, in the shape of a
//! JSON-RPC error with `"id":null`, which is what MCP clients show to people.

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde_json::json;

use super::upstream::Failure;
use crate::access::Denial;
use crate::verdict::Reason;

/// An answer in the making: the status, the reason for the log, the text for people.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) reason: Reason,
    headers: HeaderMap,
    body: Bytes,
}

/// JSON-RPC 2.0: the request itself is at fault.
pub(super) const INVALID_REQUEST: i32 = -32600;
/// JSON-RPC 2.0, section 5.1: the first of the codes that implementations may define.
pub(super) const SERVER_ERROR: i32 = -32000;

/// Room for a usual body, in bytes.
const USUAL: usize = 256;

impl Answer {
    fn new(status: StatusCode, reason: Reason, message: &str) -> Self {
        let code = if status == StatusCode::BAD_REQUEST { INVALID_REQUEST } else { SERVER_ERROR };
        Self::rpc(status, reason, code, message)
    }

    /// An answer with a code of its own.
    pub(super) fn rpc(status: StatusCode, reason: Reason, code: i32, message: &str) -> Self {
        let mut body = Vec::with_capacity(USUAL);
        // writing into memory does not fail
        let _ = write!(body, r#"{{"jsonrpc":"2.0","id":null,"error":{{"code":{code},"message":"#);
        let _ = serde_json::to_writer(&mut body, message);
        body.extend_from_slice(b"}}");
        Self::with_body(status, reason, body)
    }

    pub(super) fn with_body(status: StatusCode, reason: Reason, body: impl Into<Bytes>) -> Self {
        let mut headers = HeaderMap::with_capacity(6);
        headers.insert(CONTENT_TYPE, const { HeaderValue::from_static("application/json") });
        headers.insert(CACHE_CONTROL, const { HeaderValue::from_static("no-store") });
        Self { status, reason, headers, body: body.into() }
    }

    fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.insert(name, HeaderValue::from_static(value));
        self
    }

    /// The same, naming the scope that is needed if the status says that one is.
    pub(super) fn challenging(mut self, scope: Option<&str>) -> Self {
        if self.status == StatusCode::FORBIDDEN {
            let scope = scope.map_or_else(String::new, |scope| format!(", scope=\"{scope}\""));
            let challenge = format!("Bearer realm=\"mcp\", error=\"insufficient_scope\"{scope}");
            // the characters of a scope are always a value
            self.headers.extend(HeaderValue::try_from(challenge).ok().map(|value| (WWW_AUTHENTICATE, value)));
        }
        self
    }

    /// The response, with its body still apart so that the caller can count it.
    pub(super) fn into_response(self) -> Response<Bytes> {
        let mut response = Response::new(self.body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

// --- Refusals -------------------------------------------------------------------------------

/// RFC 6750 section 3.
const INVALID_TOKEN: &str =
    "Bearer realm=\"mcp\", error=\"invalid_token\", error_description=\"The token is unknown, expired or revoked\"";

/// What the client is told of a refusal. Unknown, expired, revoked and suspended look alike.
pub(super) fn denied(denial: &Denial) -> Answer {
    let answer = |message| Answer::new(denial.status(), denial.reason(), message);
    match denial.reason() {
        Reason::SourceUnavailable => {
            answer("the list of tokens cannot be read at the moment: your token was not judged, try again shortly")
                .with(RETRY_AFTER, "5")
        }
        Reason::MalformedCredential => answer(
            "the Authorization header cannot be read as one bearer token: send exactly one \"Authorization: Bearer <token>\"",
        ),
        Reason::MissingCredential => {
            answer("no token was sent: send \"Authorization: Bearer <token>\" with every request")
                .with(WWW_AUTHENTICATE, "Bearer realm=\"mcp\"")
        }
        _ => {
            let mut answer = answer(
                "the token is not valid: it may be mistyped, expired or revoked; ask your operator for a new one",
            );
            answer.headers.insert(WWW_AUTHENTICATE, const { HeaderValue::from_static(INVALID_TOKEN) });
            answer
        }
    }
}

/// A browser's request from a page that may not call us.
pub(super) fn bad_origin() -> Answer {
    let message = "this Origin may not call this server: its operator can add it to allowed_origins";
    Answer::new(StatusCode::FORBIDDEN, Reason::BadOrigin, message)
}

/// A request that a page may have aimed at this machine under a name of its own.
pub(super) fn bad_host() -> Answer {
    let message = "this Host is not a name of this server: its operator can add it to allowed_hosts";
    Answer::new(StatusCode::FORBIDDEN, Reason::BadOrigin, message)
}

/// A method that is never forwarded.
pub(super) fn method_not_allowed() -> Answer {
    let message = "this method is not allowed here: MCP uses GET, POST and DELETE";
    Answer::new(StatusCode::METHOD_NOT_ALLOWED, Reason::MethodNotAllowed, message)
        .with(ALLOW, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
}

/// A token whose requests are too many at once.
pub(super) fn too_many_streams() -> Answer {
    let message = "this token has as many open requests and streams as it may: end one of them, or wait for one to end";
    Answer::new(StatusCode::TOO_MANY_REQUESTS, Reason::TooManyStreams, message).with(RETRY_AFTER, "1")
}

/// A request for nobody, or for two at once.
pub(super) fn no_one_host() -> Answer {
    let message = "the request does not name one host: send one Host header";
    Answer::new(StatusCode::BAD_REQUEST, Reason::MalformedRequest, message)
}

/// A target that two parsers could read differently.
pub(super) fn bad_target() -> Answer {
    let message = "the request target holds dot segments, backslashes or encoded separators: send the plain path";
    Answer::new(StatusCode::BAD_REQUEST, Reason::MalformedRequest, message)
}

/// A session of somebody else's, or of nobody where it has to be somebody's: as the server itself would answer for one that is gone, so that an
/// honest client begins anew.
pub(super) fn session_mismatch() -> Answer {
    let message = "session not found: initialize a new one";
    Answer::new(StatusCode::NOT_FOUND, Reason::SessionMismatch, message)
}

/// Sessions by ids that no server gives, or too many of them.
pub(super) fn bad_session() -> Answer {
    let message = "the session id cannot be read: send the one that the server gave, and no other beside it";
    Answer::new(StatusCode::BAD_REQUEST, Reason::MalformedRequest, message)
}

/// A wish to go on with a stream that could be anybody's.
pub(super) fn resumes_outside_sessions() -> Answer {
    let message = "a stream is resumed within its session alone: send its Mcp-Session-Id along, or open a new stream";
    Answer::new(StatusCode::BAD_REQUEST, Reason::MalformedRequest, message)
}

/// A body whose coding would be lost on the way.
pub(super) fn bad_framing() -> Answer {
    let message = "the body's framing is not understood: send one Content-Length, or Transfer-Encoding: chunked alone";
    // what follows on the connection may be a part of this request
    Answer::new(StatusCode::BAD_REQUEST, Reason::MalformedRequest, message).with(CONNECTION, "close")
}

/// A value of a header field that would be another one to who reads it behind us.
pub(super) fn untrimmed() -> Answer {
    let message = "the value of a header field begins or ends with white space: send it without";
    Answer::new(StatusCode::BAD_REQUEST, Reason::MalformedRequest, message)
}

/// A field that is judged here and would not arrive.
pub(super) fn nominated() -> Answer {
    let message = "the Connection header names a field that the MCP server has to see: take its name out of there";
    Answer::new(StatusCode::BAD_REQUEST, Reason::MalformedRequest, message)
}

/// A request body past its limit.
pub(super) fn body_too_large() -> Answer {
    let message =
        "the request body is larger than this server takes: send less, or ask its operator to raise limits.body";
    Answer::new(StatusCode::PAYLOAD_TOO_LARGE, Reason::TooLarge, message)
}

/// Nothing may be served without an audit record, and none can be written.
pub(super) fn audit_unavailable() -> Answer {
    let message = "this server cannot write its audit log and serves nothing without: try again shortly";
    Answer::new(StatusCode::SERVICE_UNAVAILABLE, Reason::AuditUnavailable, message).with(RETRY_AFTER, "5")
}

/// A wish to have less that cannot be read.
pub(super) fn bad_narrowing(header: &'static str) -> Answer {
    let message = format!("the header {header} cannot be read: send names or patterns of tools, separated by commas");
    Answer::new(StatusCode::BAD_REQUEST, Reason::MalformedRequest, &message)
}

/// A head that is too long or has too many fields.
pub(super) fn head_too_large(status: StatusCode) -> Answer {
    let message = "the head of the request is larger than this server takes: send fewer or shorter headers";
    Answer::new(status, Reason::TooLarge, message)
}

/// What never became a request: the HTTP library refused it with this status.
pub(super) fn unread(status: StatusCode) -> (Response<Bytes>, Reason) {
    let answer = match status {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE | StatusCode::URI_TOO_LONG => head_too_large(status),
        StatusCode::SERVICE_UNAVAILABLE => {
            let message = "there are too many connections at the moment: try again shortly";
            Answer::new(status, Reason::TooManyConnections, message).with(RETRY_AFTER, "1")
        }
        StatusCode::REQUEST_TIMEOUT => {
            let message = "the request was too long in coming: send it again";
            Answer::new(status, Reason::ClientTimeout, message)
        }
        _ => {
            let message = "this is not a well-formed HTTP request: check its framing and its headers";
            Answer::new(status, Reason::MalformedRequest, message)
        }
    };
    let reason = answer.reason;
    (answer.into_response(), reason)
}

/// More than the caller may have: `what` says of what, and `wait` how long it takes until there may be room.
pub(super) fn rate_limited(what: &str, wait: Duration) -> Answer {
    // rounded up, for whoever comes a moment too soon is refused again
    let seconds = (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1);
    let message = format!("{what}: try again in {seconds} s");
    let mut answer = Answer::new(StatusCode::TOO_MANY_REQUESTS, Reason::RateLimited, &message);
    answer.headers.insert(RETRY_AFTER, seconds.into());
    answer
}

// --- Failures -------------------------------------------------------------------------------

/// What the client is told when the upstream failed.
pub(super) fn failed(failure: &Failure) -> Answer {
    let (status, reason, message) = match failure {
        Failure::Overloaded => return overloaded(),
        Failure::NoRoom => (
            StatusCode::SERVICE_UNAVAILABLE,
            Reason::Overloaded,
            "this server holds back as much as it can of what it has to read: the MCP server has got the request",
        ),
        Failure::Unreachable(_) => (
            StatusCode::BAD_GATEWAY,
            Reason::UpstreamUnreachable,
            "the MCP server behind this proxy cannot be reached: it may be starting or stopped, try again shortly",
        ),
        Failure::Broken(_) => (
            StatusCode::BAD_GATEWAY,
            Reason::UpstreamUnreachable,
            "the MCP server behind this proxy broke off: whether it acted on the request is not known",
        ),
        Failure::Invalid(_) => (
            StatusCode::BAD_GATEWAY,
            Reason::UpstreamInvalid,
            "the MCP server behind this proxy gave an answer that cannot be passed on: tell its operator",
        ),
        Failure::Timeout(_) => (
            StatusCode::GATEWAY_TIMEOUT,
            Reason::UpstreamTimeout,
            "the MCP server behind this proxy did not answer in time: whether it acted on the request is not known",
        ),
        Failure::BodyTooLarge => return body_too_large(),
        Failure::BodyStalled => return body_stalled(),
        Failure::BodyBroken | Failure::ClientGone => return unread_body(),
    };
    Answer::new(status, reason, message)
}

fn overloaded() -> Answer {
    let message = "this server has as many connections open as it can: nothing was sent on, try again shortly";
    Answer::new(StatusCode::SERVICE_UNAVAILABLE, Reason::Overloaded, message).with(RETRY_AFTER, "1")
}

/// A body that has to be read, and no memory for it.
pub(super) fn no_room() -> Answer {
    let message =
        "this server holds back as much as it can of what it has to read: nothing was sent on, try again shortly";
    Answer::new(StatusCode::SERVICE_UNAVAILABLE, Reason::Overloaded, message).with(RETRY_AFTER, "1")
}

fn body_stalled() -> Answer {
    let message = "the request body was too long in coming: send it again, or ask the operator to raise timeouts.body";
    // the rest of it may still come
    Answer::new(StatusCode::REQUEST_TIMEOUT, Reason::ClientTimeout, message).with(CONNECTION, "close")
}

fn unread_body() -> Answer {
    let message = "the request body broke off or was not well-formed: send it again";
    Answer::new(StatusCode::BAD_REQUEST, Reason::MalformedRequest, message)
}

// --- What is answered without a token -------------------------------------------------------

/// A browser asking whether it may ask.
pub(super) fn preflight() -> Answer {
    let mut answer = Answer::with_body(StatusCode::NO_CONTENT, Reason::Preflight, String::new());
    answer.headers.remove(CONTENT_TYPE);
    answer.with(ALLOW, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
}

/// A client looking for OAuth metadata, which must hear in JSON that there is none.
pub(super) fn no_oauth() -> Answer {
    let body = json!({
        "error": "not_found",
        "error_description": "This server uses personal access tokens, not OAuth: send Authorization: Bearer <token>",
    });
    Answer::with_body(StatusCode::NOT_FOUND, Reason::Discovery, body.to_string())
}

/// A client trying to register itself with an authorization server (RFC 7591).
pub(super) fn no_registration() -> Answer {
    let body = json!({
        "error": "access_denied",
        "error_description": "PAT only: send Authorization: Bearer <token>",
    });
    Answer::with_body(StatusCode::FORBIDDEN, Reason::Discovery, body.to_string())
}
