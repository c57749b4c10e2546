//! Which trace a request belongs to, as W3C Trace Context writes it: <https://www.w3.org/TR/trace-context/>.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::digits;

/// Where the trace stands.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What vendors say about it.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The most of a `tracestate` that is passed on; more is dropped whole (section 3.3.1.5).
const MAX_STATE_BYTES: usize = 512;
const MAX_STATE_MEMBERS: usize = 32;

/// This request's place in a trace: a span of our own, below the client's if it named one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: u128,
    parent_id: Option<u64>,
    span_id: u64,
    flags: u8,
}

/// Somebody above records this trace.
const SAMPLED: u8 = 1;
/// The trace id was drawn at random (Trace Context, level 2).
const RANDOM: u8 = 2;

impl TraceContext {
    /// Continues the client's trace. Without a `traceparent`, or with one that is not well-formed, a trace
    /// begins here; it counts as recorded, for otherwise it would tell an MCP server not to record it.
    pub fn of(headers: &HeaderMap) -> Self {
        let span_id = fastrand::u64(1..);
        match parent(headers) {
            Some(Parent { trace_id, span_id: parent, flags }) => {
                Self { trace_id, parent_id: Some(parent), span_id, flags: flags & (SAMPLED | RANDOM) }
            }
            None => Self { trace_id: fastrand::u128(1..), parent_id: None, span_id, flags: SAMPLED },
        }
    }

    /// The `traceparent` for the next hop.
    pub fn header(&self) -> [u8; 55] {
        let Self { trace_id, span_id, flags, .. } = self;
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        text[3..35].copy_from_slice(&digits::hex::<32>(*trace_id));
        text[36..52].copy_from_slice(&digits::hex::<16>((*span_id).into()));
        text[53..].copy_from_slice(&digits::hex::<2>((*flags).into()));
        text
    }

    /// The client's `tracestate`, which goes on only with its `traceparent`, and within bounds.
    pub fn state<'h>(&self, headers: &'h HeaderMap) -> impl Iterator<Item = &'h HeaderValue> {
        let goes_on = self.parent_id.is_some() && is_bounded_state(headers);
        goes_on.then(|| headers.get_all(TRACESTATE)).into_iter().flatten()
    }

    /// The same as one list, if there is any.
    pub fn state_list(&self, headers: &HeaderMap) -> Option<Box<str>> {
        let values = self.state(headers).map(HeaderValue::to_str).collect::<Result<Vec<_>, _>>().ok()?;
        (!values.is_empty()).then(|| values.join(",").into())
    }

    /// Whether somebody above records this trace.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The flags that go on, as in a `traceparent`.
    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// The client's span, if it named one.
    pub fn parent_id(&self) -> Option<Hex<16>> {
        self.parent_id.map(|parent| Hex(parent.into()))
    }

    /// The trace.
    pub fn trace_id(&self) -> Hex<32> {
        Hex(self.trace_id)
    }

    /// This hop, the parent of what the MCP server does.
    pub fn span_id(&self) -> Hex<16> {
        Hex(self.span_id.into())
    }
}

/// A number of so many lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hex<const DIGITS: usize>(u128);

impl<const DIGITS: usize> Hex<DIGITS> {
    /// The number in network byte order, two digits a byte.
    pub fn to_bytes(&self) -> Vec<u8> {
        let bytes = self.0.to_be_bytes();
        bytes[bytes.len() - DIGITS / 2..].to_vec()
    }

    /// The digits.
    pub fn digits(&self) -> [u8; DIGITS] {
        digits::hex(self.0)
    }
}

impl<const DIGITS: usize> fmt::Display for Hex<DIGITS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.digits()).unwrap_or_default())
    }
}

/// What a client says of the span that it calls from.
#[derive(Debug, PartialEq, Eq)]
struct Parent {
    trace_id: u128,
    span_id: u64,
    flags: u8,
}

fn parent(headers: &HeaderMap) -> Option<Parent> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    parse(value.as_bytes())
}

/// `version-trace_id-parent_id-flags`; a version after 00 may go on after another dash.
fn parse(text: &[u8]) -> Option<Parent> {
    let (known, rest) = text.split_at_checked(55)?;
    let version = hex(&known[..2])?;
    let is_whole = match version {
        0 => rest.is_empty(),
        0xff => false,
        _ => rest.is_empty() || rest.starts_with(b"-"),
    };
    let dashed = [2, 35, 52].into_iter().all(|at| known[at] == b'-');
    let (trace_id, span_id) = (hex(&known[3..35])?, u64::try_from(hex(&known[36..52])?).ok()?);
    let flags = u8::try_from(hex(&known[53..])?).ok()?;
    (is_whole && dashed && trace_id != 0 && span_id != 0).then_some(Parent { trace_id, span_id, flags })
}

