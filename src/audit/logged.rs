//! A line of the log as it is read back, borrowed from the line.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

/// A record, as far as it is looked at. Its text comes from outside: print it by way of `harmless`.
#[derive(Debug, Deserialize)]
#[allow(missing_docs, reason = "the keys of a record, as docs/audit.md explains them")]
pub struct Logged<'l> {
    #[serde(borrow)]
    pub ts: Text<'l>,
    #[serde(borrow)]
    pub event: Text<'l>,
    #[serde(borrow)]
    pub outcome: Option<Text<'l>>,
    #[serde(borrow)]
    pub reason: Option<Text<'l>>,
    #[serde(borrow)]
    pub request_id: Option<Text<'l>>,
    #[serde(borrow)]
    pub pat_id: Option<Text<'l>>,
    #[serde(borrow)]
    pub pat_name: Option<Text<'l>>,
    #[serde(borrow)]
    pub user: Option<Text<'l>>,
    #[serde(borrow)]
    pub client_ip: Option<Text<'l>>,
    #[serde(borrow)]
    pub http_method: Option<Text<'l>>,
    #[serde(borrow)]
    pub path: Option<Text<'l>>,
    pub status: Option<u16>,
    #[serde(borrow)]
    mcp_method: Option<Text<'l>>,
    #[serde(borrow)]
    mcp_tool: Option<Text<'l>>,
    #[serde(borrow, default)]
    mcp_calls: Vec<Call<'l>>,
    #[serde(borrow)]
    pub mcp_session: Option<Text<'l>>,
    pub duration_ms: Option<f64>,
    #[serde(borrow)]
    pub ended: Option<Text<'l>>,
    pub lost: Option<u64>,
}

impl<'l> Logged<'l> {
    /// Reads a line; `None` if it is no record.
    pub fn read(line: &'l [u8]) -> Option<Self> {
        // a list could be read as well, with its elements for the members
        let record: Self = line.starts_with(b"{").then(|| serde_json::from_slice(line).ok())??;
        is_micros(&record.ts.0).then_some(record)
    }

    /// The tools that were called: one, or several in a batch.
    pub fn tools(&self) -> impl Iterator<Item = &str> {
        let calls = self.mcp_calls.iter().filter_map(|call| call.tool.as_ref());
        self.mcp_tool.iter().chain(calls).map(|tool| &*tool.0)
    }

    /// The MCP methods that were called.
    pub fn methods(&self) -> impl Iterator<Item = &str> {
        let calls = self.mcp_calls.iter().filter_map(|call| call.method.as_ref());
        self.mcp_method.iter().chain(calls).map(|method| &*method.0)
    }
}

/// Whether this is the time of a record. They are compared, and shown, as text.
fn is_micros(ts: &str) -> bool {
    let shape = b"0000-00-00T00:00:00.000000Z";
    let fits = |(byte, shape): (u8, &u8)| if *shape == b'0' { byte.is_ascii_digit() } else { byte == *shape };
    ts.len() == shape.len() && ts.bytes().zip(shape).all(fits)
}

/// One call of a batch.
#[derive(Debug, Deserialize)]
struct Call<'l> {
    #[serde(borrow)]
    method: Option<Text<'l>>,
    #[serde(borrow)]
    tool: Option<Text<'l>>,
}

/// A string, borrowed unless it has escapes.
#[derive(Debug, PartialEq, Eq)]
pub struct Text<'l>(pub Cow<'l, str>);

impl<'de: 'l, 'l> Deserialize<'de> for Text<'l> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Owned(text.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_record_is_told() {
        let ts = "\"ts\":\"2026-11-22T08:00:00.123456Z\"";
        let record = format!(
            "{{{ts},\"event\":\"request\",\"mcp_calls\":[{{\"tool\":\"a\"}},{{\"tool\":\"b\\u001b\"}}],\"unknown\":1}}"
        );
        let record = Logged::read(record.as_bytes()).unwrap();
        assert_eq!(record.tools().collect::<Vec<_>>(), ["a", "b\u{1b}"]);
        for line in [
            "",
            "[\"2026-11-22T08:00:00.123456Z\",\"request\"]",
            "{}",
            "text",
            &format!("{{{ts}}}"),
            &format!("{{{ts},\"event\":1}}"),
            "{\"ts\":\"today\",\"event\":\"x\"}",
            "{\"ts\":\"2026-11-22T08:00:00.\\u001b[31mZ\",\"event\":\"x\"}",
        ] {
            assert!(Logged::read(line.as_bytes()).is_none(), "{line}");
        }
    }
}
