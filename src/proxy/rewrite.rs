//! What changes on the way: who the client claims to be goes, who it is comes; what belongs to one
//! connection stays on it.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, HOST, TRANSFER_ENCODING, WWW_AUTHENTICATE};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, Version};

use super::answer::{self, Answer};
use super::forwarded::{X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO};
use super::inbound::{Inbound, Meter};
use super::reading::Cleared;
use super::screen::Screen;
use super::upstream::{Address, Failure, RequestHead};
use crate::access::{IdentityHeaders, Permit};
use crate::audit::RequestId;
use crate::charset::Charset;
use crate::digits;
use crate::trace::{TRACEPARENT, TRACESTATE, TraceContext};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The rules of rewriting, worked out once from the configuration.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    host: HeaderValue,
    path_prefix: Box<str>,
    /// [`normalised`]: the names by which an upstream might know a user.
    identity: Vec<Box<str>>,
}

/// A request that may be sent upstream. Only `Rules::request` makes one, and it takes a [`Permit`] and a
/// [`Cleared`] request.
///
/// ```compile_fail
/// fn forge(body: patgate::proxy::Inbound) -> patgate::proxy::Forward {
///     patgate::proxy::Forward { head: unimplemented!(), body }
/// }
/// ```
#[derive(Debug)]
pub struct Forward {
    head: RequestHead,
    body: Inbound,
}

impl Forward {
    pub(super) fn meter(&self) -> &Arc<Meter> {
        self.body.meter()
    }

    pub(super) fn into_parts(self) -> (RequestHead, Inbound) {
        (self.head, self.body)
    }
}

/// What is known of the way that a request came.
#[derive(Debug)]
pub(super) struct Hop {
    pub(super) client_ip: Option<IpAddr>,
    pub(super) secure: bool,
    /// The name that was asked for, where a proxy in front knows better than this request.
    pub(super) host: Option<HeaderValue>,
    pub(super) request_id: RequestId,
    pub(super) trace: Option<TraceContext>,
}

impl Rules {
    pub(super) fn new(upstream: &Address, host: Option<&HeaderValue>, identity: &IdentityHeaders) -> Self {
        // whatever the names are set to, an upstream may still believe the usual ones
        let usual = IdentityHeaders::default();
        let mut names: Vec<Box<str>> =
            usual.names().chain(identity.names()).map(|name| normalised(name.as_str()).into()).collect();
        names.sort_unstable();
        names.dedup();
        Self {
            host: host.cloned().unwrap_or_else(|| upstream.host()),
            path_prefix: upstream.path_prefix().into(),
            identity: names,
        }
    }

    /// The request as the upstream gets it, and what its answer has to pass.
    pub(super) fn request(
        &self,
        cleared: Cleared,
        permit: &Permit,
        hop: &Hop,
    ) -> Result<(Forward, Option<Box<Screen>>), Answer> {
        let (Parts { method, uri, headers, .. }, body, screen) = cleared.into_parts();
        let head = self.head(method, &uri, &headers, permit, hop)?;
        Ok((Forward { head, body }, screen))
    }

    /// Its head.
    pub(super) fn head(
        &self,
        method: Method,
        uri: &Uri,
        headers: &HeaderMap,
        permit: &Permit,
        hop: &Hop,
    ) -> Result<RequestHead, Answer> {
        let connection = OfConnection::read(headers);
        if !connection.is_plainly_framed {
            return Err(answer::bad_framing());
        }
        if !connection.is_trimmed {
            return Err(answer::untrimmed());
        }
        if connection.nominated.iter().any(is_judged) {
            return Err(answer::nominated());
        }
        let mut head = RequestHead::new(method, &self.target(uri)?);
        head.field(&HOST, &self.host);
        // before what the client says: some servers take in only so many fields, and drop the others in silence
        for (name, value) in permit.identity() {
            head.field(name, value);
        }
        if let Some((name, value)) = permit.token_id_header() {
            head.field(&name, &value);
        }
        head.own_field(&X_REQUEST_ID, hop.request_id.as_str().as_bytes());
        head.own_field(&X_FORWARDED_PROTO, if hop.secure { b"https" } else { b"http" });
        if let Some(host) = hop.host.clone().or_else(|| public_host(uri, headers)) {
            head.field(&X_FORWARDED_HOST, &host);
        }
        if let Some(ip) = hop.client_ip {
            let mut text = Vec::with_capacity(40);
            digits::address(ip, &mut text);
            head.own_field(&X_FORWARDED_FOR, &text);
        }
        if let Some(trace) = hop.trace {
            head.own_field(&TRACEPARENT, &trace.header());
            for state in trace.state(headers).filter(|_| !connection.keeps(&TRACESTATE)) {
                head.field(&TRACESTATE, state);
            }
        }
        self.pass(headers, &connection, &mut head);
        Ok(head)
    }

