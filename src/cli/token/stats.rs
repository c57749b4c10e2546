//! `patgate token stats`

use std::collections::HashSet;

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::cli::facts::{Facts, Status};
use crate::cli::print::Cell;
use crate::cli::store::Common;
use crate::cli::{Exit, print};

#[derive(Args, Debug)]
pub(in crate::cli) struct Stats {
    #[command(flatten)]
    common: Common,
}

/// How soon an end is worth a look.
const SOON: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The names of the fields are those of the JSON.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Counts {
    tokens: usize,
    active: usize,
    /// Distinct users of active tokens.
    users: usize,
    /// Active and never used; none if nothing is known of uses.
    never_used: Option<usize>,
    /// Active and at an end within 30 days.
    expiring_within_30_days: usize,
    revoked: usize,
    expired: usize,
    /// Neither active nor revoked nor expired: not yet valid, over the limit, or dead by their user.
    otherwise_inactive: usize,
}

impl Counts {
    fn of(tokens: &[Facts<'_>], now: Timestamp) -> Self {
        let mut counts = Self { tokens: tokens.len(), ..Self::default() };
        let (mut users, mut unused) = (HashSet::new(), 0);
        for facts in tokens {
            match facts.status {
                Status::Active => {
                    counts.active += 1;
                    users.insert(facts.user);
                    unused += usize::from(facts.last_used_at.is_none());
                    let soon = facts.expires_at.is_some_and(|end| end.duration_since(now) <= SOON);
                    counts.expiring_within_30_days += usize::from(soon);
                }
                Status::Revoked => counts.revoked += 1,
                Status::Expired => counts.expired += 1,
                _ => counts.otherwise_inactive += 1,
            }
        }
        counts.users = users.len();
        counts.never_used = tokens.iter().all(|facts| facts.uses_are_known).then_some(unused);
        counts
    }
}

impl Stats {
    pub(super) fn run(self) -> Result<(), Exit> {
        let store = self.common.open()?;
        let snapshot = store.read()?;
        let counts = Counts::of(&snapshot.tokens(), snapshot.now);
        if self.common.json {
            return print::json(&counts);
        }
        let never_used = counts.never_used.map_or_else(|| "unknown".to_owned(), |count| count.to_string());
        let rows = [
            ("active tokens", counts.active.to_string()),
            ("  of distinct users", counts.users.to_string()),
            ("  never used", never_used),
            ("  expiring within 30 days", counts.expiring_within_30_days.to_string()),
            ("revoked tokens", counts.revoked.to_string()),
            ("expired tokens", counts.expired.to_string()),
            ("otherwise inactive", counts.otherwise_inactive.to_string()),
            ("all tokens", counts.tokens.to_string()),
        ];
        let rows = rows.map(|(what, count)| vec![Cell::head(what), count.into()]);
        print::answer(print::table(&rows))
    }
}
