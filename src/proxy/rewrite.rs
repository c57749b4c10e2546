//! What changes on the way: who the client claims to be goes, who it is comes; what belongs to one
//! connection stays on it.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, ORIGIN, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, WWW_AUTHENTICATE,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version};

use super::answer::{self, Answer};
use super::body::{Inbound, Meter};
use super::forwarded::{X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO};
use super::reading::Cleared;
use super::screen::Screen;
use super::upstream::{Address, Failure};
use crate::access::{IdentityHeaders, Permit};
use crate::audit::RequestId;
use crate::trace::TraceContext;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

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
/// fn forge(request: http::Request<patgate::proxy::Inbound>) -> patgate::proxy::Forward {
///     patgate::proxy::Forward { request }
/// }
/// ```
#[derive(Debug)]
pub struct Forward {
    request: Request<Inbound>,
}

impl Forward {
    pub(super) fn meter(&self) -> &Arc<Meter> {
        self.request.body().meter()
    }

    pub(super) fn into_request(self) -> Request<Inbound> {
        self.request
    }
}

/// What is known of the way that a request came.
#[derive(Debug)]
pub(super) struct Hop<'r> {
    pub(super) client_ip: Option<IpAddr>,
    pub(super) secure: bool,
    /// The name that was asked for, where a proxy in front knows better than this request.
    pub(super) host: Option<HeaderValue>,
    pub(super) request_id: &'r RequestId,
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
        hop: &Hop<'_>,
    ) -> Result<(Forward, Option<Screen>), Answer> {
        let (request, screen) = cleared.into_parts();
        let (mut head, body) = request.into_parts();
        let public_host = hop.host.clone().or_else(|| public_host(&head.uri, &head.headers));

        if !is_plainly_framed(&head.headers) {
            return Err(answer::bad_framing());
        }
        head.uri = self.target(&head.uri)?;
        head.version = Version::HTTP_11;
        strip_hop_by_hop(&mut head.headers);
        self.strip_claims(&mut head.headers);

        join_cookies(&mut head.headers);

        head.headers.insert(HOST, self.host.clone());
        for (name, value) in permit.identity() {
            head.headers.insert(name, value);
        }
        head.headers.insert(X_REQUEST_ID, hop.request_id.value().clone());
        if let Some(trace) = hop.trace {
            trace.write(&mut head.headers);
        }
        let proto = if hop.secure { "https" } else { "http" };
        head.headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(proto));
        if let Some(host) = public_host {
            head.headers.insert(X_FORWARDED_HOST, host);
        }
        if let Some(ip) = hop.client_ip.and_then(|ip| HeaderValue::try_from(ip.to_string()).ok()) {
            head.headers.insert(X_FORWARDED_FOR, ip);
        }
        Ok((Forward { request: Request::from_parts(head, body) }, screen))
    }

    /// The path and query below the upstream's own prefix, in origin form.
    fn target(&self, uri: &Uri) -> Result<Uri, Answer> {
        if !uri.path().starts_with('/') {
            // `*` is for OPTIONS alone, and that is answered here
            return Err(answer::bad_target());
        }
        let whole = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        let path_and_query = whole.as_str();
        // an absolute form may have a query and no path
        let rooted = if path_and_query.starts_with('/') { "" } else { "/" };
        if self.path_prefix.is_empty() && rooted.is_empty() {
            return Ok(whole.into());
        }
        if climbs(uri.path()) {
            return Err(answer::bad_target());
        }
        format!("{}{rooted}{path_and_query}", self.path_prefix).parse().map_err(|_| answer::bad_target())
    }

    /// Removes what the client says about itself, its token, and what was settled here.
    fn strip_claims(&self, headers: &mut HeaderMap) {
        for name in [AUTHORIZATION, EXPECT, ORIGIN] {
            headers.remove(name);
        }
        let claims: Vec<HeaderName> = headers.keys().filter(|name| self.is_claim(name)).cloned().collect();
        for name in claims {
            headers.remove(name);
        }
    }

    fn is_claim(&self, name: &HeaderName) -> bool {
        let normal = normalised(name.as_str());
        let respelt = !is_plain(name.as_str()) && !normal.starts_with("mcp-param-");
        respelt
            || normal.starts_with("x-forwarded-")
            || normal == FORWARDED.as_str()
            || normal == X_REAL_IP.as_str()
            || normal == X_REQUEST_ID.as_str()
            || normal == AUTHORIZATION.as_str()
            || self.identity.iter().any(|identity| **identity == *normal)
    }
}

