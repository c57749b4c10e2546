//! A token from standard input, the only way by which a command takes one.

use std::io::{IsTerminal, Read, stdin};

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use zeroize::Zeroizing;

use crate::cli::Exit;
use crate::token::Token;

/// No credential is that long; whatever has more bytes is not one.
const LIMIT: u64 = 64 * 1024;

/// Reads one token; the line end after it does not count.
pub(super) fn read() -> Result<Token, Exit> {
    let input = stdin();
    if input.is_terminal() {
        return Err(Exit::usage(
            "the token is read from standard input, which is a terminal and would show it: \
             pipe it in, or write `< file` after the command",
        ));
    }
    let mut text = Zeroizing::new(String::with_capacity(4096));
    match input.lock().take(LIMIT).read_to_string(&mut text) {
        Ok(_) => {}
        Err(error) => return Err(Exit::usage(format!("standard input cannot be read as a token: {error}"))),
    }
    let token = text.trim_end_matches(['\r', '\n']);
    if token.is_empty() { Err(Exit::usage("no token on standard input")) } else { Ok(Token::new(token)) }
}

/// The headers of a request that has this token; none if a header cannot hold it.
pub(super) fn headers(token: &Token) -> Option<HeaderMap> {
    let text = Zeroizing::new(format!("Bearer {}", token.expose()));
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(HeaderMap::from_iter([(AUTHORIZATION, value)]))
}
