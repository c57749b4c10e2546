//! The addresses at which clients look for an authorization server.

use http::{Method, Uri};

use super::answer::{self, Answer};

const WELL_KNOWN: &str = "/.well-known/";

/// Whether a request is answered here, without a token and without being forwarded.
pub fn is_answered_here(method: &Method, uri: &Uri) -> bool {
    discovery(method, uri).is_some()
}

/// There is no authorization server, and saying so in JSON, here and without a token, keeps clients from
/// sending theirs any further.
pub(super) fn discovery(method: &Method, uri: &Uri) -> Option<Answer> {
    let path = uri.path();
    let metadata = ["oauth-protected-resource", "oauth-authorization-server", "openid-configuration"];
    if path.len() > WELL_KNOWN.len()
        && let Some((_, document)) = path.split_once(WELL_KNOWN)
        && metadata
            .iter()
            .any(|name| document == *name || document.strip_prefix(name).is_some_and(|rest| rest.starts_with('/')))
    {
        return Some(answer::no_oauth());
    }
    (path == "/register" && *method == Method::POST).then(answer::no_registration)
}
