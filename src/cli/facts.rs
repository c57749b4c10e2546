//! What is told of a token: nothing of its hash, and of the token only what is no secret.

use std::borrow::Cow;
use std::fmt;

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use serde::Serialize;

use crate::access::Grant;
use crate::source::last_used::LastUses;
use crate::token::{NameRules, Prefix, Scope, TokenId, TokenRecord};
use crate::verdict::Reason;

/// How a token stands at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    Active,
    Expired,
    Revoked,
    NotYetValid,
    Suspended,
    UserUnknown,
    OverMaxLifetime,
}

impl From<Reason> for Status {
    /// Of the reasons that a directory has against a token it knows.
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Ok => Self::Active,
            Reason::Expired => Self::Expired,
            Reason::NotYetValid => Self::NotYetValid,
            Reason::UserSuspended => Self::Suspended,
            Reason::UserUnknown => Self::UserUnknown,
            Reason::LifetimeExceeded => Self::OverMaxLifetime,
            _ => Self::Revoked,
        }
    }
}

impl Status {
    /// Its colour on a terminal.
    pub(super) fn style(self) -> Style {
        let color = match self {
            Self::Active => AnsiColor::Green,
            Self::NotYetValid => AnsiColor::Yellow,
            _ => AnsiColor::Red,
        };
        Style::new().fg_color(Some(color.into()))
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::NotYetValid => "not yet valid",
            Self::Suspended => "suspended",
            Self::UserUnknown => "user unknown",
            Self::OverMaxLifetime => "over max lifetime",
        })
    }
}

/// One token. The names of the fields are those of its JSON.
#[derive(Debug, Serialize)]
pub(super) struct Facts<'s> {
    pub(super) id: &'s str,
    pub(super) name: Option<Cow<'s, str>>,
    /// How the token begins, as far as that is known.
    pub(super) hint: Option<String>,
    pub(super) user: &'s str,
    /// What it was made for at most; nothing is all that its user may.
    pub(super) scopes: Option<Vec<&'s str>>,
    /// What it may do now, by its own scopes and its user's roles.
    pub(super) effective_scopes: Vec<&'s str>,
    /// The tools that it may call, within what its scopes allow; nothing narrows nothing.
    pub(super) tools: Option<&'s NameRules>,
    pub(super) status: Status,
    pub(super) created_at: Option<Timestamp>,
    pub(super) not_before: Option<Timestamp>,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) last_used_at: Option<Timestamp>,
    /// Whether uses are known at all: else it says nothing that there is none.
    #[serde(skip)]
    pub(super) uses_are_known: bool,
    pub(super) revoked_at: Option<Timestamp>,
    pub(super) revoked_reason: Option<Cow<'s, str>>,
    pub(super) replaced_by: Option<&'s str>,
}

impl<'s> Facts<'s> {
    pub(super) fn new(
        record: &'s TokenRecord,
        grant: &'s Grant,
        status: Status,
        uses: Option<&LastUses>,
        prefix: &Prefix,
    ) -> Self {
        let shown = |text| prefix.mask_whole(text);
        Self {
            id: record.id.as_str(),
            name: record.name.as_deref().map(shown),
            hint: hint(record, prefix),
            user: &record.user,
            scopes: record.scopes.as_ref().map(|scopes| scopes.iter().map(Scope::as_str).collect()),
            effective_scopes: grant.scopes().iter().map(Scope::as_str).collect(),
            tools: record.tools.as_ref(),
            status,
            created_at: record.created_at,
            not_before: record.not_before,
            expires_at: record.expires_at,
            last_used_at: uses.and_then(|uses| uses.get(record.id.as_str()).copied()),
            uses_are_known: uses.is_some(),
            revoked_at: record.revoked_at,
            revoked_reason: record.revoked_reason.as_deref().map(shown),
            replaced_by: record.replaced_by.as_ref().map(TokenId::as_str),
        }
    }

    /// When it was used last: a moment in these words, "never", or "unknown".
    pub(super) fn last_use(&self, words: impl FnOnce(Timestamp) -> String) -> String {
        let none = if self.uses_are_known { "never" } else { "unknown" };
        self.last_used_at.map_or_else(|| none.to_owned(), words)
    }
}

/// How the token begins: up to its secret if it was minted here, else as much as the record has of it.
fn hint(record: &TokenRecord, prefix: &Prefix) -> Option<String> {
    let known = record.prefix.as_deref()?;
    let minted = format!("{}{}_", prefix.as_str(), record.id);
    Some(if minted.starts_with(known) { format!("{minted}…") } else { format!("{known}…") })
}