    /// Passes on what the client says, except about itself, its token, its connection, and what is settled here.
    fn pass(&self, headers: &HeaderMap, connection: &OfConnection, head: &mut RequestHead) {
        let mut cookies: Vec<&[u8]> = Vec::new();
        for (name, value) in headers {
            if connection.keeps(name) || self.is_ours(name) {
                continue;
            }
            if *name == COOKIE {
                cookies.push(value.as_bytes());
            } else {
                head.field(name, value);
            }
        }
        // HTTP/2 may send cookies in crumbs; HTTP/1.1 has one field for them (RFC 9113 section 8.2.3)
        if !cookies.is_empty() {
            head.own_field(&COOKIE, &cookies.join(&b"; "[..]));
        }
    }

    /// The path and query below the upstream's own prefix, in origin form.
    fn target<'u>(&self, uri: &'u Uri) -> Result<Cow<'u, str>, Answer> {
        if !uri.path().starts_with('/') {
            // `*` is for OPTIONS alone, and that is answered here
            return Err(answer::bad_target());
        }
        let whole = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        // an absolute form may have a query and no path
        let rooted = if whole.starts_with('/') { "" } else { "/" };
        if self.path_prefix.is_empty() && rooted.is_empty() {
            return Ok(whole.into());
        }
        if climbs(uri.path()) {
            return Err(answer::bad_target());
        }
        Ok(format!("{}{rooted}{whole}", self.path_prefix).into())
    }

    /// Whether a field of the client's says what only we may say, or what is settled here.
    fn is_ours(&self, name: &HeaderName) -> bool {
        let name = name.as_str();
        matches!(name, "host" | "authorization" | "expect" | "origin" | "traceparent" | "tracestate")
            || self.is_claim(name)
    }

    fn is_claim(&self, name: &str) -> bool {
        let normal = normalised(name);
        // only what is not plain is changed
        let respelt = matches!(normal, Cow::Owned(_)) && !normal.starts_with("mcp-param-");
        respelt
            || normal.starts_with("x-forwarded-")
            || matches!(&*normal, "forwarded" | "x-real-ip" | "x-request-id" | "authorization")
            || self.identity.iter().any(|identity| **identity == *normal)
    }
}

/// Whether a field is one that is judged here, or by which the server decides. One that `Connection` nominates would
/// be judged and not arrive.
fn is_judged(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("mcp-")
        || name.starts_with("x-mcp-")
        || matches!(name, "last-event-id" | "content-type" | "content-encoding" | "accept" | "accept-encoding")
}

/// The name under which the client called, without the user and password that may stand before it.
fn public_host(uri: &Uri, headers: &HeaderMap) -> Option<HeaderValue> {
    let named = uri.authority().and_then(|authority| authority.as_str().rsplit('@').next());
    named.and_then(|host| HeaderValue::from_str(host).ok()).or_else(|| headers.get(HOST).cloned())
}

/// What a head says of the one connection that it came by.
struct OfConnection {
    /// Whether nothing is lost when the framing is made anew: one length in digits at most, no coding but
    /// `chunked`.
    is_plainly_framed: bool,
    /// Whether no value begins or ends with white space. HTTP/2 can send such values and must not (RFC 9113 section
    /// 8.2.1); HTTP/1.1 cannot, and whoever reads it drops that space: what was judged would be another value.
    is_trimmed: bool,
    is_coded: bool,
    /// The fields that `Connection` says belong to it, too.
    nominated: Vec<HeaderName>,
}

