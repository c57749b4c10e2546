//! What a request claims: the one bearer token of its `Authorization` header (RFC 6750 section 2.1).

use std::fmt;

use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::denial::Denial;
use crate::charset::Charset;
use crate::token::TokenDigest;
use crate::verdict::Reason;

/// The longest token that is looked at, in bytes.
const MAX_LENGTH: usize = 4096;

/// A bearer token as it was sent, neither known nor trusted yet. Its `Debug` is redacted.
#[derive(Clone, Copy)]
pub struct Credential<'r> {
    token: &'r str,
}

impl<'r> Credential<'r> {
    /// Finds the credential of a request. Only the header counts; a token in the query is none.
    ///
    /// # Errors
    /// There is none, or what is there is not exactly one bearer token in the form of RFC 7235's
    /// `token68`.
    pub fn from_headers(headers: &'r HeaderMap) -> Result<Self, Denial> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let value = values.next().ok_or(Denial::of(Reason::MissingCredential))?;
        if values.next().is_some() {
            return Err(Denial::of(Reason::MalformedCredential));
        }
        bearer(value.as_bytes()).map(|token| Self { token }).ok_or(Denial::of(Reason::MalformedCredential))
    }

    /// What was sent, for those who have to try it or to digest it.
    pub fn token(&self) -> &'r str {
        self.token
    }

    /// The SHA-256 of what was sent.
    pub fn digest(&self) -> TokenDigest {
        TokenDigest::of(self.token)
    }
}

impl fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(redacted)")
    }
}

fn bearer(value: &[u8]) -> Option<&str> {
    let (scheme, rest) = value.split_at_checked(6)?;
    let token = rest.trim_ascii();
    let fits = scheme.eq_ignore_ascii_case(b"bearer")
        && rest.first() == Some(&b' ')
        && token.len() <= MAX_LENGTH
        && is_token68(token);
    if fits { str::from_utf8(token).ok() } else { None }
}

static TOKEN68: Charset = Charset::alphanumeric_and(b"-._~+/");

/// `token68 = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="`
fn is_token68(text: &[u8]) -> bool {
    let end = text.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
    end > 0 && TOKEN68.holds(&text[..end])
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn read(values: &[&str]) -> Result<String, Reason> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        Credential::from_headers(&headers).map(|found| found.token.to_owned()).map_err(|denial| denial.reason())
    }

    #[test]
    fn one_bearer_token_in_any_case_of_the_scheme() {
        for value in ["Bearer abc", "bearer abc", "BEARER abc", "bEaReR   abc", "Bearer abc "] {
            assert_eq!(read(&[value]), Ok("abc".to_owned()), "{value}");
        }
        assert_eq!(read(&["Bearer aZ9-._~+/=="]), Ok("aZ9-._~+/==".to_owned()));
    }

    #[test]
    fn everything_else_is_missing_or_malformed() {
        assert_eq!(read(&[]), Err(Reason::MissingCredential));
        let long = format!("Bearer {}", "a".repeat(MAX_LENGTH + 1));
        for values in [
            &["Bearer a", "Bearer a"][..],
            &["Bearer a", "Basic b"],
            &[""],
            &["Bearer"],
            &["Bearer "],
            &["Bearer="],
            &["Bearera"],
            &["Bearer\ta"],
            &["Basic YTpi"],
            &["abc"],
            &["Bearer a b"],
            &["Bearer a, Bearer b"],
            &["Bearer a,b"],
            &["Bearer \"a\""],
            &["Bearer ="],
            &["Bearer a=b"],
            &["Bearer é"],
            &[long.as_str()],
        ] {
            assert_eq!(read(values), Err(Reason::MalformedCredential), "{values:?}");
        }
    }

    #[test]
    fn the_token_is_not_in_debug() {
        assert_eq!(format!("{:?}", Credential { token: "secret" }), "Credential(redacted)");
    }

    proptest! {
        #[test]
        fn a_credential_is_exactly_what_was_sent(token in "[A-Za-z0-9._~+/-]{1,200}={0,2}") {
            prop_assert_eq!(read(&[&format!("Bearer {token}")]), Ok(token));
        }

        #[test]
        fn any_value_is_read_without_panic(value in "[ -~]{0,60}") {
            if let Ok(token) = read(&[&value]) {
                prop_assert!(value.ends_with(&token) || value.trim_end().ends_with(&token));
            }
        }
    }
}
