//! `patgate token rotate`

use clap::Args;
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};
use toml::Value;

use super::record::{NewRecord, beginning, end_of_life, print_once};
use crate::cli::facts::{Facts, Status};
use crate::cli::store::{Common, Store, this_second};
use crate::cli::{Exit, print, words};
use crate::source::{Draft, Section, moment};
use crate::token::{Lifetime, Minted};

#[derive(Args, Debug)]
pub(in crate::cli) struct Rotate {
    /// The token's id, as `patgate token list` shows it
    id: String,
    /// How long the old token lives on, unless it ends sooner; 0s revokes it at once
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = grace)]
    grace: SignedDuration,
    /// How long the new token lives [default: as long as the old one was made for]
    #[arg(long, value_name = "LIFETIME")]
    expires: Option<Lifetime>,
    #[command(flatten)]
    common: Common,
}

impl Rotate {
    pub(super) fn run(self) -> Result<(), Exit> {
        let store = self.common.open_strictly()?;
        let minted = store.policy.prefix.mint().map_err(Exit::no_random_numbers)?;
        let ((), after) = store.edit(|before, draft| {
            let old = before.token(&self.id)?;
            // as it is written, not as it is shown
            let name = before.list.tokens.iter().find(|record| record.id.as_str() == old.id);
            let name = name.and_then(|record| record.name.as_deref());
            self.replace(&old, name, &minted, &store, draft)
        })?;
        let (new, old) = (after.token(minted.id.as_str())?, after.token(&self.id)?);
        print_once(&minted, self.common.json, &new, Some(&old))?;
        let end = match old.revoked_at {
            Some(_) => "is revoked".to_owned(),
            None => format!("ends {}", words::expiry(old.expires_at, after.now)),
        };
        print::remark(format_args!(
            "token {} of {} takes the place of {}, which {end}; it {} and will not be shown again",
            new.id,
            new.user,
            old.id,
            words::expires(new.expires_at, after.now)
        ));
        Ok(())
    }

    fn replace(
        &self,
        old: &Facts<'_>,
        name: Option<&str>,
        minted: &Minted,
        store: &Store,
        draft: &mut Draft<'_>,
    ) -> Result<(), Exit> {
        if old.status != Status::Active {
            return Err(Exit::failure(format!(
                "token {} is not active ({}), so it cannot be rotated: make a new one",
                old.id, old.status
            )));
        }
        if let Some(successor) = old.replaced_by {
            return Err(Exit::failure(format!("token {} was rotated already: its successor is {successor}", old.id)));
        }
        let now = this_second();
        let record = NewRecord {
            id: &minted.id,
            hash: minted.token.digest().to_string(),
            prefix: beginning(&minted.token),
            user: old.user,
            name,
            scopes: old.scopes.clone(),
            tools: old.tools,
            created_at: now,
            expires_at: self.end_of_successor(old, store, now)?,
        };
        draft.add(Section::Tokens, &[record.fields()]);
        draft.set(Section::Tokens, old.id, "replaced_by", &Value::String(minted.id.to_string()))?;
        if self.grace.is_zero() {
            draft.set(Section::Tokens, old.id, "revoked_at", &moment(now))?;
            draft.set(Section::Tokens, old.id, "revoked_reason", &Value::String("rotated".to_owned()))?;
            return Ok(());
        }
        let end = now.checked_add(self.grace).map_err(|_| Exit::usage("--grace: too long"))?;
        if old.expires_at.is_none_or(|own| end < own) {
            draft.set(Section::Tokens, old.id, "expires_at", &moment(end))?;
        }
        Ok(())
    }

    fn end_of_successor(&self, old: &Facts<'_>, store: &Store, now: Timestamp) -> Result<Option<Timestamp>, Exit> {
        match (self.expires, old.created_at, old.expires_at) {
            (Some(_), _, _) => end_of_life(self.expires, &store.policy, now),
            (None, _, None) => Ok(None),
            (None, Some(from), Some(end)) => now.checked_add(end.duration_since(from)).map(Some).map_err(Exit::failure),
            (None, None, Some(_)) => Err(Exit::failure(format!(
                "it is not known how long token {} was made for, as it has no created_at: give --expires",
                old.id
            ))),
        }
    }
}

fn grace(text: &str) -> Result<SignedDuration, String> {
    let unreadable = || format!("`{text}` is not a duration: write one such as 30m, 24h, 7d, or 0s for none");
    let span: Span = text.parse().map_err(|_| unreadable())?;
    let grace = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| unreadable())?;
    if grace.is_negative() { Err(unreadable()) } else { Ok(grace) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graces_that_people_give() {
        assert_eq!(grace("24h"), Ok(SignedDuration::from_hours(24)));
        assert_eq!(grace("7d"), Ok(SignedDuration::from_hours(7 * 24)));
        assert_eq!(grace("0s"), Ok(SignedDuration::ZERO));
        for text in ["", "24", "-1h", "1y", "soon", "never"] {
            assert!(grace(text).is_err(), "{text}");
        }
    }
}
