//! The single values of a token list, as the file has them and as the commands take them.

use super::list::Status;

/// How many characters a record's `prefix` has.
pub const PREFIX_LENGTH: usize = 10;

/// What is said of a text that a token stands in. The text is not repeated.
pub const HOLDS_A_TOKEN: &str =
    "holds a token: it may now be in the history of your shell, so revoke it; write words about it here";

/// The longest text in bytes.
const MAX_TEXT: usize = 1024;

/// Reads a text. It ends up in header values and terminals, so control characters are refused at the door.
///
/// # Errors
/// What is wrong with it.
pub fn plain_text(text: &str) -> Result<String, String> {
    if text.chars().any(char::is_control) {
        return Err("holds a control character, such as a line break: write it in one plain line".to_owned());
    }
    if text.len() > MAX_TEXT {
        return Err(format!("{} bytes long: write {MAX_TEXT} at most", text.len()));
    }
    Ok(text.to_owned())
}

/// Reads the id of a user: a text that is not empty.
///
/// # Errors
/// What is wrong with it.
pub fn user_id(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("empty: name a user".to_owned()) } else { plain_text(text) }
}

/// Reads what somebody calls a token: a text that is not empty.
///
/// # Errors
/// What is wrong with it.
pub fn token_name(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("empty: say what it is for".to_owned()) } else { plain_text(text) }
}

/// Reads an address of electronic mail, of which nothing but `@` between two parts is asked.
///
/// # Errors
/// What is wrong with it.
pub fn email(text: &str) -> Result<String, String> {
    let fits = text.split_once('@').is_some_and(|(name, domain)| !name.is_empty() && !domain.is_empty());
    if fits { plain_text(text) } else { Err("not an address: write one such as alice@example.com".to_owned()) }
}

/// Reads the name of a role.
///
/// # Errors
/// What is wrong with it.
pub fn role_name(text: &str) -> Result<String, String> {
    let fits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',');
    if fits {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is not a role: write printable ASCII without spaces and commas"))
    }
}

/// Reads the beginning of a token, by which a bcrypt hash is found and a person recognises it.
///
/// # Errors
/// What is wrong with it; the text is not repeated, for somebody may have put a whole token here.
pub fn token_prefix(text: &str) -> Result<String, String> {
    if text.len() == PREFIX_LENGTH && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text.to_owned());
    }
    Err(format!("not the beginning of a token: write its first {PREFIX_LENGTH} characters"))
}

pub(super) fn status(text: &str) -> Result<Status, String> {
    match text {
        "active" => Ok(Status::Active),
        "suspended" => Ok(Status::Suspended),
        _ => Err(format!("{text:?} is not a status: write \"active\" or \"suspended\"")),
    }
}
