//! Browsers: which pages may call us (the `Origin` and `Host` checks) and what they are allowed to see (CORS).
//!
//! A page of another site can have its own name resolve to this machine (DNS rebinding) and then call
//! us as its own server, without an `Origin`. So a request that comes to a loopback address must also
//! name a loopback host, or one that the operator has named.
//!
//! The upstream's own `Access-Control-*` headers are replaced by these, for it does not know who
//! stands in front of it.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, HOST, ORIGIN, VARY,
};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Request, Uri};

use super::rewrite::is_plain;

const ALLOWED_HEADERS: &str = "Authorization, Content-Type, Accept, MCP-Protocol-Version, Mcp-Session-Id, \
     Last-Event-ID, Mcp-Method, Mcp-Name";
const EXPOSED_HEADERS: &str = "Mcp-Session-Id, Retry-After, WWW-Authenticate, X-Request-Id";
const ALLOWED_METHODS: &str = "GET, POST, DELETE";

/// The origins whose pages may call, besides those of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedOrigins(Vec<Box<str>>);

impl AllowedOrigins {
    /// Takes origins as RFC 6454 serialises them: scheme, host and port, nothing after.
    ///
    /// # Errors
    /// The first text that is no origin, and how to write it.
    pub fn parse<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<Self, String> {
        let origins = texts.into_iter().map(|text| {
            let bare = text.parse::<Uri>().is_ok_and(|uri| {
                uri.scheme().is_some() && uri.authority().is_some() && uri.path() == "/" && !text.ends_with('/')
            });
            if bare { Ok(text.to_ascii_lowercase().into()) } else { Err(advice(text)) }
        });
        origins.collect::<Result<_, _>>().map(Self)
    }

    fn allows(&self, origin: &str) -> bool {
        is_loopback(origin) || self.0.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin))
    }
}

/// The names by which this server may be called on a loopback address, besides loopback's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedHosts(Vec<Box<str>>);

impl AllowedHosts {
    /// Takes host names without a port.
    ///
    /// # Errors
    /// The first text that is no host name.
    pub fn parse<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<Self, String> {
        let hosts = texts.into_iter().map(|text| match text.parse::<Authority>() {
            Ok(authority) if authority.host() == text => Ok(text.to_ascii_lowercase().into()),
            _ => Err(format!("`{text}` is not a host name: write it without scheme and port, such as mcp.example.com")),
        });
        hosts.collect::<Result<_, _>>().map(Self)
    }

    /// Whether a request's target or `Host` names this server. No name at all is left to HTTP to judge.
    pub(super) fn allow<B>(&self, request: &Request<B>) -> bool {
        let mut named = request.headers().get_all(HOST).iter().map(|value| value.to_str().ok());
        let named = named.all(|host| host.is_some_and(|host| self.allows(host)));
        named && request.uri().authority().is_none_or(|authority| self.allows(authority.as_str()))
    }

    fn allows(&self, host: &str) -> bool {
        let digits = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
        if is_loopback_host(host.rsplit_once(':').filter(|(_, port)| digits(port)).map_or(host, |(name, _)| name)) {
            return true;
        }
        let Ok(authority) = host.parse::<Authority>() else { return false };
        let plain = !authority.as_str().contains('@');
        let name = authority.host();
        plain && (is_loopback_host(name) || self.0.iter().any(|allowed| allowed.eq_ignore_ascii_case(name)))
    }
}

fn is_loopback_host(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host == "127.0.0.1" || host == "[::1]"
}

fn advice(text: &str) -> String {
    format!("`{text}` is not an origin: write scheme, host and port alone, such as https://app.example.com")
}

/// A page served from this very machine. Another site's page cannot have such an origin.
fn is_loopback(origin: &str) -> bool {
    let host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    let Some(authority) = host.and_then(|rest| rest.parse::<Authority>().ok()) else { return false };
    !authority.as_str().contains('@') && is_loopback_host(authority.host())
}

/// What is known about the page behind a request.
#[derive(Debug)]
pub(super) enum Caller {
    /// Not a browser, or a page calling its own server with a method that names no origin.
    NoOrigin,
    /// A page that may call.
    Allowed(HeaderValue),
    /// A page that may not, or two claims at once.
    Refused,
}

impl Caller {
    pub(super) fn of(headers: &HeaderMap, origins: &AllowedOrigins) -> Self {
        let mut values = headers.get_all(ORIGIN).iter();
        match (values.next(), values.next()) {
            (None, _) => Self::NoOrigin,
            (Some(origin), None) if origin.to_str().is_ok_and(|text| origins.allows(text)) => {
                Self::Allowed(origin.clone())
            }
            _ => Self::Refused,
        }
    }

