//! A record to be added: what `create`, `rotate` and `import` have in common.

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use toml::Value;

use crate::access::Policy;
use crate::cli::facts::Facts;
use crate::cli::store::{Common, Snapshot, Store};
use crate::cli::{Exit, print, words};
use crate::source::{Fields, moment};
use crate::token::{
    Lifetime, Minted, NameRules, PREFIX_LENGTH, Pattern, Scope, Status, Token, TokenId, token_name, user_id,
};

/// How long a token lives if nobody says otherwise and the policy allows it.
const DEFAULT_LIFETIME: SignedDuration = SignedDuration::from_hours(90 * 24);

/// What `create` and `import` are told of a token alike.
#[derive(Args, Debug)]
pub(super) struct Terms {
    /// Whom the token stands for
    #[arg(long, value_name = "USER", value_parser = user_id)]
    pub(super) user: String,
    /// What its owner calls it, such as "Claude Code on laptop"
    #[arg(long, value_name = "NAME", value_parser = token_name)]
    name: String,
    /// How long it lives from now on: 45s, 12h, 90d, 1y, a date such as 2027-01-31, or never [default:
    /// 90d, or tokens.max_lifetime if that is shorter]
    #[arg(long, value_name = "LIFETIME")]
    expires: Option<Lifetime>,
    /// What it may do at most; may be given several times [default: all that the user may]
    #[arg(long = "scope", value_name = "SCOPE", value_parser = Scope::parse)]
    scopes: Vec<Scope>,
    /// A tool that it may call, or a pattern such as "get_*"; may be given several times [default: all
    /// that its scopes allow]
    #[arg(long = "tool", value_name = "PATTERN", value_parser = Pattern::parse)]
    allowed_tools: Vec<Pattern>,
    /// A tool, or a pattern of tools, that it may not call whatever else allows it
    #[arg(long = "deny-tool", value_name = "PATTERN", value_parser = Pattern::parse)]
    denied_tools: Vec<Pattern>,
}

impl Terms {
    /// Opens what is to be changed, if no token stands in what is said of the new one.
    pub(super) fn open(&self, common: &Common) -> Result<Store, Exit> {
        let store = common.open()?;
        store.refuse_tokens([("--user", Some(&self.user)), ("--name", Some(&self.name))])?;
        Ok(store)
    }

    /// Remarks on scopes that nothing here knows of, and that are most likely misspelt.
    pub(super) fn remark_on_scopes(&self, after: &Snapshot<'_>, policy: &Policy) {
        let roles = after.list.roles.as_ref();
        let granted = |scope: &Scope| roles.is_some_and(|roles| roles.values().any(|role| role.scopes.contains(scope)));
        let ruled = |scope: &Scope| policy.calls.as_ref().is_some_and(|calls| calls.scopes.contains_key(scope));
        if roles.is_none() && policy.calls.is_none() {
            return;
        }
        for scope in self.scopes.iter().filter(|scope| !granted(scope) && !ruled(scope)) {
            let scope = scope.as_str();
            print::remark(format_args!(
                "note: neither a role of the list nor the configuration has the scope `{scope}`"
            ));
        }
    }

    /// When the token ends if it is listed now, within the policy.
    pub(super) fn end_of_life(&self, policy: &Policy, now: Timestamp) -> Result<Option<Timestamp>, Exit> {
        end_of_life(self.expires, policy, now)
    }

    /// The rules for its tools, if there are any.
    pub(super) fn tools(&self) -> Option<NameRules> {
        let allow = (!self.allowed_tools.is_empty()).then(|| self.allowed_tools.clone().into());
        let rules = NameRules { allow, deny: self.denied_tools.clone().into() };
        Some(rules).filter(|rules| *rules != NameRules::default())
    }

    /// The record of a token that is listed now, without an end.
    pub(super) fn record<'r>(
        &'r self,
        id: &'r TokenId,
        hash: String,
        tools: Option<&'r NameRules>,
        created_at: Timestamp,
    ) -> NewRecord<'r> {
        let scopes = (!self.scopes.is_empty()).then(|| self.scopes.iter().map(Scope::as_str).collect());
        let (user, name) = (self.user.as_str(), Some(self.name.as_str()));
        NewRecord { id, hash, prefix: None, user, name, scopes, tools, created_at, expires_at: None }
    }
}

