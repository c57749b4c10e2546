//! `[policy]` and `[scopes]`: what a token may call.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::access::{CallPolicy, DeniedAs, Mode, ScopeRules};
use crate::document::Table;
use crate::token::{NameRules, Scope};

/// Reads the rules; none where the file has neither table.
pub(super) fn read(root: &Table<'_>) -> Option<CallPolicy> {
    let (policy, scopes) = (read_policy(root), read_scopes(root));
    if policy.is_none() && scopes.is_none() {
        return None;
    }
    Some(CallPolicy { scopes: scopes.unwrap_or_default(), ..policy.unwrap_or_default() })
}

fn read_policy(root: &Table<'_>) -> Option<CallPolicy> {
    let table = root.table("policy")?;
    let policy = CallPolicy {
        scopes: BTreeMap::new(),
        allow_unmentioned: table.parsed("default", default).unwrap_or(false),
        mode: table.parsed("mode", mode).unwrap_or_default(),
        denied_as: table.parsed("denied", denied).unwrap_or_default(),
        refuse_batches: table.parsed("batches", batches).unwrap_or(false),
    };
    table.done();
    Some(policy)
}

fn read_scopes(root: &Table<'_>) -> Option<BTreeMap<Scope, Arc<ScopeRules>>> {
    let scopes = root.table("scopes")?;
    let mut rules = BTreeMap::new();
    for (name, scope) in scopes.named_tables() {
        let names = |key| NameRules::read(&scope, key).unwrap_or_default();
        let scope_rules = ScopeRules {
            tools: names("tools"),
            resources: names("resources"),
            prompts: names("prompts"),
            methods: names("methods"),
            read_only: scope.truth("read_only").unwrap_or(false),
        };
        scope.done();
        match Scope::parse(name) {
            Ok(name) => drop(rules.insert(name, Arc::new(scope_rules))),
            Err(why) => scope.problem("", why),
        }
    }
    Some(rules)
}

fn default(text: &str) -> Result<bool, String> {
    match text {
        "allow" => Ok(true),
        "deny" => Ok(false),
        _ => Err(format!("{text:?} is no default: write \"allow\" or \"deny\"")),
    }
}

fn mode(text: &str) -> Result<Mode, String> {
    match text {
        "enforce" => Ok(Mode::Enforce),
        "report" => Ok(Mode::Report),
        _ => Err(format!("{text:?} is no mode: write \"enforce\", or \"report\" to record only")),
    }
}

fn denied(text: &str) -> Result<DeniedAs, String> {
    match text {
        "unknown_tool" => Ok(DeniedAs::UnknownTool),
        "insufficient_scope" => Ok(DeniedAs::InsufficientScope),
        _ => Err(format!("{text:?} is no answer: write \"unknown_tool\" or \"insufficient_scope\"")),
    }
}

fn batches(text: &str) -> Result<bool, String> {
    match text {
        "check" => Ok(false),
        "refuse" => Ok(true),
        _ => Err(format!("{text:?} is not known: write \"check\" or \"refuse\"")),
    }
}
