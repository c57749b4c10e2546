//! `patgate explain`: one decision, as the server would make it now, and the rule behind it.

use clap::{ArgGroup, Args};
use http::{Method, Uri};
use serde::Serialize;

use super::facts::Facts;
use super::store::{Common, Snapshot};
use super::token::explanation;
use super::{Exit, print};
use crate::access::{Calls, Grant, Narrowing, Rule};
use crate::audit::harmless;
use crate::mcp::Call;
use crate::proxy::is_answered_here;
use crate::verdict::{Outcome, Reason};

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("called").multiple(false))]
pub(super) struct Explain {
    /// The token's id, as `patgate token list` shows it
    #[arg(long = "token-id", value_name = "ID")]
    token_id: String,
    /// The method of the message [default: the one that goes with the tool, resource or prompt]
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// A tool that is called
    #[arg(long, value_name = "TOOL", group = "called")]
    tool: Option<String>,
    /// A resource that is read, by its URI
    #[arg(long, value_name = "URI", group = "called")]
    resource: Option<String>,
    /// A prompt that is got
    #[arg(long, value_name = "PROMPT", group = "called")]
    prompt: Option<String>,
    /// Take it that the MCP server marks the tool by readOnlyHint
    #[arg(long, requires = "tool")]
    read_only_hint: bool,
    /// The path of the request
    #[arg(long, value_name = "PATH")]
    path: Option<Uri>,
    #[command(flatten)]
    common: Common,
}

/// The decision. The names of the fields are those of the JSON.
#[derive(Serialize)]
struct Decision<'d> {
    outcome: Outcome,
    /// As the audit record would have it.
    reason: Reason,
    /// The rule that denies it, or would if the policy were enforced.
    rule: Option<String>,
    explanation: String,
    method: Option<&'d str>,
    name: Option<&'d str>,
    token: Facts<'d>,
}

impl Explain {
    pub(super) fn run(self) -> Result<(), Exit> {
        let (method, call) = self.call()?;
        let store = self.common.open_strictly()?;
        let snapshot = store.read()?;
        let token = snapshot.token(&self.token_id)?;
        let (reason, rule, explanation) = self.decide(call, &token, &snapshot);
        let name = [&self.tool, &self.resource, &self.prompt].into_iter().flatten().next();
        let decision = Decision {
            outcome: reason.outcome(),
            reason,
            rule,
            explanation,
            method,
            name: name.map(|name| &**name),
            token,
        };
        if self.common.json {
            print::json(&decision)?;
        } else {
            print::answer(decision.text())?;
        }
        if decision.outcome == Outcome::Allowed { Ok(()) } else { Err(Exit::negative()) }
    }

    /// The method and what it asks for; none if only the door is asked about.
    fn call(&self) -> Result<(Option<&str>, Option<Call<'_>>), Exit> {
        let named = [
            self.tool.as_deref().map(|name| ("tools/call", Call::Tool(name))),
            self.resource.as_deref().map(|uri| ("resources/read", Call::Resource(uri))),
            self.prompt.as_deref().map(|name| ("prompts/get", Call::Prompt(name))),
        ];
        let named = named.into_iter().flatten().next();
        match (self.method.as_deref(), named) {
            (None, None) => Ok((None, None)),
            (None, Some((method, call))) => Ok((Some(method), Some(call))),
            (Some(method), None) => match method {
                "tools/call" => Err(Exit::usage("--method tools/call: name the tool by --tool")),
                "prompts/get" => Err(Exit::usage("--method prompts/get: name the prompt by --prompt")),
                "resources/read" | "resources/subscribe" | "resources/unsubscribe" => {
                    Err(Exit::usage(format!("--method {method}: name the resource by --resource")))
                }
                _ => Ok((Some(method), Some(Call::Method(method)))),
            },
            (Some(method), Some((usual, call))) => {
                let fits = match call {
                    Call::Resource(_) => method.starts_with("resources/") || method == "completion/complete",
                    Call::Prompt(_) => method == usual || method == "completion/complete",
                    Call::Tool(_) | Call::Method(_) => method == usual,
                };
                if fits {
                    Ok((Some(method), Some(call)))
                } else {
                    Err(Exit::usage(format!("--method {method} is about something else")))
                }
            }
        }
    }

