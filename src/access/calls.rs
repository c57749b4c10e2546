//! What a token may call: the rules of its scopes, its own, and what its client asks to leave out.
//!
//! A call is allowed when one effective scope grants it and nothing denies it. What no rule mentions is
//! left to the default. Pure: the hints of the upstream come in from outside.

use std::fmt;
use std::sync::Arc;

use super::narrowing::Narrowing;
use super::scope_rules::{CallPolicy, Kind, Mode, ScopeRules};
use crate::mcp::Call;
use crate::token::{Name, NameRules, Scope, Uri};

/// What the tokens of one set of scopes may call: worked out when the list is read.
#[derive(Debug)]
pub(super) struct CallRights {
    policy: Arc<CallPolicy>,
    held: Box<[(Scope, Arc<ScopeRules>)]>,
    sees_all: bool,
}

impl CallRights {
    /// Without a policy, everything is allowed that the token itself allows.
    pub(super) fn new(policy: Option<&Arc<CallPolicy>>, scopes: &[&Scope]) -> Self {
        let policy = policy
            .map_or_else(|| Arc::new(CallPolicy { allow_unmentioned: true, ..CallPolicy::default() }), Arc::clone);
        let held = scopes.iter().filter_map(|scope| policy.scopes.get_key_value(*scope));
        let held: Box<[_]> = held.map(|(scope, rules)| (scope.clone(), Arc::clone(rules))).collect();
        let sees_all = [Kind::Tools, Kind::Resources, Kind::Prompts].into_iter().all(|kind| {
            let denied = held.iter().any(|(_, rules)| !rules.of(kind).deny.is_empty());
            let granted = held.iter().any(|(_, rules)| rules.grants_all(kind));
            let unmentioned = policy.allow_unmentioned && !policy.scopes.values().any(|rules| rules.mentions_any(kind));
            !denied && (granted || unmentioned)
        });
        Self { policy, held, sees_all }
    }
}

/// What one token may call.
#[derive(Clone, Copy, Debug)]
pub struct Calls<'g> {
    pub(super) rights: &'g CallRights,
    pub(super) own: Option<&'g NameRules>,
    /// Whether the rules of scopes are left out.
    pub(super) without_scopes: bool,
}

/// The rule that denies a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule<'p> {
    /// A scope denies it: one of the token, or the one that it would need.
    Denied {
        /// The scope.
        scope: &'p Scope,
        /// `tools`, `resources`, `prompts` or `methods`
        kind: &'static str,
        /// The place in the list.
        index: usize,
        /// The pattern there.
        pattern: &'p str,
    },
    /// A scope that the token does not have would grant it.
    Needs {
        /// The scope.
        scope: &'p Scope,
        /// `tools`, `resources`, `prompts` or `methods`
        kind: &'static str,
    },
    /// A scope grants only what the upstream says changes nothing, and it does not say so of this tool.
    ReadOnly(&'p Scope),
    /// The token's own list denies it.
    TokenDenies(usize, &'p str),
    /// The token's own list of what is allowed does not have it.
    TokenAllowsOthers,
    /// The client asked to leave it out by this header.
    Header(&'static str),
    /// No rule mentions it.
    Default,
}

impl fmt::Display for Rule<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied { scope, kind, index, pattern } => {
                write!(f, "scopes.\"{}\".{kind}.deny[{index}]=\"{pattern}\"", scope.as_str())
            }
            Self::Needs { scope, kind } => write!(f, "needs scopes.\"{}\".{kind}", scope.as_str()),
            Self::ReadOnly(scope) => write!(f, "scopes.\"{}\".read_only", scope.as_str()),
            Self::TokenDenies(index, pattern) => write!(f, "token.tools.deny[{index}]=\"{pattern}\""),
            Self::TokenAllowsOthers => f.write_str("token.tools.allow"),
            Self::Header(name) => write!(f, "header {name}"),
            Self::Default => f.write_str("policy.default"),
        }
    }
}

