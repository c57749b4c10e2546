//! `patgate user list`

use std::collections::BTreeMap;

use clap::Args;

use super::UserFacts;
use crate::cli::facts::Status;
use crate::cli::print::Cell;
use crate::cli::store::{Common, Snapshot};
use crate::cli::{Exit, print};

#[derive(Args, Debug)]
pub(in crate::cli) struct List {
    #[command(flatten)]
    common: Common,
}

const HEAD: [&str; 7] = ["ID", "NAME", "EMAIL", "ORG", "ROLES", "TOKENS", "STATUS"];

impl List {
    pub(super) fn run(self) -> Result<(), Exit> {
        let store = self.common.open()?;
        let snapshot = store.read()?;
        let users = everybody(&snapshot);
        if self.common.json {
            return print::json(&users);
        }
        if users.is_empty() {
            print::remark(format_args!("no users in {}", store.file.display()));
            return Ok(());
        }
        let head = HEAD.map(Cell::head).into();
        let rows = users.iter().map(row);
        print::answer(print::table(&[head].into_iter().chain(rows).collect::<Vec<_>>()))
    }
}

/// The users of the list in its order, then those whom only tokens name.
fn everybody<'s>(snapshot: &'s Snapshot<'_>) -> Vec<UserFacts<'s>> {
    let mut counts = BTreeMap::<&str, (usize, usize)>::new();
    let tokens = snapshot.tokens();
    for facts in &tokens {
        let (all, active) = counts.entry(facts.user).or_default();
        *all += 1;
        *active += usize::from(facts.status == Status::Active);
    }
    let listed = snapshot.list.users.iter().flatten().map(|user| &*user.id);
    let mut users: Vec<UserFacts<'s>> = listed
        .map(|id| {
            let (all, active) = counts.remove(id).unwrap_or_default();
            UserFacts::new(snapshot, id, all, active)
        })
        .collect();
    let tokens = &snapshot.list.tokens;
    let others =
        tokens.iter().filter_map(|record| counts.remove_entry(&*record.user).map(|(_, count)| (record, count)));
    users.extend(others.map(|(record, (all, active))| UserFacts::new(snapshot, &record.user, all, active)));
    users
}

fn row(user: &UserFacts<'_>) -> Vec<Cell> {
    let or_dash = |text: Option<&str>| text.unwrap_or("-").to_owned();
    let roles = if user.roles.is_empty() { "-".to_owned() } else { user.roles.join(" ") };
    let texts = [
        user.id.to_owned(),
        or_dash(user.name.as_deref()),
        or_dash(user.email.as_deref()),
        or_dash(user.org),
        roles,
        format!("{} of {} active", user.active_tokens, user.tokens),
    ];
    let status = if user.status == "active" { Status::Active } else { Status::Suspended };
    texts.into_iter().map(Cell::from).chain([Cell::styled(user.words(), status.style())]).collect()
}
