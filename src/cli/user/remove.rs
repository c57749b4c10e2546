//! `patgate user remove`

use clap::Args;
use toml::Value;

use super::UserFacts;
use crate::cli::facts::Status;
use crate::cli::store::{Common, this_second};
use crate::cli::{Exit, print};
use crate::source::{Section, moment};

#[derive(Args, Debug)]
pub(in crate::cli) struct Remove {
    /// The user's id, as `patgate user list` shows it
    id: String,
    #[command(flatten)]
    common: Common,
}

impl Remove {
    pub(super) fn run(self) -> Result<(), Exit> {
        let store = self.common.open()?;
        let (revoked, after) = store.edit(|before, draft| {
            before.user(&self.id)?;
            let now = moment(this_second());
            let reason = Value::String("user removed".to_owned());
            let tokens = before.tokens();
            let alive = tokens.iter().filter(|facts| {
                facts.user == self.id
                    && facts.revoked_at.is_none_or(|at| at > before.now)
                    && facts.status != Status::Expired
            });
            let mut revoked = 0;
            for facts in alive {
                draft.set(Section::Tokens, facts.id, "revoked_at", &now)?;
                draft.set(Section::Tokens, facts.id, "revoked_reason", &reason)?;
                revoked += 1;
            }
            draft.remove(Section::Users, &self.id)?;
            Ok(revoked)
        })?;
        print::remark(format_args!("user {} is removed; tokens of hers that were revoked: {revoked}", self.id));
        if after.list.users.as_ref().is_some_and(Vec::is_empty) {
            print::remark("nobody is listed now, so no token opens the door: `users = []` stays to say so");
        }
        if self.common.json { print::json(&UserFacts::of(&after, &self.id)) } else { Ok(()) }
    }
}
