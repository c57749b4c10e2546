//! What a record says of the MCP in a request: who was called, never with what, unless that is asked for.

use std::borrow::Cow;

use http::HeaderMap;
use serde::Serialize;
use sha2::{Digest, Sha256};
use strum::IntoStaticStr;

use super::record::{harmless, shown};
use crate::digits;
use crate::mcp::headers::{self, Claimed};
use crate::mcp::{Body, Call, JsonError, MAX_DEPTH, Message, Reader};
use crate::token::Prefix;

/// What is kept of the arguments of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    /// As many bytes of them as text; none if not at all.
    pub text: Option<usize>,
    /// The members whose values are masked in it, whatever their case.
    pub mask: Vec<Box<str>>,
    /// The SHA-256 of all of them, as they were sent.
    pub sha256: bool,
}

/// Where the facts come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum McpSource {
    /// From what the server acts on.
    Body,
    /// From what the client says of it, for the body was not read.
    Headers,
}

/// What is known of the MCP in a request.
#[derive(Clone, Debug)]
pub struct McpFacts {
    /// Where it comes from.
    pub source: McpSource,
    /// What is called: once, or more often in a batch.
    pub calls: Vec<McpCall>,
    /// The revision of the protocol.
    pub version: Option<Box<str>>,
}

/// One call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct McpCall {
    /// The method; none in a response.
    pub method: Option<Box<str>>,
    /// The name of the tool.
    pub tool: Option<Box<str>>,
    /// The URI of the resource, without what could be a secret in it.
    pub resource: Option<Box<str>>,
    /// The name of the prompt.
    pub prompt: Option<Box<str>>,
    /// The arguments, masked and cut.
    pub arguments: Option<Box<str>>,
    /// Their SHA-256.
    pub arguments_sha256: Option<Box<str>>,
}

/// One call as it is written. The names of the fields are those in a batch.
#[derive(Debug, Default, Serialize)]
pub(super) struct ShownCall<'c> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) method: Option<Cow<'c, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tool: Option<Cow<'c, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) resource: Option<Cow<'c, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) prompt: Option<Cow<'c, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) arguments: Option<Cow<'c, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) arguments_sha256: Option<Cow<'c, str>>,
}

impl McpFacts {
    /// What the headers say, if they say anything.
    pub fn of_headers(headers: &HeaderMap) -> Option<Self> {
        let Claimed { method, name, version } = headers::claimed(headers);
        let version = version.map(|value| shown(value.as_bytes()).into());
        if method.is_none() && version.is_none() {
            return None;
        }
        let call = method.map(|method| {
            let call = McpCall::named(&method, name.as_deref());
            McpCall { method: Some(shown(method.as_bytes()).into()), ..call }
        });
        Some(Self { source: McpSource::Headers, calls: call.into_iter().collect(), version })
    }

    /// What a body says.
    pub fn of_body(body: &Body<'_>, arguments: &Arguments) -> Self {
        let version = body.messages.iter().find_map(|message| message.version.as_deref());
        let version = version.map(|version| shown(version.as_bytes()).into());
        Self {
            source: McpSource::Body,
            calls: body.messages.iter().map(|message| McpCall::new(message, arguments)).collect(),
            version,
        }
    }

    /// What is known now that the body was read. The version may have been told by a header before.
    pub fn after(self, headers: Option<Box<Self>>) -> Self {
        let version = self.version.or_else(|| headers.and_then(|headers| headers.version));
        Self { version, ..self }
    }
}

impl McpCall {
    fn new(message: &Message<'_>, wanted: &Arguments) -> Self {
        let call = match message.call() {
            Some(Call::Tool(name)) => Self { tool: text(name), ..Self::default() },
            Some(Call::Resource(uri)) => Self { resource: text(&bare(uri)), ..Self::default() },
            Some(Call::Prompt(name)) => Self { prompt: text(name), ..Self::default() },
            Some(Call::Method(_)) | None => Self::default(),
        };
        let arguments = message.arguments.filter(|_| wanted.sha256 || wanted.text.is_some());
        Self {
            method: text(&message.method),
            arguments: arguments.zip(wanted.text).map(|(raw, limit)| masked(raw, &wanted.mask, limit)),
            arguments_sha256: arguments.filter(|_| wanted.sha256).map(|raw| hex(&Sha256::digest(raw)).into()),
            ..call
        }
    }

    /// The call without the secrets of tokens that begin in this way.
    pub(super) fn shown(&self, prefix: &Prefix) -> ShownCall<'_> {
        fn masked<'c>(text: Option<&'c str>, prefix: &Prefix) -> Option<Cow<'c, str>> {
            text.map(|text| prefix.mask(Cow::Borrowed(text)))
        }
        ShownCall {
            method: masked(self.method.as_deref(), prefix),
            tool: masked(self.tool.as_deref(), prefix),
            resource: masked(self.resource.as_deref(), prefix),
            prompt: masked(self.prompt.as_deref(), prefix),
            arguments: masked(self.arguments.as_deref(), prefix),
            arguments_sha256: masked(self.arguments_sha256.as_deref(), prefix),
        }
    }

    /// What the name in a header stands for, by the method in another.
    fn named(method: &str, name: Option<&str>) -> Self {
        let Some(name) = name else { return Self::default() };
        match method {
            "tools/call" => Self { tool: text(name), ..Self::default() },
            "prompts/get" => Self { prompt: text(name), ..Self::default() },
            "resources/read" => Self { resource: text(&bare(name)), ..Self::default() },
            _ => Self::default(),
        }
    }
}