impl OfConnection {
    fn read(headers: &HeaderMap) -> Self {
        let (mut lengths, mut codings, mut fits, mut nominated) = (0, 0, true, Vec::new());
        let mut is_trimmed = true;
        for (name, value) in headers {
            let value = value.as_bytes();
            is_trimmed &= value.trim_ascii().len() == value.len();
            if *name == CONTENT_LENGTH {
                lengths += 1;
                // over HTTP/2 even an empty one gets here
                fits &= !value.is_empty() && value.iter().all(u8::is_ascii_digit);
            } else if *name == TRANSFER_ENCODING {
                codings += 1;
                fits &= value.eq_ignore_ascii_case(b"chunked");
            } else if *name == CONNECTION {
                let names = value.split(|byte| *byte == b',');
                nominated.extend(names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()));
            }
        }
        Self { is_plainly_framed: fits && lengths <= 1 && codings <= 1, is_trimmed, is_coded: codings > 0, nominated }
    }

    /// Whether a field stays on it (RFC 9110 section 7.6.1).
    fn keeps(&self, name: &HeaderName) -> bool {
        let always = matches!(
            name.as_str(),
            "connection"
                | "keep-alive"
                | "proxy-connection"
                | "proxy-authenticate"
                | "proxy-authorization"
                | "te"
                | "trailer"
                | "transfer-encoding"
                | "upgrade"
        );
        always || self.nominated.contains(name)
    }
}

/// The response as the client gets it.
///
/// # Errors
/// The upstream asks for credentials, which are none of its business and would send a client's
/// token to whatever address it names, or switches to a protocol that nobody asked for.
pub(super) fn response<B>(mut response: Response<B>) -> Result<Response<B>, Failure> {
    match response.status() {
        StatusCode::UNAUTHORIZED => return Err(Failure::Invalid("the upstream asks for credentials of its own (401)")),
        StatusCode::SWITCHING_PROTOCOLS => {
            return Err(Failure::Invalid("the upstream switches protocols unasked (101)"));
        }
        _ => {}
    }
    let connection = OfConnection::read(response.headers());
    if !connection.is_plainly_framed {
        return Err(Failure::Invalid("the upstream's answer has a length or a coding that can be read in two ways"));
    }
    let headers = response.headers_mut();
    if connection.is_coded {
        // never both: the framing that was read is the one that counts
        headers.remove(CONTENT_LENGTH);
    }
    let stays = |name: &HeaderName| {
        connection.keeps(name) || *name == WWW_AUTHENTICATE || name.as_str().starts_with("access-control-")
    };
    let staying: Vec<HeaderName> = headers.keys().filter(|name| stays(name)).cloned().collect();
    for name in staying {
        headers.remove(name);
    }
    *response.version_mut() = Version::HTTP_11;
    Ok(response)
}

/// Sets the id by which a client can name its request to an operator.
pub(super) fn set_request_id(headers: &mut HeaderMap, id: RequestId) {
    // hexadecimal digits are always a header value
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        headers.insert(X_REQUEST_ID, id);
    }
}

/// Whether it is made of letters, digits and `-`. Header names come in lower case from the parser.
pub(super) fn is_plain(name: &str) -> bool {
    static PLAIN: Charset = Charset::alphanumeric_and(b"-");
    PLAIN.holds(name)
}

/// A name as upstreams in the tradition of CGI read it, who make one character of all that are no letters
/// and no digits; most do so with `_` alone, some with `.` and the rest, too.
pub fn normalised(name: &str) -> Cow<'_, str> {
    if is_plain(name) { name.into() } else { name.replace(|c: char| !c.is_ascii_alphanumeric(), "-").into() }
}

