//! Heads on the wire: a request's is written, an answer's is read (RFC 9112 sections 3 to 5).

use std::io;
use std::mem::MaybeUninit;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version};
use httparse::ParserConfig;
use tokio::io::AsyncRead;

use super::Failure;
use super::framing::Framing;
use super::pool::read_some;

/// What an answer may be before its body.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Limits {
    /// The largest head, together with the interim answers before it, in bytes.
    pub(in crate::proxy) size: usize,
    /// The most header fields in it.
    pub(in crate::proxy) fields: usize,
}

/// Room for a usual request with a small body, in bytes.
const USUAL: usize = 1024;

/// How many fields are added to an answer.
const ADDED: usize = 1;

/// So many header fields are read without an allocation.
const FEW: usize = 64;

// --- Written --------------------------------------------------------------------------------

/// How a request's body is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Sending {
    /// So many bytes, no more and no less.
    Length(u64),
    Chunked,
}

/// The head of a request in the making. Its framing comes last, and no field can add another.
#[derive(Debug)]
pub(in crate::proxy) struct RequestHead {
    method: Method,
    text: Vec<u8>,
    /// Whether the client announced a length.
    announced: bool,
}

impl RequestHead {
    /// A request for this target, in origin form.
    pub(in crate::proxy) fn new(method: Method, target: &str) -> Self {
        let mut text = Vec::with_capacity(USUAL);
        for part in [method.as_str(), " ", target, " HTTP/1.1\r\n"] {
            text.extend_from_slice(part.as_bytes());
        }
        Self { method, text, announced: false }
    }

    pub(in crate::proxy) fn field(&mut self, name: &HeaderName, value: &HeaderValue) {
        if *name == CONTENT_LENGTH {
            self.announced = true;
        } else if *name != TRANSFER_ENCODING {
            self.push(name, value.as_bytes());
        }
    }

    /// A field with a value of our own, left out if it could end before its end.
    pub(in crate::proxy) fn own_field(&mut self, name: &HeaderName, value: &[u8]) {
        if memchr::memchr3(b'\r', b'\n', b'\0', value).is_none() {
            self.push(name, value);
        }
    }

    fn push(&mut self, name: &HeaderName, value: &[u8]) {
        for part in [name.as_str().as_bytes(), b": ", value, b"\r\n"] {
            self.text.extend_from_slice(part);
        }
    }

    pub(super) fn method(&self) -> &Method {
        &self.method
    }

    /// Ends the head of a request whose body has this length, if that is known.
    pub(in crate::proxy) fn end(mut self, length: Option<u64>) -> (Vec<u8>, Sending) {
        let sending = match length {
            // without a word about it, there is no body (RFC 9112 section 6.3)
            Some(0) if !self.announced && !expects_body(&self.method) => Sending::Length(0),
            Some(length) => {
                self.push(&CONTENT_LENGTH, length.to_string().as_bytes());
                Sending::Length(length)
            }
            None => {
                self.push(&TRANSFER_ENCODING, b"chunked");
                Sending::Chunked
            }
        };
        self.text.extend_from_slice(b"\r\n");
        (self.text, sending)
    }
}

/// Methods whose requests say that they have no body (RFC 9110 section 8.6).
fn expects_body(method: &Method) -> bool {
    [Method::POST, Method::PUT, Method::PATCH].contains(method)
}

// --- Read -----------------------------------------------------------------------------------

/// An answer's head, and what it says about the rest.
#[derive(Debug)]
pub(in crate::proxy) struct Arrived {
    pub(in crate::proxy) response: Response<()>,
    pub(super) framing: Framing,
    /// Whether the connection can carry another exchange after this one.
    pub(super) persists: bool,
}

/// An answer whose head is being read.
#[derive(Debug)]
pub(in crate::proxy) struct Awaited {
    method: Method,
    limits: Limits,
    buffer: BytesMut,
    /// What the interim answers so far took of the limit.
    passed: usize,
}

impl Awaited {
    /// The answer to a request with this method.
    pub(in crate::proxy) fn new(method: Method, limits: Limits) -> Self {
        Self { method, limits, buffer: BytesMut::new(), passed: 0 }
    }

    /// What was read behind the head.
    pub(super) fn rest(self) -> BytesMut {
        self.buffer
    }

    /// Reads until the head is there.
    pub(in crate::proxy) fn poll<R: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
    ) -> Poll<Result<Arrived, Failure>> {
        loop {
            if let Some(arrived) = self.take().map_err(Failure::Invalid)? {
                return Poll::Ready(Ok(arrived));
            }
            if ready!(read_some(cx, reader, &mut self.buffer)).map_err(Failure::Broken)? == 0 {
                return Poll::Ready(Err(Failure::Broken(io::ErrorKind::UnexpectedEof.into())));
            }
        }
    }

    /// Takes the head of the final answer, if it is there as a whole.
    fn take(&mut self) -> Result<Option<Arrived>, &'static str> {
        loop {
            if !may_be_http(&self.buffer) {
                return Err(NOT_HTTP);
            }
            let room = self.limits.size.saturating_sub(self.passed);
            let Some(length) = end(self.buffer.get(..room).unwrap_or(&self.buffer))? else {
                let fits = self.buffer.len() < room;
                return if fits { Ok(None) } else { Err("the upstream says too much before its answer's body") };
            };
            let arrived = parse(&self.buffer.split_to(length).freeze(), &self.method, self.limits.fields)?;
            // interim answers concern us and not the client, who was not told that we are asking anybody
            let status = arrived.response.status();
            if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
                return Ok(Some(arrived));
            }
            self.passed += length;
        }
    }
}

