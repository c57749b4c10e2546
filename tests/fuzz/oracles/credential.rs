//! The `Authorization` header: what is taken for a token is exactly what stands behind one `Bearer`.

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use patgate::access::Credential;

/// Each line is a value of the header.
pub fn check(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for value in data.split(|byte| *byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok()) {
        headers.append(AUTHORIZATION, value);
    }
    let values: Vec<_> = headers.get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes).collect();
    let Ok(credential) = Credential::from_headers(&headers) else { return };
    let [value] = values[..] else { panic!("a token was found in {} headers", values.len()) };
    let token = credential.token().as_bytes();
    let rest = value[6..].strip_suffix(&value[6 + value[6..].trim_ascii_end().len()..]).unwrap();
    assert!(value[..6].eq_ignore_ascii_case(b"Bearer"), "another scheme was taken for Bearer");
    assert!(rest.starts_with(b" ") && rest.trim_ascii_start() == token, "the token is not what was sent");
    assert!(!token.is_empty() && token.iter().all(|byte| byte.is_ascii_graphic() && !b",\"\\".contains(byte)));
}