/// Whether any reading of the path leaves the place where it starts: dot segments, plain or encoded,
/// between separators of any kind.
fn climbs(path: &str) -> bool {
    let decoded =
        path.to_ascii_lowercase().replace("%2e", ".").replace("%2f", "/").replace("%5c", "/").replace('\\', "/");
    decoded.split('/').any(|segment| matches!(segment.split(';').next(), Some("." | "..")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(upstream: &str) -> Rules {
        let identity =
            IdentityHeaders { user: Some(HeaderName::from_static("remote_user")), ..IdentityHeaders::default() };
        Rules::new(&upstream.parse().unwrap(), None, &identity)
    }

    /// The names of the fields that are passed on.
    fn passed(rules: &Rules, headers: &HeaderMap) -> Vec<String> {
        let mut head = RequestHead::new(Method::GET, "/");
        rules.pass(headers, &OfConnection::read(headers), &mut head);
        let (text, _) = head.end(Some(0));
        let text = String::from_utf8(text).unwrap();
        text.lines().filter_map(|line| line.split_once(": ")).map(|(name, _)| name.to_owned()).collect()
    }

    #[test]
    fn every_spelling_of_a_claim_is_stripped() {
        let rules = rules("http://localhost:3000");
        let mut headers = HeaderMap::new();
        for name in [
            "X-Auth-User",
            "x_auth_user",
            "X-Auth_Email",
            "x-AUTH-name",
            "X_Auth_Org",
            "x-auth-roles",
            "x-auth-scopes",
            "x_auth-token_id",
            "x-auth-source",
            "Remote-User",
            "REMOTE_USER",
            "X-Forwarded-For",
            "x_forwarded_user",
            "Forwarded",
            "X-Real-IP",
            "X_Request_Id",
            "X.Auth.User",
            "x~auth!email",
            "X.Forwarded.For",
            "X.Any",
            "Authorization",
            "Expect",
            "Origin",
        ] {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_static("root"));
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_static("again"));
        }
        headers.insert("mcp-session-id", HeaderValue::from_static("kept"));
        headers.insert("x-authenticated", HeaderValue::from_static("kept"));
        headers.insert("mcp-param-a_b.c", HeaderValue::from_static("kept"));
        assert_eq!(passed(&rules, &headers), ["mcp-session-id", "x-authenticated", "mcp-param-a_b.c"]);
    }

    #[test]
    fn what_belongs_to_a_connection_stays_on_it() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Nominated"),
            ("connection", "y-nominated"),
            ("x-nominated", "1"),
            ("y-nominated", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("upgrade", "websocket"),
            ("accept", "*/*"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        assert_eq!(passed(&rules("http://localhost:3000"), &headers), ["accept"]);
    }

    #[test]
    fn what_is_judged_does_not_belong_to_a_connection() {
        for name in ["Mcp-Session-Id", "mcp-param-region", "X-MCP-Readonly", "LAST-EVENT-ID", "content-type", "Accept"]
        {
            assert!(is_judged(&name.parse().unwrap()), "{name}");
        }
        for name in ["keep-alive", "te", "upgrade", "http2-settings", "x-auth-user", "content-length", "x-nominated"] {
            assert!(!is_judged(&name.parse().unwrap()), "{name}");
        }
    }

    #[test]
    fn the_public_host_is_the_targets_or_the_one_that_is_named_and_no_credentials() {
        let headers: HeaderMap = [(HOST, HeaderValue::from_static("named:1"))].into_iter().collect();
        let host = |target: &str| public_host(&target.parse().unwrap(), &headers).unwrap();
        assert_eq!(host("/mcp"), "named:1");
        assert_eq!(host("http://target:2/mcp"), "target:2");
        assert_eq!(host("http://alice:secret@target/mcp"), "target");
    }

    #[test]
    fn targets_stay_below_the_prefix() {
        let rules = rules("http://localhost:3000/base/");
        let target = |path: &str| rules.target(&path.parse().unwrap()).map(Cow::into_owned);
        assert_eq!(target("/mcp?sessionId=1").unwrap(), "/base/mcp?sessionId=1");
        assert_eq!(target("http://other.example/mcp").unwrap(), "/base/mcp");
        assert_eq!(target("http://other.example?x=1").unwrap(), "/base/?x=1");
        assert_eq!(target("*").unwrap_err().status, 400);
        assert_eq!(target("/a%2fb/..c/.hidden").unwrap(), "/base/a%2fb/..c/.hidden");
        for path in ["/../mcp", "/a/..", "/%2e%2E/mcp", "/.%2e/", "/a%2f..%2fb", "/a/..;x/b", "/./mcp", "/..%5cmcp"] {
            assert_eq!(target(path).unwrap_err().status, 400, "{path}");
        }
    }

    #[test]
    fn an_upstreams_own_challenge_and_switch_are_not_passed_on() {
        for status in [401, 101] {
            let upstream = Response::builder().status(status).body(()).unwrap();
            assert!(response(upstream).is_err());
        }
        let upstream = Response::builder()
            .header("www-authenticate", "Bearer resource_metadata=\"http://evil.example\"")
            .header("access-control-allow-origin", "*")
            .header("transfer-encoding", "chunked")
            .header("content-length", "5")
            .header("mcp-session-id", "kept")
            .body(())
            .unwrap();
        let passed = response(upstream).unwrap();
        assert_eq!(passed.headers().keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["mcp-session-id"]);
    }
}