const NOT_HTTP: &str = "the head of the upstream's answer is not HTTP";

/// Whether the first bytes could begin an answer: what never will be one is not waited for.
fn may_be_http(buffer: &[u8]) -> bool {
    const VERSION: &[u8] = b"HTTP/1.";
    let begin = buffer.iter().position(|byte| !b"\r\n".contains(byte)).unwrap_or(buffer.len());
    buffer.iter().skip(begin).zip(VERSION).all(|(byte, expected)| byte == expected)
}

/// Where the head ends.
fn end(buffer: &[u8]) -> Result<Option<usize>, &'static str> {
    let mut from = 0;
    while let Some(at) = buffer.get(from..).and_then(|rest| memchr::memchr(b'\n', rest)) {
        let line = from + at;
        match buffer.get(line + 1..) {
            Some([b'\r', b'\n', ..]) if line.checked_sub(1).and_then(|before| buffer.get(before)) == Some(&b'\r') => {
                return Ok(Some(line + 3));
            }
            Some([b'\n', ..] | [b'\r', b'\n', ..]) => {
                return Err("the head of the upstream's answer has bare line ends");
            }
            _ => from = line + 1,
        }
    }
    Ok(None)
}

fn parse(bytes: &Bytes, method: &Method, most: usize) -> Result<Arrived, &'static str> {
    let mut few = [const { MaybeUninit::uninit() }; FEW];
    let mut many = Vec::new();
    let fields = match few.get_mut(..most) {
        Some(few) => few,
        None => {
            many.resize_with(most, MaybeUninit::uninit);
            &mut many[..]
        }
    };
    let mut parsed = httparse::Response::new(&mut []);
    match ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, bytes, fields) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err("the upstream's answer has too many header fields"),
        _ => return Err(NOT_HTTP),
    }
    let version = if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(NOT_HTTP)?;
    let mut headers = HeaderMap::with_capacity(parsed.headers.len() + ADDED);
    let (mut has_length, mut has_coding, mut has_body, mut closes) = (false, false, false, false);
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| NOT_HTTP)?;
        has_length |= name == CONTENT_LENGTH;
        has_coding |= name == TRANSFER_ENCODING;
        has_body |= name == TRANSFER_ENCODING || name == CONTENT_LENGTH && field.value != b"0";
        closes |= name == CONNECTION && names_close(field.value);
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value)).map_err(|_| NOT_HTTP)?;
        headers.append(name, value);
    }
    let framing = Framing::of(method, status, version, &headers)?;
    let both = has_length && has_coding;
    // a server that sends what it announced, to HEAD for instance, sends it to whoever is next
    let sends_more = framing.is_over() && has_body;
    let switches = status == StatusCode::SWITCHING_PROTOCOLS;
    let persists =
        version == Version::HTTP_11 && !(closes || both || sends_more || switches || framing == Framing::UntilClose);
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.version_mut() = version;
    *response.headers_mut() = headers;
    Ok(Arrived { response, framing, persists })
}

