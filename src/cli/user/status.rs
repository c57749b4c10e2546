//! `patgate user suspend` and `patgate user activate`

use clap::Args;
use toml::Value;

use super::UserFacts;
use crate::cli::store::Common;
use crate::cli::{Exit, print};
use crate::source::Section;
use crate::token::Status;

#[derive(Args, Debug)]
pub(in crate::cli) struct Change {
    /// The user's id, as `patgate user list` shows it
    id: String,
    #[command(flatten)]
    common: Common,
}

impl Change {
    pub(super) fn run(self, status: Status) -> Result<(), Exit> {
        let word = match status {
            Status::Active => "active",
            Status::Suspended => "suspended",
        };
        let store = self.common.open()?;
        let (already, after) = store.edit(|before, draft| {
            let already = before.user(&self.id)?.status == status;
            if !already {
                draft.set(Section::Users, &self.id, "status", &Value::String(word.to_owned()))?;
            }
            Ok(already)
        })?;
        let user = UserFacts::of(&after, &self.id);
        print::remark(match (already, status) {
            (true, _) => format!("user {} is {word} already: left as it is", self.id),
            (false, Status::Suspended) => format!("user {} is suspended: none of her tokens works", self.id),
            (false, Status::Active) => {
                format!("user {} is active; tokens of hers that work: {}", self.id, user.active_tokens)
            }
        });
        if self.common.json { print::json(&user) } else { Ok(()) }
    }
}
