//! The headers that repeat a body, so that others on the way can route by them. Whoever reads the body
//! has to see that they say the same: the body is what the server acts on.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::message::{Body, Kind};

/// The method of the message in the body.
pub const MCP_METHOD: HeaderName = HeaderName::from_static("mcp-method");
/// The name, URI or task id that the message is about.
pub const MCP_NAME: HeaderName = HeaderName::from_static("mcp-name");
/// The revision of the protocol.
pub const MCP_PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");

/// The first revision whose requests must repeat method and name.
const REPEATING: &str = "2026-07-28";
/// The methods whose name must be repeated.
const NAMED: [&str; 6] = ["tools/call", "prompts/get", "resources/read", "tasks/get", "tasks/update", "tasks/cancel"];

/// A header that does not say what the body says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// It says something else.
    #[error("the header {0} and the body disagree: send what the body says")]
    Other(&'static str),
    /// It is there more than once.
    #[error("the header {0} occurs twice: send it once")]
    Twice(&'static str),
    /// The revision asks for it.
    #[error("the header {0} is missing: the protocol of {REPEATING} asks for it")]
    Missing(&'static str),
}

const METHOD: &str = "Mcp-Method";
const NAME: &str = "Mcp-Name";
const VERSION: &str = "MCP-Protocol-Version";

/// Whether the headers say what the body says. A batch may repeat only what holds for all of it.
///
/// # Errors
/// The header that does not.
pub fn check(headers: &HeaderMap, body: &Body<'_>) -> Result<(), Mismatch> {
    let method = one(headers, &MCP_METHOD, METHOD)?;
    let name = one(headers, &MCP_NAME, NAME)?;
    let version = one(headers, &MCP_PROTOCOL_VERSION, VERSION)?;
    // some clients name a later revision in the body than the one that was agreed on
    let agreed = version.is_some_and(|version| version.as_bytes() >= REPEATING.as_bytes());
    for message in &body.messages {
        let repeating = agreed && message.kind == Kind::Request;
        compare(method, Some(&*message.method).filter(|method| !method.is_empty()), METHOD, repeating)?;
        let must_name = repeating && NAMED.contains(&&*message.method);
        compare(name, message.name.as_deref(), NAME, must_name)?;
        if agreed && message.method != "initialize" && message.version.is_some() {
            compare(version, message.version.as_deref(), VERSION, false)?;
        }
    }
    Ok(())
}

/// Whether the headers repeat of the body what it asks for, or of what.
pub fn repeat(headers: &HeaderMap) -> bool {
    headers.contains_key(MCP_METHOD) || headers.contains_key(MCP_NAME)
}

/// What the headers say of the message, for who cannot read the body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claimed<'h> {
    /// The method.
    pub method: Option<Cow<'h, str>>,
    /// What it is about.
    pub name: Option<Cow<'h, str>>,
    /// The revision of the protocol, as it was sent.
    pub version: Option<&'h HeaderValue>,
}

/// Reads it in one go; of a header that occurs twice, the first counts.
pub fn claimed(headers: &HeaderMap) -> Claimed<'_> {
    let (mut method, mut name, mut version) = (None, None, None);
    for (field, value) in headers {
        let place = match field.as_str() {
            "mcp-method" => &mut method,
            "mcp-name" => &mut name,
            "mcp-protocol-version" => &mut version,
            _ => continue,
        };
        place.get_or_insert(value);
    }
    Claimed { method: method.and_then(decoded), name: name.and_then(decoded), version }
}

fn one<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
    spelling: &'static str,
) -> Result<Option<&'h HeaderValue>, Mismatch> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() { Err(Mismatch::Twice(spelling)) } else { Ok(first) }
}

fn compare(
    header: Option<&HeaderValue>,
    body: Option<&str>,
    spelling: &'static str,
    required: bool,
) -> Result<(), Mismatch> {
    match header {
        None if required => Err(Mismatch::Missing(spelling)),
        None => Ok(()),
        Some(value) if decoded(value).as_deref() == body => Ok(()),
        Some(_) => Err(Mismatch::Other(spelling)),
    }
}