/// Whether a `Connection` field says that nothing comes after this answer.
fn names_close(value: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(b"close"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::upstream::framing::Chunk;

    const LIMITS: Limits = Limits { size: 64 * 1024, fields: 100 };

    fn awaited(head: &str) -> Awaited {
        Awaited { buffer: head.into(), ..Awaited::new(Method::POST, LIMITS) }
    }

    fn arrive(head: &str) -> Result<Option<Arrived>, &'static str> {
        awaited(head).take()
    }

    fn written(method: Method, length: Option<u64>, fields: &[(&'static str, &'static str)]) -> (Sending, String) {
        let mut head = RequestHead::new(method, "/mcp?x=1");
        for (name, value) in fields {
            head.field(&HeaderName::from_static(name), &HeaderValue::from_static(value));
        }
        for value in [&b"a\rb: c"[..], b"a\nb: c", b"a\0b"] {
            head.own_field(&HeaderName::from_static("injected"), value);
        }
        let (text, sending) = head.end(length);
        (sending, String::from_utf8(text).unwrap())
    }

    #[test]
    fn a_request_has_one_framing_and_it_is_ours() {
        let fields = [("content-length", "7"), ("host", "h"), ("accept", "a"), ("accept", "b"), ("te", "x")];
        let (sending, text) = written(Method::POST, Some(5), &fields);
        assert_eq!(sending, Sending::Length(5));
        let head = "POST /mcp?x=1 HTTP/1.1\r\nhost: h\r\naccept: a\r\naccept: b\r\nte: x\r\n";
        assert_eq!(text, format!("{head}content-length: 5\r\n\r\n"));
        let (sending, text) = written(Method::GET, None, &fields[..1]);
        assert_eq!(sending, Sending::Chunked);
        assert_eq!(text, "GET /mcp?x=1 HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n");
        assert_eq!(written(Method::DELETE, Some(0), &[]).1, "DELETE /mcp?x=1 HTTP/1.1\r\n\r\n");
        assert_eq!(written(Method::POST, Some(0), &[]).1, "POST /mcp?x=1 HTTP/1.1\r\ncontent-length: 0\r\n\r\n");
    }

    #[test]
    fn a_head_is_taken_whole_and_the_rest_is_left() {
        let mut awaited = awaited("HTTP/1.1 200 OK\r\nA: 1\r\nmcp-session-id:  s \r\na: 2\r\n\r");
        assert!(awaited.take().unwrap().is_none());
        awaited.buffer.extend_from_slice(b"\nbody");
        let arrived = awaited.take().unwrap().unwrap();
        assert_eq!(awaited.rest(), "body");
        assert_eq!(arrived.framing, Framing::UntilClose);
        assert!(!arrived.persists);
        let headers = arrived.response.headers();
        assert_eq!(headers.get_all("a").iter().collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(headers["mcp-session-id"], "s");
    }

    #[test]
    fn a_connection_persists_only_if_nothing_speaks_against_it() {
        for (head, persists) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n", true),
            ("HTTP/1.1 204 \r\n\r\n", true),
            ("HTTP/1.1 200\r\ntransfer-encoding: Chunked\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: keep-alive\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: x, Close\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\ncontent-length: 1\r\nconnection: keep-alive\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\n\r\n", false),
        ] {
            assert_eq!(arrive(head).unwrap().unwrap().persists, persists, "{head}");
        }
    }

    #[test]
    fn a_connection_does_not_persist_where_more_may_come_than_is_read() {
        for (method, head, persists) in [
            (Method::HEAD, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", true),
            (Method::HEAD, "HTTP/1.1 200 OK\r\n\r\n", true),
            (Method::HEAD, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", false),
            (Method::HEAD, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", false),
            (Method::POST, "HTTP/1.1 204 \r\ntransfer-encoding: chunked\r\n\r\n", false),
            (Method::GET, "HTTP/1.1 304 \r\ncontent-length: 5\r\n\r\n", false),
            (Method::POST, "HTTP/1.1 204 \r\ncontent-length: 0\r\n\r\n", true),
            (Method::POST, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", true),
            (Method::POST, "HTTP/1.1 101 Switching Protocols\r\ncontent-length: 0\r\n\r\n", false),
        ] {
            let mut awaited = Awaited { buffer: head.into(), ..Awaited::new(method, LIMITS) };
            assert_eq!(awaited.take().unwrap().unwrap().persists, persists, "{head}");
        }
    }

    #[test]
    fn interim_answers_are_passed_over_but_not_without_end() {
        let interim = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n";
        let arrived = arrive(&format!("{interim}HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")).unwrap();
        let arrived = arrived.unwrap();
        assert_eq!(arrived.response.status(), 200);
        assert_eq!(arrived.framing, Framing::Chunked(Chunk::Size));
        let mut awaited = awaited("");
        let flood = std::iter::repeat_with(|| {
            awaited.buffer.extend_from_slice(interim.as_bytes());
            awaited.take()
        });
        assert!(flood.take(LIMITS.size / interim.len() + 2).any(|taken| taken.is_err()));
        // whoever asks for nothing is told of nothing, and judges it elsewhere
        assert_eq!(arrive("HTTP/1.1 101 Switching Protocols\r\n\r\n").unwrap().unwrap().response.status(), 101);
    }

    #[test]
    fn what_is_no_head_is_an_error() {
        let large = format!("HTTP/1.1 200 OK\r\na: {}", "x".repeat(LIMITS.size));
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(LIMITS.fields + 1));
        for head in [
            "HTTP/1.1 200 OK\n\n",
            "HTTP/1.1 200 OK\r\na: b\n\r\n",
            "HTTP/1.1 200 OK\r\na: b\r\n\n",
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\n a: b\r\n\r\n",
            "HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n",
            "HTTP/1.1 200 OK\r\na : b\r\n\r\n",
            "HTTP/1.1 200 OK\r\n: b\r\n\r\n",
            "HTTP/1.1 200 OK\r\na: b\0c\r\n\r\n",
            "HTTP/1.1 200 OK\r\na: b\rc\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n",
            "SSH-2.0-OpenSSH",
            "\0",
            "HTTP/2",
            "\r\n\r\n",
            large.as_str(),
            many.as_str(),
        ] {
            assert!(arrive(head).is_err(), "{}", &head[..head.len().min(60)]);
        }
    }
}
