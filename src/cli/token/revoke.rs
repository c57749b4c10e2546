//! `patgate token revoke`

use clap::Args;
use toml::Value;

use crate::cli::store::{Common, this_second};
use crate::cli::{Exit, print, words};
use crate::source::{Section, moment};
use crate::token::plain_text;

#[derive(Args, Debug)]
pub(in crate::cli) struct Revoke {
    /// The token's id, as `patgate token list` shows it
    id: String,
    /// Why, for people who read the list later
    #[arg(long, value_name = "REASON", value_parser = plain_text)]
    reason: Option<String>,
    #[command(flatten)]
    common: Common,
}

impl Revoke {
    pub(super) fn run(self) -> Result<(), Exit> {
        let store = self.common.open()?;
        store.refuse_tokens([("--reason", self.reason.as_ref())])?;
        let (already, after) = store.edit(|before, draft| {
            let now = this_second();
            // a revocation that is yet to come is brought forward
            let already = before.token(&self.id)?.revoked_at.filter(|at| *at <= now);
            if already.is_none() {
                draft.set(Section::Tokens, &self.id, "revoked_at", &moment(now))?;
                if let Some(reason) = &self.reason {
                    draft.set(Section::Tokens, &self.id, "revoked_reason", &Value::String(reason.clone()))?;
                }
            }
            Ok(already)
        })?;
        let facts = after.token(&self.id)?;
        match already {
            Some(at) => print::remark(format_args!(
                "token {} of {} was already revoked, {}: left as it is",
                facts.id,
                facts.user,
                words::relative(at, after.now)
            )),
            None => print::remark(format_args!("token {} of {} is revoked", facts.id, facts.user)),
        }
        if self.common.json { print::json(&facts) } else { Ok(()) }
    }
}
