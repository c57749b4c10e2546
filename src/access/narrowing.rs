//! What a client asks to be kept from itself, by headers: it can have less than its token may, never more.

use http::{HeaderMap, HeaderName};

use crate::token::{Name, NameRules, Pattern};

/// Only tools that change nothing.
pub const X_MCP_READONLY: HeaderName = HeaderName::from_static("x-mcp-readonly");
/// Only these tools.
pub const X_MCP_TOOLS: HeaderName = HeaderName::from_static("x-mcp-tools");
/// Not these tools.
pub const X_MCP_EXCLUDE_TOOLS: HeaderName = HeaderName::from_static("x-mcp-exclude-tools");

/// More patterns than these are a mistake.
const MAX_PATTERNS: usize = 100;

/// The wishes of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Narrowing {
    read_only: bool,
    tools: NameRules,
}

impl Narrowing {
    /// Reads the headers. Several of one name count together.
    ///
    /// # Errors
    /// The header that cannot be read: to ignore it would give the client more than it asked for.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, &'static str> {
        let read_only = headers.get_all(X_MCP_READONLY).iter().any(|value| {
            let value = value.as_bytes().trim_ascii();
            !(value.is_empty() || value == b"0" || value.eq_ignore_ascii_case(b"false"))
        });
        let allow = patterns(headers, &X_MCP_TOOLS).ok_or("X-MCP-Tools")?;
        let deny = patterns(headers, &X_MCP_EXCLUDE_TOOLS).ok_or("X-MCP-Exclude-Tools")?;
        let allow = (!allow.is_empty()).then(|| allow.into());
        Ok(Self { read_only, tools: NameRules { allow, deny: deny.into() } })
    }

    /// Whether it leaves everything as it is.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a tool is left in.
    ///
    /// # Errors
    /// The header that leaves it out.
    pub(super) fn check(&self, name: &Name<'_>, is_read_only: impl Fn() -> bool) -> Result<(), &'static str> {
        if self.read_only && !is_read_only() {
            return Err("X-MCP-Readonly");
        }
        if self.tools.denying(name).is_some() {
            return Err("X-MCP-Exclude-Tools");
        }
        if self.tools.allow.is_some() && self.tools.allowing(name).is_none() {
            return Err("X-MCP-Tools");
        }
        Ok(())
    }
}

fn patterns(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<Pattern>> {
    let mut found = Vec::new();
    for value in headers.get_all(name) {
        for text in value.to_str().ok()?.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            found.push(Pattern::parse(text).ok()?);
        }
    }
    (found.len() <= MAX_PATTERNS).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn narrowing(fields: &[(&'static str, &str)]) -> Result<Narrowing, &'static str> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        Narrowing::from_headers(&headers)
    }

    #[test]
    fn headers_leave_tools_out() {
        let check = |fields: &[(&'static str, &str)], tool| {
            narrowing(fields).unwrap().check(&Name::Plain(tool), || tool.starts_with("get_"))
        };
        for (fields, tool, verdict) in [
            (&[][..], "get_a", Ok(())),
            (&[("x-mcp-readonly", "true")], "get_a", Ok(())),
            (&[("x-mcp-readonly", "true")], "set_a", Err("X-MCP-Readonly")),
            (&[("x-mcp-readonly", "yes, please")], "set_a", Err("X-MCP-Readonly")),
            (&[("x-mcp-readonly", "false"), ("x-mcp-readonly", "1")], "set_a", Err("X-MCP-Readonly")),
            (&[("x-mcp-readonly", "False")], "set_a", Ok(())),
            (&[("x-mcp-tools", "set_a, get_*")], "get_a", Ok(())),
            (&[("x-mcp-tools", "set_a"), ("x-mcp-tools", "set_b")], "set_b", Ok(())),
            (&[("x-mcp-tools", "set_a")], "get_a", Err("X-MCP-Tools")),
            (&[("x-mcp-tools", " , ")], "get_a", Ok(())),
            (&[("x-mcp-exclude-tools", "set_*")], "set_a", Err("X-MCP-Exclude-Tools")),
            (&[("x-mcp-tools", "set_a"), ("x-mcp-exclude-tools", "set_a")], "set_a", Err("X-MCP-Exclude-Tools")),
        ] {
            assert_eq!(check(fields, tool), verdict, "{fields:?} {tool}");
        }
    }

    #[test]
    fn a_stream_keeps_of_patterns_what_they_are_and_no_more() {
        let odd = [(); MAX_PATTERNS].map(|()| format!("A:\\%2525252541//z{}?", "x".repeat(200))).join(",");
        let kept = format!("{:?}", narrowing(&[("x-mcp-exclude-tools", &odd), ("x-mcp-tools", &odd)]).unwrap());
        assert!(kept.contains("canonical: None") && !kept.contains("canonical: Some"), "{kept}");
    }

    #[test]
    fn what_cannot_be_read_is_not_ignored() {
        assert_eq!(narrowing(&[("x-mcp-tools", &"a".repeat(300))]), Err("X-MCP-Tools"));
        assert_eq!(narrowing(&[("x-mcp-exclude-tools", &"a,".repeat(101))]), Err("X-MCP-Exclude-Tools"));
        let odd: HeaderMap = [(X_MCP_TOOLS, http::HeaderValue::from_bytes(b"\xff").unwrap())].into_iter().collect();
        assert_eq!(Narrowing::from_headers(&odd), Err("X-MCP-Tools"));
        assert!(narrowing(&[]).unwrap().is_none() && !narrowing(&[("x-mcp-tools", "a")]).unwrap().is_none());
    }
}
