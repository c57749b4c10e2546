//! The judgement on a body that was read: whether it can be read in one way only, whether the headers
//! agree with it, and whether its caller may do what it asks for.

use std::borrow::Cow;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, Method};

use super::answer::{self, Answer};
use super::hints::Hints;
use super::objection::{Objection, Verdict};
use super::sessions;
use super::tap::is_json;
use crate::access::{Calls, DeniedAs, Narrowing, Rule, X_MCP_EXCLUDE_TOOLS, X_MCP_READONLY, X_MCP_TOOLS};
use crate::audit::{Arguments, McpFacts, OpenRecord};
use crate::mcp::{Body, Call, Message, headers};

/// What kind of answer a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// A list of what can be used.
    List,
    /// Any other answer.
    Answer,
    /// Whatever comes, as long as it comes.
    Stream,
}

/// All that a judgement depends on.
pub(super) struct Case<'c> {
    pub(super) head: &'c Parts,
    pub(super) calls: Calls<'c>,
    pub(super) narrowing: &'c Narrowing,
    pub(super) hints: &'c Hints,
    pub(super) arguments: &'c Arguments,
}

impl Case<'_> {
    /// Judges a body that is not empty, and notes what is in it, also what a trial has against it.
    pub(super) fn judge(&self, bytes: &[u8], record: &mut OpenRecord) -> Result<Asked, Objection> {
        if !is_plainly_coded(&self.head.headers) {
            return Err(Objection::unreadable_coding());
        }
        let always = headers::repeat(&self.head.headers);
        let mut body =
            Body::read(bytes).map_err(|why| Objection::unreadable(why).always(always && why.is_ambiguous()))?;
        for Message { subscriptions, .. } in &mut body.messages {
            // of several resources the record names the first: one that is denied, if there is any
            let is_denied = |uri: &Cow<'_, str>| self.rule_against(Call::Resource(uri), self.calls).is_some();
            if subscriptions.len() > 1
                && let Some(denied) = subscriptions.iter().position(is_denied)
            {
                subscriptions.swap(0, denied);
            }
        }
        note(&body, self.arguments, record);
        headers::check(&self.head.headers, &body).map_err(|why| Objection::mismatch(why).always(always))?;
        if let Some(objection) = self.against(&body, self.calls.enforced()) {
            return Err(objection);
        }
        if self.calls.is_trial()
            && let Some(objection) = self.against(&body, self.calls)
        {
            objection.report(record);
        }
        Ok(asked(&body))
    }

    /// What speaks against the calls of a body.
    fn against(&self, body: &Body<'_>, calls: Calls<'_>) -> Option<Objection> {
        if body.is_batch && calls.refuses_batches() {
            return Some(Objection::batch());
        }
        let verdicts: Vec<_> = body.messages.iter().map(|message| self.denied(message, calls)).collect();
        let (_, rule) = verdicts.iter().flatten().next()?;
        // over the older transport nobody reads a result in the answer to a POST, but its status is seen
        let in_result = calls.policy().denied_as == DeniedAs::UnknownTool && !sessions::in_query(&self.head.uri);
        Some(Objection::denied(body, *rule, in_result, &verdicts))
    }

    fn denied<'m>(&'m self, message: &'m Message<'_>, calls: Calls<'m>) -> Verdict<'m> {
        // the method, and of several resources the first: the others are denied only if that one is
        message.calls().take(2).find_map(|call| Some((call, self.rule_against(call, calls)?)))
    }

    fn rule_against<'g>(&self, call: Call<'_>, calls: Calls<'g>) -> Option<Rule<'g>> {
        calls.decide(call, self.narrowing, |tool| self.hints.says_read_only(self.head.uri.path(), tool)).err()
    }
}

/// Whether headers that repeat a body can be compared with it.
pub(super) fn is_comparable(head: &Parts) -> bool {
    let content_type = || head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    head.method == Method::POST
        && headers::repeat(&head.headers)
        && content_type().is_some_and(is_json)
        && is_plainly_coded(&head.headers)
}

/// Compares the headers with a body that is not empty, where there is no policy, and notes what is in it.
pub(super) fn compare(
    head: &Parts,
    bytes: &[u8],
    arguments: &Arguments,
    record: &mut OpenRecord,
) -> Result<(), Objection> {
    let body = match Body::read(bytes) {
        // what is wrong in it, the server says better
        Err(why) if !why.is_ambiguous() => return Ok(()),
        body => body.map_err(Objection::unreadable)?,
    };
    note(&body, arguments, record);
    headers::check(&head.headers, &body).map_err(Objection::mismatch)
}

fn note(body: &Body<'_>, arguments: &Arguments, record: &mut OpenRecord) {
    record.note(|facts| {
        let read = McpFacts::of_body(body, arguments).after(facts.mcp.take());
        facts.mcp = Some(Box::new(read));
    });
}

fn asked(body: &Body<'_>) -> Asked {
    if body.messages.iter().any(Message::asks_for_list) {
        Asked::List
    } else if body.messages.iter().any(|message| message.call().is_some() && message.method != "subscriptions/listen") {
        Asked::Answer
    } else {
        Asked::Stream
    }
}

/// What the client asks to leave out. The server behind does not hear of it.
pub(super) fn narrowing(headers: &mut HeaderMap) -> Result<Narrowing, Answer> {
    let narrowing = Narrowing::from_headers(headers).map_err(answer::bad_narrowing)?;
    for name in [X_MCP_READONLY, X_MCP_TOOLS, X_MCP_EXCLUDE_TOOLS] {
        headers.remove(name);
    }
    Ok(narrowing)
}

/// Whether the body is what its bytes say: not compressed, and in the one encoding that JSON has.
fn is_plainly_coded(headers: &HeaderMap) -> bool {
    let is_identity = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let charset = types.next().is_none_or(|value| value.to_str().is_ok_and(is_utf8));
    headers.get_all(CONTENT_ENCODING).iter().all(is_identity) && charset && types.next().is_none()
}

/// Whether a content type names no other charset than UTF-8.
fn is_utf8(content_type: &str) -> bool {
    let lower = content_type.to_ascii_lowercase();
    lower.match_indices("charset").all(|(at, word)| {
        let value = lower[at + word.len()..].trim_start().strip_prefix('=').unwrap_or_default();
        let value = value.trim_start().trim_start_matches('"');
        let end = value.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(value.len());
        matches!(&value[..end], "utf-8" | "utf8")
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::*;

    fn plain(fields: &[(&'static str, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        is_plainly_coded(&headers)
    }

    #[test]
    fn another_coding_is_another_body() {
        for fields in [
            &[][..],
            &[("content-type", "application/json")],
            &[("content-type", "application/json; charset=utf-8")],
            &[("content-type", "application/json; charset=\"UTF-8\"; x=y")],
            &[("content-encoding", "Identity")],
        ] {
            assert!(plain(fields), "{fields:?}");
        }
        for fields in [
            &[("content-encoding", "gzip")][..],
            &[("content-encoding", "identity, gzip")],
            &[("content-encoding", "identity"), ("content-encoding", "br")],
            &[("content-encoding", "")],
            &[("content-type", "application/json; charset=utf-7")],
            &[("content-type", "application/json; charset=UTF-16")],
            &[("content-type", "application/json; charset=utf-8; charset = utf-16")],
            &[("content-type", "application/json; charset")],
            &[("content-type", "application/json"), ("content-type", "application/json")],
        ] {
            assert!(!plain(fields), "{fields:?}");
        }
    }
}
