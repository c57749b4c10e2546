//! Who may come in: the credential that was sent, the directory that knows it, the permit or the denial.
//!
//! Nothing here waits, reads or asks for the time: a decision is a function of its arguments.

mod build;
mod calls;
mod credential;
mod denial;
mod deny_list;
mod directory;
mod grant;
mod identity;
mod narrowing;
mod permit;
mod scope_rules;

pub use build::fetched;
pub use calls::{Calls, Rule};
pub use credential::Credential;
pub use denial::Denial;
pub use deny_list::DenyList;
pub use directory::{Directory, Finding, Generation, Policy, Question};
pub use grant::Grant;
pub use identity::IdentityHeaders;
pub use narrowing::{Narrowing, X_MCP_EXCLUDE_TOOLS, X_MCP_READONLY, X_MCP_TOOLS};
pub use permit::Permit;
pub use scope_rules::{CallPolicy, DeniedAs, Mode, ScopeRules};