    /// Lets an allowed page read the answer.
    pub(super) fn mark(&self, headers: &mut HeaderMap) {
        if let Self::Allowed(origin) = self {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED_HEADERS));
            headers.append(VARY, HeaderValue::from_static("Origin"));
        }
    }

    /// Tells an allowed page what it may send. Parameters of tools travel in `Mcp-Param-*` headers of
    /// any name, so those that are asked for are granted.
    pub(super) fn mark_preflight(&self, asked: &HeaderMap, headers: &mut HeaderMap) {
        if let Self::Allowed(_) = self {
            let mut allowed = ALLOWED_HEADERS.to_owned();
            let requested = asked.get(ACCESS_CONTROL_REQUEST_HEADERS).and_then(|value| value.to_str().ok());
            for name in requested.into_iter().flat_map(|names| names.split(',')).map(str::trim) {
                if is_plain(name) && name.to_ascii_lowercase().starts_with("mcp-param-") {
                    allowed.push_str(", ");
                    allowed.push_str(name);
                }
            }
            if let Ok(value) = HeaderValue::try_from(allowed) {
                headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, value);
            }
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(ALLOWED_METHODS));
            headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(values: &[&'static str], origins: &AllowedOrigins) -> Caller {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(ORIGIN, HeaderValue::from_static(value));
        }
        Caller::of(&headers, origins)
    }

    #[test]
    fn pages_of_this_machine_and_of_the_list_may_call() {
        let origins = AllowedOrigins::parse(["https://app.example.com"]).unwrap();
        for origin in [
            "http://localhost",
            "http://localhost:6274",
            "https://127.0.0.1:8443",
            "http://[::1]:3000",
            "https://app.example.com",
            "https://APP.example.com",
        ] {
            assert!(matches!(caller(&[origin], &origins), Caller::Allowed(_)), "{origin}");
        }
        assert!(matches!(caller(&[], &origins), Caller::NoOrigin));
    }

    #[test]
    fn other_pages_may_not() {
        let origins = AllowedOrigins::parse(["https://app.example.com"]).unwrap();
        for origin in [
            "null",
            "",
            "https://evil.example",
            "https://app.example.com.evil.example",
            "http://app.example.com",
            "https://app.example.com:444",
            "http://localhost.evil.example",
            "http://evil.example#localhost",
            "http://localhost@evil.example",
            "http://evil.example@localhost",
            "file://localhost",
            "http://127.0.0.1.nip.io",
            "http://127.1",
        ] {
            assert!(matches!(caller(&[origin], &origins), Caller::Refused), "{origin}");
        }
        assert!(matches!(caller(&["http://localhost", "http://localhost"], &origins), Caller::Refused));
    }

    #[test]
    fn a_rebound_name_is_not_ours() {
        let hosts = AllowedHosts::parse(["mcp.example.com"]).unwrap();
        let allowed = |target: &str, host: &str| {
            hosts.allow(&Request::builder().uri(target).header(HOST, host).body(()).unwrap())
        };
        for host in ["localhost:8080", "LOCALHOST", "127.0.0.1:1", "[::1]:8080", "mcp.example.com:443"] {
            assert!(allowed("/mcp", host), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "evil@localhost", "127.0.0.1.nip.io", "", "a b"] {
            assert!(!allowed("/mcp", host), "{host}");
        }
        assert!(!allowed("http://evil.example/mcp", "localhost"));
        assert!(AllowedHosts::parse(["mcp.example.com:443"]).is_err());
        assert!(AllowedHosts::parse(["https://mcp.example.com"]).is_err());
    }

    #[test]
    fn what_is_no_origin_is_refused_in_the_configuration() {
        for text in ["*", "app.example.com", "https://app.example.com/", "https://app.example.com/x", ""] {
            assert!(AllowedOrigins::parse([text]).is_err(), "{text}");
        }
    }

    #[test]
    fn a_preflight_grants_only_what_mcp_needs() {
        let mut asked = HeaderMap::new();
        let wanted = HeaderValue::from_static("content-type, mcp-param-region, x-auth-user");
        asked.insert(ACCESS_CONTROL_REQUEST_HEADERS, wanted);
        let mut headers = HeaderMap::new();
        Caller::Allowed(HeaderValue::from_static("http://localhost")).mark_preflight(&asked, &mut headers);
        let allowed = headers[ACCESS_CONTROL_ALLOW_HEADERS].to_str().unwrap().to_owned();
        assert!(allowed.contains("mcp-param-region") && !allowed.contains("x-auth-user"), "{allowed}");
    }
}