/// A token that is about to be listed.
#[derive(Debug)]
pub(super) struct NewRecord<'r> {
    pub(super) id: &'r TokenId,
    pub(super) hash: String,
    /// How the token begins, where that is no part of a secret.
    pub(super) prefix: Option<String>,
    pub(super) user: &'r str,
    pub(super) name: Option<&'r str>,
    pub(super) scopes: Option<Vec<&'r str>>,
    pub(super) tools: Option<&'r NameRules>,
    pub(super) created_at: Timestamp,
    pub(super) expires_at: Option<Timestamp>,
}

impl NewRecord<'_> {
    pub(super) fn fields(self) -> Fields {
        let text = |text: &str| Value::String(text.to_owned());
        let list = |items: Vec<&str>| Value::Array(items.into_iter().map(text).collect());
        let fields = [
            ("id", Some(text(self.id.as_str()))),
            ("hash", Some(text(&self.hash))),
            ("prefix", self.prefix.as_deref().map(text)),
            ("user", Some(text(self.user))),
            ("name", self.name.map(text)),
            ("scopes", self.scopes.map(list)),
            ("tools", self.tools.map(rules)),
            ("created_at", Some(moment(self.created_at))),
            ("expires_at", self.expires_at.map(moment)),
        ];
        fields.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }
}

/// Rules as the file has them: what is allowed alone, or a table.
fn rules(rules: &NameRules) -> Value {
    let list =
        |patterns: &[Pattern]| Value::Array(patterns.iter().map(|it| Value::String(it.as_str().into())).collect());
    match (&rules.allow, &*rules.deny) {
        (Some(allow), []) => list(allow),
        (allow, deny) => {
            let allow = allow.as_ref().map(|allow| ("allow".to_owned(), list(allow)));
            Value::Table(allow.into_iter().chain([("deny".to_owned(), list(deny))]).collect())
        }
    }
}

/// The beginning of a token that is minted here: its prefix and some of its id.
pub(super) fn beginning(token: &Token) -> Option<String> {
    token.expose().get(..PREFIX_LENGTH).map(str::to_owned)
}

/// When a token ends that is made now, within the policy.
pub(super) fn end_of_life(asked: Option<Lifetime>, policy: &Policy, now: Timestamp) -> Result<Option<Timestamp>, Exit> {
    let Some(asked) = asked else {
        let length = policy.max_lifetime.map_or(DEFAULT_LIFETIME, |longest| longest.min(DEFAULT_LIFETIME));
        return now.checked_add(length).map(Some).map_err(Exit::failure);
    };
    let end = asked.end(now).map_err(|error| Exit::usage(format!("--expires: {error}")))?;
    let Some(longest) = policy.max_lifetime.filter(|_| !policy.allows_lifetime(Some(now), end)) else { return Ok(end) };
    let longest = words::length(longest);
    let asked = end.map_or_else(|| "a token that never expires".to_owned(), |end| format!("a life until {end}"));
    Err(Exit::usage(format!("--expires: {asked} is longer than tokens.max_lifetime allows: ask for {longest} at most")))
}

/// Refuses to make a token that would be dead for what its user is.
pub(super) fn check_holder(snapshot: &Snapshot<'_>, user: &str) -> Result<(), Exit> {
    let Some(users) = &snapshot.list.users else { return Ok(()) };
    match users.iter().find(|listed| *listed.id == *user).map(|listed| listed.status) {
        Some(Status::Active) => Ok(()),
        Some(Status::Suspended) => Err(Exit::usage(format!(
            "user `{user}` is suspended, so the token would be dead: first `patgate user activate {user}`"
        ))),
        None => Err(Exit::usage(format!(
            "user `{user}` is not in [[users]], so the token would be dead: first `patgate user add {user}`"
        ))),
    }
}

/// A new token as JSON: all facts, and the one time that the token itself is shown.
#[derive(Serialize)]
struct Made<'m> {
    token: &'m str,
    #[serde(flatten)]
    facts: &'m Facts<'m>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaces: Option<&'m Facts<'m>>,
}

/// Prints a new token, alone, on standard output. If that fails, nobody has it.
pub(super) fn print_once(
    minted: &Minted,
    json: bool,
    facts: &Facts<'_>,
    replaces: Option<&Facts<'_>>,
) -> Result<(), Exit> {
    let token = minted.token.expose();
    let text = if json {
        serde_json::to_string(&Made { token, facts, replaces }).map_err(Exit::failure)?
    } else {
        token.to_owned()
    };
    print::secret(&text).map_err(|error| {
        let id = &minted.id;
        Exit::failure(format!("cannot print the new token ({error}), so nobody has it: `patgate token revoke {id}`"))
    })
}
