//! What each token did, in memory that does not grow with the log.

use std::collections::HashMap;
use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::query::{cut, shown};
use crate::audit::{Logged, Text};

/// The most tokens that are told apart.
const TOKENS: usize = 10_000;
/// The most tools, addresses or reasons of one token that are told apart.
const NAMES: usize = 50;
/// The longest name that is kept, in characters: no record that was written here has longer ones.
const LONGEST: usize = 512;

/// All tokens of the log.
#[derive(Debug, Default)]
pub(super) struct Summary {
    tokens: HashMap<String, Account>,
    /// Requests without a token that is known, and those of tokens beyond the most.
    rest: Account,
    rest_is_mixed: bool,
}

/// What one token did. The names of the fields are those of its JSON.
#[derive(Debug, Default, Serialize)]
pub(super) struct Account {
    /// None for requests without a known token.
    token_id: Option<String>,
    name: Option<String>,
    user: Option<String>,
    first_seen: Option<String>,
    last_seen: Option<String>,
    allowed: u64,
    denied: u64,
    failed: u64,
    tools: Counts,
    addresses: Counts,
    denials: Counts,
    /// When it stopped working, if it did and has not worked since.
    stopped_at: Option<String>,
    stopped_for: Option<String>,
}

/// How often each of a few names occurred.
#[derive(Debug, Default)]
struct Counts {
    counts: HashMap<String, u64>,
    others: u64,
}

impl Counts {
    fn add(&mut self, name: &str) {
        let name = cut(name, LONGEST);
        if let Some(count) = self.counts.get_mut(&*name) {
            *count += 1;
        } else if self.counts.len() < NAMES {
            self.counts.insert(name.into_owned(), 1);
        } else {
            self.others += 1;
        }
    }

    /// The most frequent first.
    fn sorted(&self) -> Vec<(&str, u64)> {
        let mut all: Vec<_> = self.counts.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        all.sort_by(|one, other| other.1.cmp(&one.1).then(one.0.cmp(other.0)));
        if self.others > 0 {
            all.push(("(others)", self.others));
        }
        all
    }
}

impl Serialize for Counts {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.sorted())
    }
}

impl Summary {
    pub(super) fn add(&mut self, record: &Logged<'_>) {
        // the log's own records are about no request
        if record.outcome.is_none() {
            return;
        }
        let id = record.pat_id.as_ref().map(|id| cut(&id.0, LONGEST));
        let token = match id {
            Some(id) if self.tokens.contains_key(&*id) => self.tokens.get_mut(&*id),
            Some(id) if self.tokens.len() < TOKENS => {
                let token = Account { token_id: Some(id.clone().into_owned()), ..Account::default() };
                Some(self.tokens.entry(id.into_owned()).or_insert(token))
            }
            Some(_) => {
                self.rest_is_mixed = true;
                None
            }
            None => None,
        };
        token.unwrap_or(&mut self.rest).add(record);
    }

    /// The tokens by their ids, then what has none.
    pub(super) fn tokens(&self) -> Vec<&Account> {
        let mut all: Vec<_> = self.tokens.values().collect();
        all.sort_by(|one, other| one.token_id.cmp(&other.token_id));
        all.extend((self.rest.first_seen.is_some()).then_some(&self.rest));
        all
    }

    /// The same for people.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for token in self.tokens() {
            token.write(&mut text);
        }
        if self.rest_is_mixed {
            let _ = writeln!(text, "({TOKENS} tokens are told apart; the others are among those without one)");
        }
        if text.is_empty() { "no request matches\n".to_owned() } else { text }
    }
}