    /// The same decision as on a request, in the same order.
    fn decide(
        &self,
        call: Option<Call<'_>>,
        token: &Facts<'_>,
        snapshot: &Snapshot<'_>,
    ) -> (Reason, Option<String>, String) {
        let path = self.path.as_ref();
        if path.is_some_and(|path| is_answered_here(&Method::GET, path) || is_answered_here(&Method::POST, path)) {
            let why = "clients look for OAuth at this path: it is answered here, and no token counts".to_owned();
            return (Reason::Discovery, None, why);
        }
        let found = snapshot.directory.judged(snapshot.now).find(|(grant, _)| grant.token_id().as_str() == token.id);
        let Some((grant, reason)) = found else {
            return (Reason::UnknownToken, None, explanation(Reason::UnknownToken, Some(token), snapshot));
        };
        let door = explanation(reason, Some(token), snapshot);
        match (reason, call) {
            (Reason::Ok, Some(call)) => self.decide_call(call, grant, token),
            (reason, _) => (reason, None, door),
        }
    }

    fn decide_call(&self, call: Call<'_>, grant: &Grant, token: &Facts<'_>) -> (Reason, Option<String>, String) {
        let Some(calls) = grant.calls() else {
            let why = "the configuration has no policy and the token no rules of its own, so it may call everything";
            return (Reason::Ok, None, why.to_owned());
        };
        let decide = |calls: Calls<'_>| {
            let decided = calls.decide(call, &Narrowing::default(), |_| self.read_only_hint);
            decided.map_err(|rule| (rule.to_string(), reason_of(rule, calls, token)))
        };
        match (decide(calls.enforced()), decide(calls)) {
            (Err((rule, why)), _) => (Reason::InsufficientScope, Some(rule), why),
            (Ok(()), Err((rule, why))) => {
                (Reason::Ok, Some(rule), format!("policy.mode is \"report\", else it would be denied: {why}"))
            }
            (Ok(()), Ok(())) => {
                (Reason::Ok, None, format!("a rule or the default grants it to its scopes ({})", scopes(token)))
            }
        }
    }
}

fn scopes(token: &Facts<'_>) -> String {
    if token.effective_scopes.is_empty() { "none".to_owned() } else { token.effective_scopes.join(" ") }
}

fn reason_of(rule: Rule<'_>, calls: Calls<'_>, token: &Facts<'_>) -> String {
    let scopes = scopes(token);
    match rule {
        Rule::Denied { scope, pattern, .. } => format!("the scope {} denies {pattern}", scope.as_str()),
        Rule::Needs { scope, .. } => {
            format!("none of its scopes ({scopes}) grants it; the scope {} would", scope.as_str())
        }
        Rule::ReadOnly(scope) => format!(
            "its scope {} grants only tools that the MCP server marks by readOnlyHint, and nothing is known of that here: \
             --read-only-hint asks as if it were so",
            scope.as_str()
        ),
        Rule::TokenDenies(_, pattern) => format!("the token's own rules deny {pattern}"),
        Rule::TokenAllowsOthers => "the token's own rules allow other tools only".to_owned(),
        Rule::Header(name) => format!("the client asks to leave it out by {name}"),
        Rule::Default => {
            let default = if calls.policy().allow_unmentioned { "allow" } else { "deny" };
            format!("no rule mentions it, and policy.default is \"{default}\"")
        }
    }
}

impl Decision<'_> {
    fn text(&self) -> String {
        let word = if self.outcome == Outcome::Allowed { "allowed" } else { "denied" };
        let Facts { id, name, user, .. } = &self.token;
        let name = name.as_deref().map_or_else(String::new, |name| format!(" ({name})"));
        let called = [self.method, self.name].into_iter().flatten().collect::<Vec<_>>().join(" ");
        let called = if called.is_empty() { called } else { format!("{called}: ") };
        let said = format!("{word}: token {id}{name} of {user}: {called}{}", self.explanation);
        let rule = self.rule.as_ref().map_or_else(String::new, |rule| format!("rule: {}\n", harmless(rule)));
        format!("{}\n{rule}", harmless(&said))
    }
}
