//! `patgate token rename`

use clap::Args;
use toml::Value;

use crate::cli::store::Common;
use crate::cli::{Exit, print};
use crate::source::Section;
use crate::token::token_name;

#[derive(Args, Debug)]
pub(in crate::cli) struct Rename {
    /// The token's id, as `patgate token list` shows it
    id: String,
    /// What its owner calls it from now on
    #[arg(value_parser = token_name)]
    name: String,
    #[command(flatten)]
    common: Common,
}

impl Rename {
    pub(super) fn run(self) -> Result<(), Exit> {
        let store = self.common.open()?;
        store.refuse_tokens([("the name", Some(&self.name))])?;
        let ((), after) = store.edit(|before, draft| {
            before.token(&self.id)?;
            draft.set(Section::Tokens, &self.id, "name", &Value::String(self.name.clone()))?;
            Ok(())
        })?;
        let facts = after.token(&self.id)?;
        print::remark(format_args!("token {} of {} is now called {}", facts.id, facts.user, self.name));
        if self.common.json { print::json(&facts) } else { Ok(()) }
    }
}