impl Account {
    fn add(&mut self, record: &Logged<'_>) {
        let ts = &*record.ts.0;
        let owned = |text: &Option<Text<'_>>| text.as_ref().map(|text| shown(&text.0));
        // records are in the order of the ends of their requests
        if self.first_seen.as_deref().is_none_or(|first| ts < first) {
            self.first_seen = Some(ts.to_owned());
        }
        if self.last_seen.as_deref().is_none_or(|last| ts >= last) {
            self.last_seen = Some(ts.to_owned());
            if self.token_id.is_some() {
                (self.name, self.user) = (owned(&record.pat_name), owned(&record.user));
            }
        }
        if record.event.0 != "request" {
            return;
        }
        let reason = record.reason.as_ref().map_or("", |reason| &reason.0);
        match record.outcome.as_ref().map(|outcome| &*outcome.0) {
            Some("allowed") => {
                self.allowed += 1;
                record.tools().for_each(|tool| self.tools.add(tool));
                self.work(record);
            }
            Some("denied") => {
                self.denied += 1;
                self.denials.add(reason);
                self.stop(ts, reason);
            }
            _ => self.failed += 1,
        }
        if let Some(address) = &record.client_ip {
            self.addresses.add(&address.0);
        }
    }

    /// A request was allowed; perhaps its answer was cut when the token died.
    fn work(&mut self, record: &Logged<'_>) {
        let ts = &*record.ts.0;
        if self.stopped_at.as_deref().is_some_and(|stopped| stopped < ts) {
            (self.stopped_at, self.stopped_for) = (None, None);
        }
        if let Some(ended @ ("revoked" | "expired")) = record.ended.as_ref().map(|ended| &*ended.0) {
            let lasted = SignedDuration::try_from_secs_f64(record.duration_ms.unwrap_or(0.0) / 1000.0);
            let end =
                ts.parse::<Timestamp>().ok().zip(lasted.ok()).and_then(|(ts, lasted)| ts.checked_add(lasted).ok());
            self.stop(&end.map_or_else(|| ts.to_owned(), |end| format!("{end:.6}")), ended);
        }
    }

    /// A request was denied for something that holds for all requests of a token.
    fn stop(&mut self, ts: &str, reason: &str) {
        let dead = ["expired", "revoked", "user_suspended", "user_unknown", "lifetime_exceeded", "not_yet_valid"];
        let earlier = self.stopped_at.as_deref().is_none_or(|stopped| ts < stopped);
        if self.token_id.is_some() && earlier && dead.contains(&reason) {
            (self.stopped_at, self.stopped_for) = (Some(ts.to_owned()), Some(reason.to_owned()));
        }
    }

    fn write(&self, text: &mut String) {
        let bold = anstyle::Style::new().bold();
        let name = self.token_id.as_deref().map_or_else(|| "without a known token".to_owned(), shown);
        let _ = write!(text, "{bold}{name}{bold:#}");
        for fact in [&self.name, &self.user].into_iter().flatten() {
            let _ = write!(text, "  {fact}");
        }
        let list = |counts: &Counts| {
            let counts = counts.sorted();
            let list: Vec<_> = counts.iter().map(|(name, count)| format!("{} {count}", shown(name))).collect();
            (!list.is_empty()).then(|| list.join(", "))
        };
        let stopped = self.stopped_at.as_ref().zip(self.stopped_for.as_ref());
        let rows = [
            ("first seen", self.first_seen.clone()),
            ("last seen", self.last_seen.clone()),
            ("stopped", stopped.map(|(at, why)| format!("{at} ({why})"))),
            ("requests", Some(format!("{} allowed, {} denied, {} failed", self.allowed, self.denied, self.failed))),
            ("tools", list(&self.tools)),
            ("addresses", list(&self.addresses)),
            ("denials", list(&self.denials)),
        ];
        let _ = writeln!(text);
        for (key, value) in rows.into_iter().filter_map(|(key, value)| Some((key, value?))) {
            let _ = writeln!(text, "  {key:10}  {value}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_counted_and_those_that_begin_alike_are_told_apart() {
        let (one, other) = (format!("{}a", "x".repeat(100)), format!("{}b", "x".repeat(100)));
        let endless = "y".repeat(100_000);
        let mut counts = Counts::default();
        for name in [&one, &other, &one, &endless, &one, &endless] {
            counts.add(name);
        }
        let endless = format!("{}…", &endless[..LONGEST]);
        assert_eq!(counts.sorted(), [(&*one, 3), (&*endless, 2), (&*other, 1)]);
    }
}