/// A session's id is as good as a key to it: the log has the beginning of its SHA-256.
pub fn session_digest(sha256: &[u8; 32]) -> Box<str> {
    hex(sha256.get(..8).unwrap_or_default()).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| digits::hex::<2>((*byte).into())).map(char::from).collect()
}

fn text(text: &str) -> Option<Box<str>> {
    (!text.is_empty()).then(|| shown(text.as_bytes()).into())
}

/// A URI without user, password, query and fragment.
fn bare(uri: &str) -> Cow<'_, str> {
    let uri = uri.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = uri.split_once("://") else { return uri.into() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{host}{path}").into(),
        None => uri.into(),
    }
}

/// Arguments as text, with the values of some members replaced, cut to a bound.
fn masked(raw: &str, mask: &[Box<str>], limit: usize) -> Box<str> {
    let mut out = String::new();
    let mut reader = Reader::new(raw, MAX_DEPTH);
    let mut done = 0;
    // it was read before, so it can be read
    let _ = mask_value(&mut reader, mask, &mut |range: std::ops::Range<usize>| {
        out.push_str(raw.get(done..range.start).unwrap_or_default());
        out.push_str("\"***\"");
        done = range.end;
    });
    out.push_str(raw.get(done..).unwrap_or_default());
    let out = harmless(&out);
    let end = out.floor_char_boundary(limit);
    if end < out.len() { format!("{}…", out.get(..end).unwrap_or_default()).into() } else { out.into() }
}

fn mask_value(
    reader: &mut Reader<'_>,
    mask: &[Box<str>],
    hide: &mut dyn FnMut(std::ops::Range<usize>),
) -> Result<(), JsonError> {
    match reader.peek()? {
        b'{' => reader.members(|reader, key| {
            if mask.iter().any(|name| name.eq_ignore_ascii_case(&key)) {
                let start = reader.start()?;
                reader.skip()?;
                hide(start..reader.position());
                return Ok(());
            }
            mask_value(reader, mask, hide)
        }),
        b'[' => reader.items(|reader| mask_value(reader, mask, hide)),
        _ => reader.skip(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(body: &str, arguments: &Arguments) -> Vec<McpCall> {
        McpFacts::of_body(&Body::read(body.as_bytes()).unwrap(), arguments).calls
    }

    #[test]
    fn a_call_is_told_without_its_arguments() {
        let body = r#"[{"id":1,"method":"tools/call","params":{"name":"echo","arguments":{"password":"canary"}}},
            {"id":2,"method":"resources/read","params":{"uri":"db://user:canary@host/table?key=canary#canary"}},
            {"id":3,"method":"prompts/get","params":{"name":"greet\u202e"}},{"id":4,"result":{"secret":"canary"}},
            {"id":5,"method":"subscriptions/listen","params":{"notifications":{"resourceSubscriptions":["a:b?canary","c:d"]}}}]"#;
        let calls = calls(body, &Arguments::default());
        let prefix = Prefix::default();
        let told: Vec<_> = calls.iter().map(|call| call.shown(&prefix)).collect();
        let told = serde_json::to_string(&told).unwrap();
        assert_eq!(
            told,
            r#"[{"method":"tools/call","tool":"echo"},{"method":"resources/read","resource":"db://host/table"},{"method":"prompts/get","prompt":"greet�"},{},{"method":"subscriptions/listen","resource":"a:b"}]"#
        );
    }

    #[test]
    fn arguments_are_masked_and_cut_where_they_are_asked_for() {
        let body = r#"{"id":1,"method":"tools/call","params":{"name":"t","arguments":{"a":[{"Password" : {"x":"canary"}},1.50],"token":"canary","b":"ä"}}}"#;
        let mut wanted = Arguments { text: Some(1000), mask: vec!["password".into(), "TOKEN".into()], sha256: true };
        let told = &calls(body, &wanted)[0];
        assert_eq!(told.arguments.as_deref(), Some(r#"{"a":[{"Password" : "***"},1.50],"token":"***","b":"ä"}"#));
        let raw = Body::read(body.as_bytes()).unwrap().messages[0].arguments.unwrap();
        assert_eq!(told.arguments_sha256.as_deref(), Some(&*hex(&Sha256::digest(raw))));
        wanted.text = Some(5);
        assert_eq!(calls(body, &wanted)[0].arguments.as_deref(), Some("{\"a\":…"));
    }

    #[test]
    fn headers_tell_what_the_body_does_not() {
        let headers = |fields: &[(&'static str, &'static str)]| {
            fields
                .iter()
                .map(|(name, value)| (http::HeaderName::from_static(name), http::HeaderValue::from_static(value)))
                .collect::<HeaderMap>()
        };
        assert!(McpFacts::of_headers(&headers(&[("mcp-session-id", "x")])).is_none());
        let told = McpFacts::of_headers(&headers(&[
            ("mcp-method", "tools/call"),
            ("mcp-name", "=?base64?ZWNobw==?="),
            ("mcp-protocol-version", "2026-07-28"),
        ]))
        .unwrap();
        assert_eq!(told.source, McpSource::Headers);
        assert_eq!(
            (told.calls[0].method.as_deref(), told.calls[0].tool.as_deref()),
            (Some("tools/call"), Some("echo"))
        );
        assert_eq!(told.version.as_deref(), Some("2026-07-28"));
        let body = Body::read(br#"{"id":1,"method":"ping"}"#).unwrap();
        let told = McpFacts::of_body(&body, &Arguments::default()).after(Some(told.into()));
        assert_eq!((told.source, told.version.as_deref()), (McpSource::Body, Some("2026-07-28")));
    }
}
