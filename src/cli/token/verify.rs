//! `patgate token verify`

use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::secret;
use crate::access::{Credential, Denial, Finding, Grant, Permit, Question};
use crate::audit::harmless;
use crate::cli::facts::Facts;
use crate::cli::store::{Common, Snapshot};
use crate::cli::{Exit, print, words};
use crate::token::Token;
use crate::verdict::{Outcome, Reason};

#[derive(Args, Debug)]
pub(in crate::cli) struct Verify {
    #[command(flatten)]
    common: Common,
}

/// What the server would say. The names of the fields are those of the JSON.
#[derive(Serialize)]
struct Verdict<'v> {
    outcome: Outcome,
    /// As the audit record would have it.
    reason: Reason,
    explanation: String,
    token: Option<Facts<'v>>,
}

impl Verify {
    pub(super) fn run(self) -> Result<(), Exit> {
        let store = self.common.open_strictly()?;
        let token = secret::read()?;
        let snapshot = store.read()?;
        let (reason, id) = judge(&snapshot, &token);
        let facts = id.map(|id| snapshot.token(&id)).transpose()?;
        let verdict = Verdict {
            outcome: reason.outcome(),
            reason,
            explanation: explanation(reason, facts.as_ref(), &snapshot),
            token: facts,
        };
        if self.common.json {
            print::json(&verdict)?;
        } else {
            print::answer(verdict.text())?;
        }
        if verdict.outcome == Outcome::Allowed { Ok(()) } else { Err(Exit::negative()) }
    }
}

/// The reason, and the id of the token if it is known.
fn judge(snapshot: &Snapshot<'_>, token: &Token) -> (Reason, Option<String>) {
    let id = |grant: &Grant| grant.token_id().to_string();
    let Some(headers) = secret::headers(token) else { return (Reason::MalformedCredential, None) };
    let asked = Credential::from_headers(&headers);
    match asked.and_then(|credential| authenticate(snapshot, &credential, token)) {
        Ok(permit) => (Reason::Ok, Some(id(permit.grant()))),
        Err(denial) => (denial.reason(), denial.grant().map(|grant| id(grant))),
    }
}

/// The same decision as on a request, at the same place.
fn authenticate(snapshot: &Snapshot<'_>, credential: &Credential<'_>, token: &Token) -> Result<Permit, Denial> {
    let directory = &snapshot.directory;
    let finding = directory.question(credential).map_or(Finding::Nobody, |question| find_out(&question, token));
    directory.authenticate(credential, &finding, snapshot.now)
}

/// What the list cannot tell by itself.
fn find_out(question: &Question, token: &Token) -> Finding {
    let matches = |grant: &&Arc<Grant>| grant.bcrypt().is_some_and(|hash| hash.matches(token));
    match question {
        Question::Bcrypt(candidates) => {
            candidates.iter().find(matches).map_or(Finding::Nobody, |grant| Finding::Found(Arc::clone(grant)))
        }
        Question::Lookup(_) => Finding::Unavailable,
    }
}

/// Why, in a sentence.
pub(in crate::cli) fn explanation(reason: Reason, facts: Option<&Facts<'_>>, snapshot: &Snapshot<'_>) -> String {
    let now = snapshot.now;
    let ago = |at: Option<jiff::Timestamp>| at.map_or_else(String::new, |at| format!(" {}", words::relative(at, now)));
    let user = facts.map_or("its user", |facts| facts.user);
    match reason {
        Reason::Ok => {
            let end = facts.and_then(|facts| facts.expires_at);
            format!("it opens the door and {}", words::expires(end, now))
        }
        Reason::MalformedCredential => "no client can send it as a bearer token".to_owned(),
        Reason::BadChecksum => {
            "it begins as tokens minted here do, and its checksum is wrong: it was cut or mistyped".to_owned()
        }
        Reason::UnknownToken => "it is not in the list".to_owned(),
        Reason::Expired => format!("it expired{}", ago(facts.and_then(|facts| facts.expires_at))),
        Reason::NotYetValid => format!("it is good{} and not before", ago(facts.and_then(|facts| facts.not_before))),
        Reason::LifetimeExceeded => "it was made for longer than tokens.max_lifetime allows".to_owned(),
        Reason::Revoked => match facts.and_then(|facts| facts.revoked_at.filter(|at| *at <= now)) {
            Some(at) => {
                let why = facts
                    .and_then(|facts| facts.revoked_reason.as_deref())
                    .map_or_else(String::new, |why| format!(": {why}"));
                format!("it was revoked {}{why}", words::relative(at, now))
            }
            None => "it is on the deny list".to_owned(),
        },
        Reason::UserSuspended => format!("user {user} is suspended"),
        Reason::UserUnknown => format!("user {user} is not in [[users]]"),
        _ => "it cannot be found out whose it is".to_owned(),
    }
}

impl Verdict<'_> {
    fn text(&self) -> String {
        let word = if self.outcome == Outcome::Allowed { "allowed" } else { "denied" };
        let token = self.token.as_ref().map_or_else(String::new, |facts| {
            let name = facts.name.as_deref().map_or_else(String::new, |name| format!(" ({name})"));
            format!("token {}{name} of {}: ", facts.id, facts.user)
        });
        format!("{}\n", harmless(&format!("{word}: {token}{}", self.explanation)))
    }
}
