//! `patgate token show`

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use crate::cli::facts::Facts;
use crate::cli::print::Cell;
use crate::cli::store::{Common, Snapshot};
use crate::cli::user::UserFacts;
use crate::cli::{Exit, print, words};
use crate::token::{NameRules, Pattern};

#[derive(Args, Debug)]
pub(in crate::cli) struct Show {
    /// The token's id, as `patgate token list` shows it
    id: String,
    #[command(flatten)]
    common: Common,
}

/// A token and its user.
#[derive(Serialize)]
struct Whole<'s> {
    #[serde(flatten)]
    token: Facts<'s>,
    owner: UserFacts<'s>,
}

impl Show {
    pub(super) fn run(self) -> Result<(), Exit> {
        let store = self.common.open()?;
        let snapshot = store.read()?;
        let token = snapshot.token(&self.id)?;
        let owner = UserFacts::of(&snapshot, token.user);
        let whole = Whole { token, owner };
        if self.common.json {
            return print::json(&whole);
        }
        print::answer(print::table(&whole.rows(&snapshot)))
    }
}

impl Whole<'_> {
    /// What is known, a fact a line.
    fn rows(&self, snapshot: &Snapshot<'_>) -> Vec<Vec<Cell>> {
        let Self { token, owner } = self;
        let now = snapshot.now;
        let text = |text: Option<&str>| text.map(str::to_owned);
        let moment = |at: Timestamp| format!("{at} ({})", words::relative(at, now));
        let at = |at: Option<Timestamp>| at.map(moment);
        let list = |items: &[&str]| (!items.is_empty()).then(|| items.join(" "));
        let rows = [
            ("id", text(Some(token.id))),
            ("name", text(token.name.as_deref())),
            ("hint", token.hint.clone()),
            ("status", Some(token.status.to_string())),
            (
                "scopes",
                Some(token.scopes.as_deref().and_then(list).unwrap_or_else(|| "all that the user may".to_owned())),
            ),
            ("may now", list(&token.effective_scopes)),
            ("tools", token.tools.map(tools)),
            ("created", at(token.created_at)),
            ("not before", at(token.not_before)),
            ("expires", at(token.expires_at).or_else(|| text(Some("never")))),
            ("last used", Some(token.last_use(moment))),
            ("revoked", at(token.revoked_at)),
            ("reason", text(token.revoked_reason.as_deref())),
            ("replaced by", text(token.replaced_by)),
            ("user", text(Some(token.user))),
            ("user's status", Some(owner.words())),
            ("user's name", text(owner.name.as_deref())),
            ("email", text(owner.email.as_deref())),
            ("organisation", text(owner.org)),
            ("roles", list(&owner.roles)),
        ];
        let known = rows.into_iter().filter_map(|(key, value)| Some((key, value?)));
        known.map(|(key, value)| vec![Cell::head(key), value.into()]).collect()
    }
}

/// Rules in words: "get_* echo, not get_secret".
fn tools(rules: &NameRules) -> String {
    let list = |patterns: &[Pattern]| patterns.iter().map(Pattern::as_str).collect::<Vec<_>>().join(" ");
    let allowed = match rules.allow.as_deref() {
        None => "all that its scopes allow".to_owned(),
        Some([]) => "none".to_owned(),
        Some(allow) => list(allow),
    };
    if rules.deny.is_empty() { allowed } else { format!("{allowed}, not {}", list(&rules.deny)) }
}
