//! Who calls, in header values that are safe by construction.
//!
//! Values are made when the list is loaded, so a request only copies references. A text in plain
//! ASCII is sent as it stands; any other is sent as an encoded-word of RFC 2047
//! (`=?UTF-8?B?…?=`), and so is one that could be mistaken for such a word.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue};

use super::calls::CallRights;
use super::directory::Policy;
use super::grant::Grant;
use crate::token::{Scope, TokenId, User};

/// The names of the identity headers towards the upstream; `None` leaves one out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityHeaders {
    /// The user's id.
    pub user: Option<HeaderName>,
    /// Her address.
    pub email: Option<HeaderName>,
    /// Her full name.
    pub name: Option<HeaderName>,
    /// Her organisation.
    pub org: Option<HeaderName>,
    /// Her roles, separated by commas.
    pub roles: Option<HeaderName>,
    /// What the token may do, separated by spaces as in RFC 6749.
    pub scopes: Option<HeaderName>,
    /// The token's public id.
    pub token_id: Option<HeaderName>,
    /// How the caller was authenticated: always `pat`.
    pub source: Option<HeaderName>,
}

impl Default for IdentityHeaders {
    fn default() -> Self {
        Self {
            user: Some(HeaderName::from_static("x-auth-user")),
            email: Some(HeaderName::from_static("x-auth-email")),
            name: Some(HeaderName::from_static("x-auth-name")),
            org: Some(HeaderName::from_static("x-auth-org")),
            roles: Some(HeaderName::from_static("x-auth-roles")),
            scopes: Some(HeaderName::from_static("x-auth-scopes")),
            token_id: Some(HeaderName::from_static("x-auth-token-id")),
            source: Some(HeaderName::from_static("x-auth-source")),
        }
    }
}

impl IdentityHeaders {
    /// The names that are set.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        [&self.user, &self.email, &self.name, &self.org, &self.roles, &self.scopes, &self.token_id, &self.source]
            .into_iter()
            .flatten()
    }
}

type Header = (HeaderName, HeaderValue);

/// A user as the upstream sees her, shared by all of her tokens.
#[derive(Debug)]
pub(super) struct Subject {
    user: Box<str>,
    org: Option<Box<str>>,
    roles: Box<[Box<str>]>,
    headers: Box<[Header]>,
}

impl Subject {
    /// A user of the list. A token among the words about her is masked; what tells her from others stays as it is.
    pub(super) fn listed(user: &User, policy: &Policy) -> Self {
        let (names, shown) = (&policy.identity, |text| policy.prefix.mask_whole(text));
        let roles = (!user.roles.is_empty()).then(|| user.roles.join(","));
        let headers = [
            header(names.user.as_ref(), Some(&user.id)),
            header(names.email.as_ref(), user.email.as_deref().map(shown).as_deref()),
            header(names.name.as_ref(), user.name.as_deref().map(shown).as_deref()),
            header(names.org.as_ref(), user.org.as_deref()),
            header(names.roles.as_ref(), roles.as_deref()),
        ];
        let roles = user.roles.iter().cloned().collect();
        Self { user: user.id.clone(), org: user.org.clone(), roles, headers: headers.into_iter().flatten().collect() }
    }

    /// A user of whom nothing but the id is known.
    pub(super) fn bare(user: &str, names: &IdentityHeaders) -> Self {
        let headers = header(names.user.as_ref(), Some(user)).into_iter().collect();
        Self { user: user.into(), org: None, roles: Box::default(), headers }
    }

    pub(super) fn user(&self) -> &str {
        &self.user
    }

    pub(super) fn org(&self) -> Option<&str> {
        self.org.as_deref()
    }

    /// Whether what was begun as `other` may go on as this: the same user, with all of her roles.
    pub(super) fn stands_for(&self, other: &Self) -> bool {
        let same = self.user == other.user && self.org == other.org;
        same && other.roles.iter().all(|role| self.roles.contains(role))
    }

    pub(super) fn headers(&self) -> impl Iterator<Item = &Header> {
        self.headers.iter()
    }
}

/// What the tokens of one set of scopes have in common.
#[derive(Debug)]
pub(super) struct Rights {
    pub(super) scopes: Box<[Scope]>,
    pub(super) calls: CallRights,
    /// Whether the operator has said anything about calls.
    pub(super) has_policy: bool,
    headers: Box<[Header]>,
    token_id: Option<HeaderName>,
}

impl Rights {
    pub(super) fn new(scopes: &[&Scope], policy: &Policy) -> Self {
        let names = &policy.identity;
        let texts: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
        let text = (!texts.is_empty()).then(|| texts.join(" "));
        let headers =
            [header(names.scopes.as_ref(), text.as_deref()), header(names.source.as_ref(), Some(Grant::SOURCE))];
        Self {
            scopes: scopes.iter().copied().cloned().collect(),
            calls: CallRights::new(policy.calls.as_ref(), scopes),
            has_policy: policy.calls.is_some(),
            headers: headers.into_iter().flatten().collect(),
            token_id: names.token_id.clone(),
        }
    }

    pub(super) fn headers(&self) -> impl Iterator<Item = &Header> {
        self.headers.iter()
    }

    /// Made for each request: it costs less than a rendered value for each token would.
    pub(super) fn token_id_header(&self, id: &TokenId) -> Option<Header> {
        header(self.token_id.as_ref(), Some(id.as_str()))
    }
}

fn header(name: Option<&HeaderName>, value: Option<&str>) -> Option<Header> {
    name.cloned().zip(value.map(safe_value))
}

/// Any text as a header value that no parser can misread.
fn safe_value(text: &str) -> HeaderValue {
    let plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~')) && text.trim() == text && !text.starts_with("=?");
    let word = if plain { text.to_owned() } else { format!("=?UTF-8?B?{}?=", STANDARD.encode(text)) };
    // both forms are printable ASCII, which is always a value; an empty one names nobody
    HeaderValue::try_from(word).unwrap_or(const { HeaderValue::from_static("") })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_text_stands_as_it_is_and_other_text_is_encoded() {
        assert_eq!(safe_value("Alice Doe"), "Alice Doe");
        assert_eq!(safe_value("Zoë"), "=?UTF-8?B?Wm/Dqw==?=");
        assert_eq!(safe_value("a\r\nX-Auth-User: root"), "=?UTF-8?B?YQ0KWC1BdXRoLVVzZXI6IHJvb3Q=?=");
        assert_eq!(safe_value("=?UTF-8?B?cm9vdA==?="), "=?UTF-8?B?PT9VVEYtOD9CP2NtOXZkQT09Pz0=?=");
        assert_eq!(safe_value(" padded"), "=?UTF-8?B?IHBhZGRlZA==?=");
    }

    proptest! {
        #[test]
        fn every_text_becomes_a_safe_value_of_its_own(text in "\\PC*|.*", other in ".*") {
            let value = safe_value(&text);
            prop_assert!(value.as_bytes().iter().all(|byte| (b' '..=b'~').contains(byte)));
            prop_assert_eq!(text == other, value == safe_value(&other));
        }
    }
}
