//! Where a source is: an http or https URL, in which a look-up has a place for the digest.

use std::fmt;

use http::Uri;
use http::uri::InvalidUri;

use crate::token::TokenDigest;

/// The place of the digest in the URL of a look-up.
const PLACEHOLDER: &str = "{sha256}";

/// The URL of a whole list.
#[derive(Clone, PartialEq, Eq)]
pub struct ListUrl(Uri);

impl ListUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.contains(PLACEHOLDER) {
            return Err(format!("`{PLACEHOLDER}` stands in the URL of a look-up: set tokens.lookup"));
        }
        source_uri(text).map(Self)
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.0
    }

    /// Whether the way there is by TLS.
    pub fn is_secure(&self) -> bool {
        is_secure(&self.0)
    }
}

/// The URL of one token, once the digest is filled in.
#[derive(Clone, PartialEq, Eq)]
pub struct LookupUrl {
    before: Box<str>,
    after: Box<str>,
    secure: bool,
}

impl LookupUrl {
    /// Reads a URL with one `{sha256}` in its path or query.
    ///
    /// # Errors
    /// What is wrong with it and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("write {PLACEHOLDER} once, in the path or in the query, where the digest belongs");
        let (before, after) = text.split_once(PLACEHOLDER).ok_or_else(wrong)?;
        let digest = TokenDigest::of("");
        let uri = source_uri(&format!("{before}{}{after}", digest.hex()))?;
        let elsewhere = uri.authority().is_some_and(|authority| authority.as_str().contains(&digest.hex().to_string()));
        if after.contains(PLACEHOLDER) || elsewhere {
            return Err(wrong());
        }
        Ok(Self { before: before.into(), after: after.into(), secure: is_secure(&uri) })
    }

    pub(super) fn uri(&self, digest: &TokenDigest) -> Result<Uri, InvalidUri> {
        Uri::try_from(format!("{}{}{}", self.before, digest.hex(), self.after))
    }

    /// Whether the way there is by TLS.
    pub fn is_secure(&self) -> bool {
        self.secure
    }
}

fn is_secure(uri: &Uri) -> bool {
    uri.scheme_str() == Some("https")
}

/// The text is not repeated in messages, for it may hold a secret.
fn source_uri(text: &str) -> Result<Uri, String> {
    let unreadable = || "not a URL of a source: write http://host/path or https://host/path".to_owned();
    let uri: Uri = text.parse().map_err(|_| unreadable())?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || text.contains('#') {
        return Err(unreadable());
    }
    let authority = uri.authority().ok_or_else(unreadable)?;
    if authority.as_str().contains('@') {
        return Err("a URL with a user name or a password: put a bearer token into a file, as bearer_file".to_owned());
    }
    let host = authority.host();
    let port = authority.as_str().get(host.len()..).unwrap_or_default();
    let usable = !host.is_empty() && (port.is_empty() || authority.port_u16().is_some_and(|port| port > 0));
    if usable { Ok(uri) } else { Err(unreadable()) }
}

// --- What people get to see -----------------------------------------------------------------

/// Without the query, in which some services want a key.
fn shown(url: &str) -> &str {
    url.split('?').next().unwrap_or_default()
}

impl fmt::Display for ListUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(shown(&self.0.to_string()))
    }
}

impl fmt::Display for LookupUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(shown(&format!("{}{PLACEHOLDER}{}", self.before, self.after)))
    }
}

impl fmt::Debug for ListUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ListUrl({self})")
    }
}

impl fmt::Debug for LookupUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LookupUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn usable_urls() {
        for (text, shown, secure) in [
            ("https://iam.internal/pats.json", "https://iam.internal/pats.json", true),
            ("http://127.0.0.1:8000/a?key=hunter2", "http://127.0.0.1:8000/a", false),
            ("https://[::1]:8443/", "https://[::1]:8443/", true),
        ] {
            let url = ListUrl::parse(text).unwrap();
            assert_eq!((url.to_string().as_str(), url.is_secure()), (shown, secure), "{text}");
            assert!(!format!("{url:?}").contains("hunter2"));
        }
        let digest = TokenDigest::of("abc");
        for text in ["https://iam.internal/pats/{sha256}", "http://h/?sha256={sha256}&x=1", "http://h/{sha256}/pat"] {
            let url = LookupUrl::parse(text).unwrap();
            let expected =
                text.replace(PLACEHOLDER, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
            assert_eq!(url.uri(&digest).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn unusable_urls() {
        for text in [
            "",
            "iam.internal/pats.json",
            "/pats.json",
            "ftp://h/x",
            "http://",
            "http://:80/",
            "http://h:0/",
            "http://h:99999/",
            "http://h/#x",
            "http://h/{sha256}",
            "unix:/run/x",
        ] {
            assert!(ListUrl::parse(text).is_err(), "{text}");
        }
        for text in ["http://h/", "http://h/{sha256}/{sha256}", "http://{sha256}/", "http://{sha256}.h/", "{sha256}"] {
            assert!(LookupUrl::parse(text).is_err(), "{text}");
        }
        let problem = ListUrl::parse("http://user:hunter2@h/").unwrap_err();
        assert!(problem.contains("bearer_file") && !problem.contains("hunter2"), "{problem}");
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "(http://|https://)?[ -~]{0,30}(\\{sha256\\})?[ -~]{0,10}") {
            let _ = (ListUrl::parse(&text), LookupUrl::parse(&text));
        }
    }
}