impl<'g> Calls<'g> {
    /// The settings that hold for all.
    pub fn policy(&self) -> &'g CallPolicy {
        &self.rights.policy
    }

    /// Whether the rules of scopes are tried only.
    pub fn is_trial(&self) -> bool {
        self.rights.policy.mode == Mode::Report
    }

    /// What is enforced of it. A trial of scopes opens nothing that is locked without them: the token's own rules,
    /// and what the client asks to leave out.
    #[must_use]
    pub fn enforced(self) -> Self {
        Self { without_scopes: self.is_trial(), ..self }
    }

    /// Whether anything is enforced.
    pub fn holds(&self, narrowing: &Narrowing) -> bool {
        !self.is_trial() || self.own.is_some() || !narrowing.is_none()
    }

    /// Whether batches are refused whatever is in them.
    pub fn refuses_batches(&self) -> bool {
        self.rights.policy.refuse_batches && !self.without_scopes
    }

    /// Whether no list has anything that this token may not use.
    pub fn sees_all(&self) -> bool {
        self.rights.sees_all && self.own.is_none()
    }

    /// Decides about one call. `is_read_only` tells what the upstream says of a tool.
    ///
    /// # Errors
    /// The rule that denies it.
    pub fn decide(
        &self,
        call: Call<'_>,
        narrowing: &Narrowing,
        is_read_only: impl Fn(&str) -> bool,
    ) -> Result<(), Rule<'g>> {
        let (kind, text) = match call {
            Call::Tool(name) => (Kind::Tools, name),
            Call::Resource(uri) => (Kind::Resources, uri),
            Call::Prompt(name) => (Kind::Prompts, name),
            Call::Method(method) => (Kind::Methods, method),
        };
        let name = if kind == Kind::Resources { Name::Uri(Uri::new(text)) } else { Name::Plain(text) };
        if !self.without_scopes {
            self.check_denials(kind, &name)?;
        }
        if kind == Kind::Tools {
            self.check_own(&name)?;
            narrowing.check(&name, || is_read_only(text)).map_err(Rule::Header)?;
        }
        if self.without_scopes { Ok(()) } else { self.check_grants(kind, &name, || is_read_only(text)) }
    }

    fn check_denials(&self, kind: Kind, name: &Name<'_>) -> Result<(), Rule<'g>> {
        let mut denying = self.rights.held.iter().filter_map(|(scope, rules)| denied_by(scope, rules, kind, name));
        denying.next().map_or(Ok(()), Err)
    }

    fn check_own(&self, name: &Name<'_>) -> Result<(), Rule<'g>> {
        let Some(own) = self.own else { return Ok(()) };
        if let Some((index, pattern)) = own.denying(name) {
            return Err(Rule::TokenDenies(index, pattern.as_str()));
        }
        if own.allow.is_some() && own.allowing(name).is_none() {
            return Err(Rule::TokenAllowsOthers);
        }
        Ok(())
    }

    fn check_grants(&self, kind: Kind, name: &Name<'_>, is_read_only: impl Fn() -> bool) -> Result<(), Rule<'g>> {
        let mut lacking = None;
        for (scope, rules) in &self.rights.held {
            if rules.granting(kind, name).is_some() {
                if kind != Kind::Tools || !rules.read_only || is_read_only() {
                    return Ok(());
                }
                lacking.get_or_insert(Rule::ReadOnly(scope));
            }
        }
        if let Some(rule) = lacking {
            return Err(rule);
        }
        if let (Kind::Methods, Name::Plain(method)) = (kind, name)
            && is_base(method)
        {
            return Ok(());
        }
        match self.scopes_that_grant(kind, name) {
            Some(rule) => Err(rule),
            None if self.rights.policy.allow_unmentioned => self.scope_that_mentions(kind, name).map_or(Ok(()), Err),
            None => Err(Rule::Default),
        }
    }

    /// What a name needs that some scope grants: of those scopes, the one that means it most closely. One
    /// that grants it by a pattern and denies it by another grants it to nobody.
    fn scopes_that_grant(&self, kind: Kind, name: &Name<'_>) -> Option<Rule<'g>> {
        let granting = self.rights.policy.scopes.iter().filter_map(|(scope, rules)| {
            let granting = rules.granting(kind, name)?;
            let length = granting.map_or(0, |(_, pattern)| pattern.as_str().len());
            let rule = denied_by(scope, rules, kind, name).unwrap_or(Rule::Needs { scope, kind: kind.key() });
            Some((matches!(rule, Rule::Needs { .. }), length, rule))
        });
        granting.max_by_key(|(needs, length, _)| (*needs, *length)).map(|(_, _, rule)| rule)
    }

    /// A scope that the token does not have and that may be meant for a name.
    fn scope_that_mentions(&self, kind: Kind, name: &Name<'_>) -> Option<Rule<'g>> {
        let is_held = |scope: &Scope| self.rights.held.iter().any(|(held, _)| held == scope);
        let mut others = self.rights.policy.scopes.iter().filter(|(scope, _)| !is_held(scope));
        let (scope, _) = others.find(|(_, rules)| rules.of(kind).mentions(name))?;
        Some(Rule::Needs { scope, kind: kind.key() })
    }
}

fn denied_by<'p>(scope: &'p Scope, rules: &'p ScopeRules, kind: Kind, name: &Name<'_>) -> Option<Rule<'p>> {
    let (index, pattern) = rules.of(kind).denying(name)?;
    Some(Rule::Denied { scope, kind: kind.key(), index, pattern: pattern.as_str() })
}

/// What every client needs in order to speak at all, and what follows from a call that was judged. It is
/// allowed unless a scope denies it.
fn is_base(method: &str) -> bool {
    const BASE: [&str; 13] = [
        "initialize",
        "ping",
        "server/discover",
        "tools/list",
        "resources/list",
        "resources/templates/list",
        "prompts/list",
        "logging/setLevel",
        "subscriptions/listen",
        "tasks/get",
        "tasks/result",
        "tasks/update",
        "tasks/cancel",
    ];
    BASE.contains(&method) || method.starts_with("notifications/")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::token::Pattern;

    fn rules(allow: Option<&[&str]>, deny: &[&str]) -> NameRules {
        let patterns = |texts: &[&str]| texts.iter().map(|text| Pattern::parse_uri(text).unwrap()).collect();
        NameRules { allow: allow.map(patterns), deny: patterns(deny) }
    }

    fn scope(name: &str) -> Scope {
        Scope::parse(name).unwrap()
    }

    fn policy(allow_unmentioned: bool) -> Arc<CallPolicy> {
        let scopes = [
            ("read", ScopeRules { tools: rules(Some(&["get_*"]), &["get_secret"]), ..ScopeRules::default() }),
            (
                "write",
                ScopeRules {
                    tools: rules(Some(&["*"]), &[]),
                    methods: rules(None, &["ping"]),
                    ..ScopeRules::default()
                },
            ),
            ("set", ScopeRules { tools: rules(Some(&["set_*"]), &[]), ..ScopeRules::default() }),
            ("safe", ScopeRules { read_only: true, ..ScopeRules::default() }),
        ];
        let scopes = scopes.map(|(name, rules)| (scope(name), Arc::new(rules))).into();
        Arc::new(CallPolicy { scopes, allow_unmentioned, ..CallPolicy::default() })
    }

    fn verdict(policy: &Arc<CallPolicy>, held: &[&str], own: Option<&NameRules>, call: Call<'_>) -> String {
        let held: Vec<Scope> = held.iter().map(|name| scope(name)).collect();
        let rights = CallRights::new(Some(policy), &held.iter().collect::<Vec<_>>());
        let calls = Calls { rights: &rights, own, without_scopes: false }.enforced();
        let decided = calls.decide(call, &Narrowing::default(), |tool| tool == "get_hinted");
        decided.err().map_or_else(|| "allowed".to_owned(), |rule| rule.to_string())
    }

    #[test]
    fn every_rule_that_decides() {
        let strict = policy(false);
        for (held, call, expected) in [
            (&["read"][..], Call::Tool("get_a"), "allowed"),
            (&["read"], Call::Tool("set_a"), "needs scopes.\"set\".tools"),
            (&["read"], Call::Tool("other"), "needs scopes.\"write\".tools"),
            (&["read", "write"], Call::Tool("set_a"), "allowed"),
            (&["read", "write"], Call::Tool("get_secret"), "scopes.\"read\".tools.deny[0]=\"get_secret\""),
            (&["write"], Call::Tool("get_secret"), "allowed"),
            (&[], Call::Tool("get_secret"), "needs scopes.\"write\".tools"),
            (&["unknown"], Call::Tool("get_a"), "needs scopes.\"read\".tools"),
            (&[], Call::Prompt("p"), "policy.default"),
            (&["write"], Call::Resource("file:///a"), "policy.default"),
            (&[], Call::Method("initialize"), "allowed"),
            (&[], Call::Method("notifications/anything"), "allowed"),
            (&[], Call::Method("tasks/list"), "policy.default"),
            (&["write"], Call::Method("ping"), "scopes.\"write\".methods.deny[0]=\"ping\""),
            (&["safe"], Call::Tool("get_hinted"), "allowed"),
            (&["safe"], Call::Tool("get_a"), "scopes.\"safe\".read_only"),
            (&["safe", "read"], Call::Tool("get_a"), "allowed"),
        ] {
            assert_eq!(verdict(&strict, held, None, call), expected, "{held:?} {call:?}");
        }
        let lax = policy(true);
        for (held, call, expected) in [
            (&[][..], Call::Prompt("p"), "allowed"),
            (&[], Call::Method("tasks/list"), "allowed"),
            // what some rule grants is not for everybody
            (&[], Call::Tool("other"), "needs scopes.\"write\".tools"),
        ] {
            assert_eq!(verdict(&lax, held, None, call), expected, "{held:?} {call:?}");
        }
        let own = rules(Some(&["get_*"]), &["get_b"]);
        for (tool, expected) in
            [("get_a", "allowed"), ("get_b", "token.tools.deny[0]=\"get_b\""), ("set_a", "token.tools.allow")]
        {
            assert_eq!(verdict(&strict, &["write"], Some(&own), Call::Tool(tool)), expected);
            let trial = Arc::new(CallPolicy { mode: Mode::Report, ..(*strict).clone() });
            assert_eq!(verdict(&trial, &[], Some(&own), Call::Tool(tool)), expected);
        }
    }

    #[test]
    fn what_may_be_of_another_scope_is_not_for_everybody() {
        let scopes = ["docs", "admin"].map(|name| {
            let resources = rules(Some(&[&format!("file:///{name}/*")]), &[]);
            (scope(name), Arc::new(ScopeRules { resources, ..ScopeRules::default() }))
        });
        let lax = CallPolicy { scopes: scopes.into(), allow_unmentioned: true, ..CallPolicy::default() };
        for (uri, expected) in [
            ("file:///docs/a", "allowed"),
            ("file:///docs//a?b", "allowed"),
            ("file:///public/a", "allowed"),
            ("file:///admin/a", "needs scopes.\"admin\".resources"),
            ("FILE:///admin/a", "needs scopes.\"admin\".resources"),
            ("file:///docs/../admin/a", "needs scopes.\"admin\".resources"),
        ] {
            assert_eq!(verdict(&Arc::new(lax.clone()), &["docs"], None, Call::Resource(uri)), expected, "{uri}");
        }
    }

    #[test]
    fn who_sees_all() {
        let all = ScopeRules {
            tools: rules(Some(&["*"]), &[]),
            resources: rules(Some(&["*"]), &[]),
            prompts: rules(Some(&["*"]), &[]),
            ..ScopeRules::default()
        };
        let but_one = ScopeRules { tools: rules(Some(&["*"]), &["x"]), ..all.clone() };
        let scopes = [(scope("all"), Arc::new(all)), (scope("but"), Arc::new(but_one))];
        let policy = Arc::new(CallPolicy { scopes: scopes.into(), ..CallPolicy::default() });
        let own = rules(Some(&["*"]), &[]);
        for (held, own, expected) in [
            (&["all"][..], None, true),
            (&["but"], None, false),
            (&["all", "but"], None, false),
            (&[], None, false),
            (&["all"], Some(&own), false),
        ] {
            let held: Vec<Scope> = held.iter().map(|name| scope(name)).collect();
            let rights = CallRights::new(Some(&policy), &held.iter().collect::<Vec<_>>());
            assert_eq!(Calls { rights: &rights, own, without_scopes: false }.sees_all(), expected, "{held:?}");
        }
        assert!(CallRights::new(None, &[]).sees_all);
    }

    proptest! {
        /// What is shown and what can be called are one decision: nobody sees all who is denied anything.
        #[test]
        fn who_sees_all_is_denied_nothing_that_lists_have(
            held in proptest::sample::subsequence(vec!["read", "write", "set", "safe"], 0..=4),
            lax in any::<bool>(), name in "[a-z_]{0,8}",
        ) {
            let policy = policy(lax);
            let scopes: Vec<Scope> = held.iter().map(|name| scope(name)).collect();
            let rights = CallRights::new(Some(&policy), &scopes.iter().collect::<Vec<_>>());
            let calls = Calls { rights: &rights, own: None, without_scopes: false };
            for call in [Call::Tool(&name), Call::Resource(&name), Call::Prompt(&name)] {
                let denied = calls.decide(call, &Narrowing::default(), |_| false).is_err();
                prop_assert!(!(calls.sees_all() && denied), "{:?} {:?}", held, call);
            }
        }

        /// A right that is added takes nothing away but what its own rules deny.
        #[test]
        fn a_scope_that_denies_nothing_only_adds(
            held in proptest::sample::subsequence(vec!["read", "safe"], 0..=2), name in "[a-z_]{0,8}",
        ) {
            let policy = policy(false);
            let before = verdict(&policy, &held, None, Call::Tool(&name));
            let more: Vec<&str> = held.into_iter().chain(["set"]).collect();
            let after = verdict(&policy, &more, None, Call::Tool(&name));
            prop_assert!(before != "allowed" || after == "allowed");
        }
    }
}
