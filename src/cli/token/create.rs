//! `patgate token create`

use clap::Args;

use super::record::{NewRecord, Terms, beginning, check_holder, print_once};
use crate::cli::store::{Common, this_second};
use crate::cli::{Exit, print, words};
use crate::source::Section;

#[derive(Args, Debug)]
pub(in crate::cli) struct Create {
    #[command(flatten)]
    terms: Terms,
    #[command(flatten)]
    common: Common,
}

impl Create {
    pub(super) fn run(self) -> Result<(), Exit> {
        let store = self.terms.open(&self.common)?;
        let now = this_second();
        let expires_at = self.terms.end_of_life(&store.policy, now)?;
        let tools = self.terms.tools();
        let minted = store.policy.prefix.mint().map_err(Exit::no_random_numbers)?;
        let ((), after) = store.edit(|before, draft| {
            check_holder(before, &self.terms.user)?;
            let record = NewRecord {
                prefix: beginning(&minted.token),
                expires_at,
                ..self.terms.record(&minted.id, minted.token.digest().to_string(), tools.as_ref(), now)
            };
            draft.add(Section::Tokens, &[record.fields()]);
            Ok(())
        })?;
        let facts = after.token(minted.id.as_str())?;
        print_once(&minted, self.common.json, &facts, None)?;
        self.terms.remark_on_scopes(&after, &store.policy);
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
