//! The rules of scopes, as the configuration has them, and what one scope says of a name.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::token::{Name, NameRules, Pattern, Scope};

/// The rules of one scope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScopeRules {
    /// Tools by name.
    pub tools: NameRules,
    /// Resources by URI.
    pub resources: NameRules,
    /// Prompts by name.
    pub prompts: NameRules,
    /// Everything else by method.
    pub methods: NameRules,
    /// Whether the scope grants only those tools that the upstream says change nothing.
    pub read_only: bool,
}

/// What the rules are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Tools,
    Resources,
    Prompts,
    Methods,
}

impl Kind {
    /// As the configuration calls it.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Resources => "resources",
            Self::Prompts => "prompts",
            Self::Methods => "methods",
        }
    }
}

impl ScopeRules {
    pub(super) fn of(&self, kind: Kind) -> &NameRules {
        match kind {
            Kind::Tools => &self.tools,
            Kind::Resources => &self.resources,
            Kind::Prompts => &self.prompts,
            Kind::Methods => &self.methods,
        }
    }

    /// The rule by which the scope grants a name, whether or not a hint is needed as well.
    pub(super) fn granting(&self, kind: Kind, name: &Name<'_>) -> Option<Granting<'_>> {
        let rules = self.of(kind);
        let all = self.read_only && kind == Kind::Tools && rules.allow.is_none();
        if all { Some(None) } else { rules.allowing(name).map(Some) }
    }

    /// Whether it grants everything of a kind and denies nothing of it.
    pub(super) fn grants_all(&self, kind: Kind) -> bool {
        let rules = self.of(kind);
        let all = rules.allow.iter().flatten().any(|pattern| pattern.as_str() == "*");
        all && rules.deny.is_empty() && !(self.read_only && kind == Kind::Tools)
    }

    pub(super) fn mentions_any(&self, kind: Kind) -> bool {
        self.of(kind).allow.is_some() || (self.read_only && kind == Kind::Tools)
    }
}

/// The pattern that grants, with its place; none where `read_only` stands for all tools.
pub(super) type Granting<'p> = Option<(usize, &'p Pattern)>;

/// What happens to a call that is denied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// It is refused.
    #[default]
    Enforce,
    /// It passes as far as the rules of scopes go, and the record says that it would have been refused.
    Report,
}

/// How a denied call is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeniedAs {
    /// As a server answers a tool that it does not have.
    #[default]
    UnknownTool,
    /// 403, naming the scope that is needed.
    InsufficientScope,
}

/// The rules of all scopes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallPolicy {
    /// The rules by scope.
    pub scopes: BTreeMap<Scope, Arc<ScopeRules>>,
    /// Whether what no rule mentions is allowed.
    pub allow_unmentioned: bool,
    /// What happens to a denied call.
    pub mode: Mode,
    /// How it is answered.
    pub denied_as: DeniedAs,
    /// Whether batches are refused whatever is in them.
    pub refuse_batches: bool,
}