/// The name under which the client called, without the user and password that may stand before it.
fn public_host(uri: &Uri, headers: &HeaderMap) -> Option<HeaderValue> {
    let named = uri.authority().and_then(|authority| authority.as_str().rsplit('@').next());
    named.and_then(|host| HeaderValue::from_str(host).ok()).or_else(|| headers.get(HOST).cloned())
}

/// Whether nothing is lost when the framing is made anew: one length in digits at most, no coding but
/// `chunked`.
fn is_plainly_framed(headers: &HeaderMap) -> bool {
    let one = |name, fits: fn(&[u8]) -> bool| {
        let mut values = headers.get_all(name).iter();
        values.next().is_none_or(|value| fits(value.as_bytes())) && values.next().is_none()
    };
    // over HTTP/2 even an empty one gets here
    one(CONTENT_LENGTH, |value| !value.is_empty() && value.iter().all(u8::is_ascii_digit))
        && one(TRANSFER_ENCODING, |value| value.eq_ignore_ascii_case(b"chunked"))
}

/// HTTP/2 may send cookies in crumbs; HTTP/1.1 has one field for them (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1
        && let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        headers.insert(COOKIE, whole);
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
    if !is_plainly_framed(response.headers()) {
        return Err(Failure::Invalid("the upstream's answer has a length or a coding that can be read in two ways"));
    }
    let headers = response.headers_mut();
    if headers.contains_key(TRANSFER_ENCODING) {
        // never both: the framing that was read is the one that counts
        headers.remove(CONTENT_LENGTH);
    }
    strip_hop_by_hop(headers);
    let settled_here = |name: &&HeaderName| **name == WWW_AUTHENTICATE || name.as_str().starts_with("access-control-");
    let theirs: Vec<HeaderName> = headers.keys().filter(settled_here).cloned().collect();
    for name in theirs {
        headers.remove(name);
    }
    *response.version_mut() = Version::HTTP_11;
    Ok(response)
}

/// Sets the id by which a client can name its request to an operator.
pub(super) fn set_request_id(headers: &mut HeaderMap, id: &RequestId) {
    headers.insert(X_REQUEST_ID, id.value().clone());
}

/// Removes the fields of RFC 9110 section 7.6.1, and those that `Connection` nominates.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let nominated: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|name| !name.eq_ignore_ascii_case(b"keep-alive") && !name.eq_ignore_ascii_case(b"close"))
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .collect();
    for name in nominated {
        headers.remove(name);
    }
    for name in [
        CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ] {
        headers.remove(name);
    }
}

/// Letters, digits and `-`. Header names come in lower case from the parser.
fn is_plain(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// A name as upstreams in the tradition of CGI read it, who make one character of all that are no letters
/// and no digits; most do so with `_` alone, some with `.` and the rest, too.
fn normalised(name: &str) -> Cow<'_, str> {
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
        rules.strip_claims(&mut headers);
        let left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["mcp-session-id", "x-authenticated", "mcp-param-a_b.c"]);
    }

    #[test]
    fn what_belongs_to_a_connection_stays_on_it() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Nominated"),
            ("connection", "mcp-x"),
            ("x-nominated", "1"),
            ("mcp-x", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("upgrade", "websocket"),
            ("accept", "*/*"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
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
        let target = |path: &str| rules.target(&path.parse().unwrap()).map(|uri| uri.to_string());
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
