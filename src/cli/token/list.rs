//! `patgate token list`

use clap::Args;
use jiff::Timestamp;

use crate::cli::facts::Facts;
use crate::cli::print::Cell;
use crate::cli::store::Common;
use crate::cli::{Exit, print, words};

#[derive(Args, Debug)]
pub(in crate::cli) struct List {
    #[command(flatten)]
    common: Common,
}

const HEAD: [&str; 9] = ["NAME", "ID", "HINT", "OWNER", "SCOPES", "CREATED", "LAST USED", "EXPIRES", "STATUS"];

impl List {
    pub(super) fn run(self) -> Result<(), Exit> {
        let store = self.common.open()?;
        let snapshot = store.read()?;
        let tokens = snapshot.tokens();
        if self.common.json {
            return print::json(&tokens);
        }
        if tokens.is_empty() {
            print::remark(format_args!("no tokens in {}", store.file.display()));
            return Ok(());
        }
        let head = HEAD.map(Cell::head).into();
        let rows = tokens.iter().map(|facts| row(facts, snapshot.now));
        print::answer(print::table(&[head].into_iter().chain(rows).collect::<Vec<_>>()))
    }
}

fn row(facts: &Facts<'_>, now: Timestamp) -> Vec<Cell> {
    let absent = || "-".to_owned();
    let texts = [
        facts.name.as_deref().map_or_else(absent, str::to_owned),
        facts.id.to_owned(),
        facts.hint.clone().unwrap_or_else(absent),
        facts.user.to_owned(),
        facts.scopes.as_ref().map_or_else(|| "all".to_owned(), |scopes| scopes.join(" ")),
        facts.created_at.map_or_else(absent, |at| words::relative(at, now)),
        facts.last_use(|at| words::relative(at, now)),
        words::expiry(facts.expires_at, now),
    ];
    let status = Cell::styled(facts.status.to_string(), facts.status.style());
    texts.into_iter().map(Cell::from).chain([status]).collect()
}
