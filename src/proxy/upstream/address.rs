//! Where the upstream is: `http://host:port/prefix`, `https://…` or `unix:/path`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use http::uri::Authority;
use http::{HeaderValue, Uri};

/// The address of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    endpoint: Endpoint,
    path_prefix: Box<str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Tcp { authority: Authority, port: u16, secure: bool },
    Unix(PathBuf),
}

/// Why a text is no usable address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not a URL with a host, nor a socket's path.
    #[error("`{0}` is not an upstream address: write http://host:port, https://host or unix:/path")]
    Unreadable(String),
    /// A part that an upstream address has no use for.
    #[error("an upstream address has no {0}: write http://host:port, with a path prefix at most")]
    Superfluous(&'static str),
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let unreadable = || AddressError::Unreadable(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            let endpoint = Endpoint::Unix(PathBuf::from(path));
            let usable = path.starts_with('/') && !path.contains('\0');
            return if usable { Ok(Self { endpoint, path_prefix: "".into() }) } else { Err(unreadable()) };
        }
        if text.contains('@') {
            return Err(AddressError::Superfluous("user name or password in it"));
        }
        if text.contains(['?', '#']) {
            return Err(AddressError::Superfluous("query or fragment"));
        }
        let uri: Uri = text.parse().map_err(|_| unreadable())?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(unreadable()),
        };
        let authority = uri.authority().filter(|authority| !authority.host().is_empty()).ok_or_else(unreadable)?;
        let explicit = authority.as_str().get(authority.host().len()..).unwrap_or_default();
        let port = match (authority.port_u16(), explicit) {
            (Some(port), _) if port > 0 => port,
            (None, "") => {
                if secure {
                    443
                } else {
                    80
                }
            }
            _ => return Err(unreadable()),
        };
        let path_prefix = uri.path().trim_end_matches('/').into();
        Ok(Self { endpoint: Endpoint::Tcp { authority: authority.clone(), port, secure }, path_prefix })
    }
}

impl Address {
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Whether the way there is by TLS.
    pub fn is_secure(&self) -> bool {
        matches!(self.endpoint, Endpoint::Tcp { secure: true, .. })
    }

    /// The socket's path, for an address on this machine.
    pub fn unix_path(&self) -> Option<&Path> {
        match &self.endpoint {
            Endpoint::Unix(path) => Some(path),
            Endpoint::Tcp { .. } => None,
        }
    }

    pub(in crate::proxy) fn path_prefix(&self) -> &str {
        &self.path_prefix
    }

    /// The `Host` that the upstream expects: exactly what the operator wrote.
    pub(in crate::proxy) fn host(&self) -> HeaderValue {
        let host = match &self.endpoint {
            Endpoint::Tcp { authority, .. } => authority.as_str(),
            Endpoint::Unix(_) => "localhost",
        };
        // an authority is printable ASCII
        HeaderValue::from_str(host).unwrap_or(const { HeaderValue::from_static("localhost") })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.endpoint {
            Endpoint::Tcp { authority, secure, .. } => {
                write!(f, "{}://{authority}{}", if *secure { "https" } else { "http" }, self.path_prefix)
            }
            Endpoint::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn usable_addresses() {
        for (text, host, prefix, secure) in [
            ("http://127.0.0.1:3000", "127.0.0.1:3000", "", false),
            ("http://localhost:3000/", "localhost:3000", "", false),
            ("https://mcp.example.com/base/", "mcp.example.com", "/base", true),
            ("http://[::1]:3000/a/b", "[::1]:3000", "/a/b", false),
            ("unix:/run/mcp.sock", "localhost", "", false),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(
                (address.host().to_str().unwrap(), address.path_prefix(), address.is_secure()),
                (host, prefix, secure),
                "{text}"
            );
        }
    }

    #[test]
    fn unusable_addresses() {
        for text in [
            "",
            "localhost:3000",
            "127.0.0.1",
            "ftp://h",
            "http://",
            "http://:80",
            "http://h:0",
            "http://h:99999",
            "http://h:",
            "http://user@h",
            "http://h/?q",
            "http://h/#f",
            "unix:",
            "unix:relative",
            "http:/h",
            "/path",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
        let secret = "http://user:hunter2@h".parse::<Address>().unwrap_err();
        assert!(!secret.to_string().contains("hunter2"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "(http://|https://|unix:)?[ -~]{0,40}") {
            let _ = text.parse::<Address>();
        }
    }
}
