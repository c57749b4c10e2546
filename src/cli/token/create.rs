//! `patgate token create`

use clap::Args;

use super::record::{NewRecord, beginning, check_holder, end_of_life, print_once};
use crate::cli::store::{Common, this_second};
use crate::cli::{Exit, print, words};
use crate::source::Section;
use crate::token::{Lifetime, NameRules, Pattern, Scope, plain_text, user_id};

#[derive(Args, Debug)]
pub(in crate::cli) struct Create {
    /// Whom the token stands for
    #[arg(long, value_name = "USER", value_parser = user_id)]
    user: String,
    /// What its owner calls it, such as "Claude Code on laptop"
    #[arg(long, value_name = "NAME", value_parser = plain_text)]
    name: String,
    /// How long it lives: 45s, 12h, 90d, 1y, a date such as 2027-01-31, or never [default: 90d, or
    /// tokens.max_lifetime if that is shorter]
    #[arg(long, value_name = "LIFETIME")]
    expires: Option<Lifetime>,
    /// What it may do at most; may be given several times [default: all that the user may]
    #[arg(long = "scope", value_name = "SCOPE", value_parser = Scope::parse)]
    scopes: Vec<Scope>,
    /// A tool that it may call, or a pattern such as "get_*"; may be given several times [default: all
    /// that its scopes allow]
    #[arg(long = "tool", value_name = "PATTERN", value_parser = Pattern::parse)]
    tools: Vec<Pattern>,
    /// A tool, or a pattern of tools, that it may not call whatever else allows it
    #[arg(long = "deny-tool", value_name = "PATTERN", value_parser = Pattern::parse)]
    denied_tools: Vec<Pattern>,
    #[command(flatten)]
    common: Common,
}

impl Create {
    pub(super) fn run(self) -> Result<(), Exit> {
        let store = self.common.open()?;
        let now = this_second();
        let expires_at = end_of_life(self.expires, &store.policy, now)?;
        let tools = NameRules {
            allow: (!self.tools.is_empty()).then(|| self.tools.clone().into()),
            deny: self.denied_tools.clone().into(),
        };
        let minted = store.policy.prefix.mint().map_err(Exit::no_random_numbers)?;
        let ((), after) = store.edit(|before, draft| {
            check_holder(before, &self.user)?;
            let record = NewRecord {
                id: &minted.id,
                hash: minted.token.digest().to_string(),
                prefix: beginning(&minted.token),
                user: &self.user,
                name: Some(&self.name),
                scopes: (!self.scopes.is_empty()).then(|| self.scopes.iter().map(Scope::as_str).collect()),
                tools: Some(&tools).filter(|tools| **tools != NameRules::default()),
                created_at: now,
                expires_at,
            };
            draft.add(Section::Tokens, &[record.fields()]);
            Ok(())
        })?;
        let facts = after.token(minted.id.as_str())?;
        print_once(&minted, self.common.json, &facts, None)?;
        print::remark(format_args!(
            "token {} of {} is in {}; it {} and will not be shown again",
            facts.id,
            facts.user,
            store.file.display(),
            words::expires(expires_at, now)
        ));
        Ok(())
    }
}