/// A value as it is meant: plain, or in base64 between `=?base64?` and `?=`.
fn decoded(value: &HeaderValue) -> Option<Cow<'_, str>> {
    let text = str::from_utf8(value.as_bytes()).ok()?.trim_matches([' ', '\t']);
    match text.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) {
        Some(coded) => String::from_utf8(STANDARD.decode(coded).ok()?).ok().map(Cow::Owned),
        None => Some(Cow::Borrowed(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: &str = r#"{"id":1,"method":"tools/call","params":{"name":"zoë"}}"#;
    const MODERN: &str = r#"{"id":1,"method":"tools/call","params":{"name":"echo",
        "_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;

    fn checked(body: &str, headers: &[(&'static str, &str)]) -> Result<(), Mismatch> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        check(&map, &Body::read(body.as_bytes()).unwrap())
    }

    #[test]
    fn headers_that_say_the_same_pass() {
        for (body, headers) in [
            (CALL, &[][..]),
            (CALL, &[("mcp-method", "tools/call")]),
            (CALL, &[("mcp-method", " tools/call\t"), ("mcp-name", "=?base64?em/Dqw==?=")]),
            (CALL, &[("mcp-name", "zoë"), ("mcp-protocol-version", "2025-11-25")]),
            (MODERN, &[]),
            (MODERN, &[("mcp-protocol-version", "2025-11-25")]),
            (MODERN, &[("mcp-method", "tools/call"), ("mcp-name", "echo"), ("mcp-protocol-version", "2026-07-28")]),
            (r#"{"method":"notifications/initialized"}"#, &[]),
            (r#"{"method":"x","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#, &[]),
            (r#"{"id":1,"result":{}}"#, &[("mcp-protocol-version", "2025-11-25")]),
            (
                r#"{"id":0,"method":"initialize","params":{"protocolVersion":"2026-07-28"}}"#,
                &[("mcp-method", "initialize"), ("mcp-protocol-version", "2025-03-26")],
            ),
        ] {
            assert_eq!(checked(body, headers), Ok(()), "{body} {headers:?}");
        }
    }

    #[test]
    fn headers_that_say_something_else_do_not() {
        for (body, headers, mismatch) in [
            (CALL, &[("mcp-method", "ping")][..], Mismatch::Other(METHOD)),
            (CALL, &[("mcp-method", "TOOLS/CALL")], Mismatch::Other(METHOD)),
            (CALL, &[("mcp-name", "echo")], Mismatch::Other(NAME)),
            (CALL, &[("mcp-name", "=?base64?ZWNobw==?=")], Mismatch::Other(NAME)),
            (CALL, &[("mcp-name", "=?base64?!?=")], Mismatch::Other(NAME)),
            (CALL, &[("mcp-method", "tools/call"), ("mcp-method", "ping")], Mismatch::Twice(METHOD)),
            (r#"{"id":1,"method":"ping"}"#, &[("mcp-name", "echo")], Mismatch::Other(NAME)),
            (r#"{"id":1,"result":{}}"#, &[("mcp-method", "tools/call")], Mismatch::Other(METHOD)),
            (r#"[{"id":1,"method":"ping"},{"id":2,"method":"x"}]"#, &[("mcp-method", "ping")], Mismatch::Other(METHOD)),
            (MODERN, &[("mcp-protocol-version", "2026-07-28")], Mismatch::Missing(METHOD)),
            (MODERN, &[("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call")], Mismatch::Missing(NAME)),
            (
                MODERN,
                &[("mcp-method", "tools/call"), ("mcp-name", "echo"), ("mcp-protocol-version", "2027-01-01")],
                Mismatch::Other(VERSION),
            ),
        ] {
            assert_eq!(checked(body, headers), Err(mismatch), "{body} {headers:?}");
        }
    }
}