/// Lower-case hexadecimal digits and nothing else, 32 at most.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

fn is_bounded_state(headers: &HeaderMap) -> bool {
    let values = || headers.get_all(TRACESTATE).iter().map(HeaderValue::as_bytes);
    let members = values().map(|value| value.split(|byte| *byte == b',').count()).sum::<usize>();
    values().map(<[u8]>::len).sum::<usize>() <= MAX_STATE_BYTES && members <= MAX_STATE_MEMBERS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(traceparent: &[&str], tracestate: &[&str]) -> HeaderMap {
        let parents = traceparent.iter().map(|value| (TRACEPARENT, value.parse().unwrap()));
        parents.chain(tracestate.iter().map(|value| (TRACESTATE, value.parse().unwrap()))).collect()
    }

    fn forwarded(context: &TraceContext, headers: &HeaderMap) -> (String, Vec<String>) {
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        (String::from_utf8(context.header().to_vec()).unwrap(), context.state(headers).map(text).collect())
    }

    #[test]
    fn a_trace_goes_on_with_a_span_of_our_own() {
        let headers = headers(&[GOOD], &["vendor=1,other=2", "third=3"]);
        let context = TraceContext::of(&headers);
        assert_eq!(context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.parent_id, Some(0x00f0_67aa_0ba9_02b7));
        let (traceparent, state) = forwarded(&context, &headers);
        assert_eq!(traceparent, format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01", context.span_id()));
        assert_eq!(state, ["vendor=1,other=2", "third=3"]);
        assert_ne!(context.span_id().to_string(), TraceContext::of(&headers).span_id().to_string());
    }

    #[test]
    fn flags_go_on_as_far_as_they_have_a_meaning() {
        for (sent, passed) in [("00", "00"), ("01", "01"), ("03", "03"), ("fe", "02")] {
            let headers = headers(&[&GOOD.replace("-01", &format!("-{sent}"))], &[]);
            assert!(forwarded(&TraceContext::of(&headers), &headers).0.ends_with(&format!("-{passed}")), "{sent}");
        }
    }

    #[test]
    fn what_is_not_well_formed_is_replaced() {
        let later = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        for good in [GOOD, later, &format!("{later}-what.the-future"), &format!("{later}-")] {
            assert!(parse(good.as_bytes()).is_some(), "{good}");
        }
        for bad in [
            "",
            "00",
            &GOOD[..54],
            &format!("{GOOD}-"),
            &format!("{GOOD}-00"),
            &format!("{later}.more"),
            &GOOD.to_uppercase(),
            &GOOD.replacen("00-", "ff-", 1),
            &GOOD.replacen("00-", "0-0", 1),
            &GOOD.replace('-', "_"),
            &GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &GOOD.replace("00f067aa0ba902b7", "+0f067aa0ba902b7"),
            &GOOD.replace("-01", "-0g"),
            &format!(" {GOOD}"),
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
        for sent in [&[][..], &[GOOD, GOOD], &["nonsense"]] {
            let headers = headers(sent, &["vendor=1"]);
            let context = TraceContext::of(&headers);
            assert_eq!(context.parent_id, None);
            let (traceparent, state) = forwarded(&context, &headers);
            assert!(parse(traceparent.as_bytes()).is_some() && traceparent.ends_with("-01"), "{traceparent}");
            assert!(state.is_empty(), "the state of a trace that is not continued");
        }
    }

    #[test]
    fn a_state_is_passed_on_within_bounds_or_not_at_all() {
        for (state, passed) in [
            (vec!["a=".to_owned() + &"x".repeat(510)], true),
            (vec!["a=".to_owned() + &"x".repeat(511)], false),
            (vec!["a=1".to_owned(); 32], true),
            (vec!["a=1".to_owned(); 33], false),
            (vec!["a=1,".repeat(40)], false),
        ] {
            let state: Vec<&str> = state.iter().map(String::as_str).collect();
            let headers = headers(&[GOOD], &state);
            assert_eq!(forwarded(&TraceContext::of(&headers), &headers).1.is_empty(), !passed, "{state:?}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read_without_panic_and_answered_with_a_good_one(bytes in proptest::collection::vec(32_u8.., 0..80)) {
            let headers: HeaderMap = HeaderValue::from_bytes(&bytes).ok().map(|value| (TRACEPARENT, value)).into_iter().collect();
            let (traceparent, _) = forwarded(&TraceContext::of(&headers), &headers);
            prop_assert!(parse(traceparent.as_bytes()).is_some());
        }
    }
}
