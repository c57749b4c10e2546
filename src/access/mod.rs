//! Who may come in: the credential that was sent, the directory that knows it, the permit or the denial.
//!
//! Nothing here waits, reads or asks for the time: a decision is a function of its arguments.

mod build;
mod credential;
mod denial;
mod deny_list;
mod directory;
mod grant;
mod identity;
mod permit;

pub use build::fetched;
pub use credential::Credential;
pub use denial::Denial;
pub use deny_list::DenyList;
pub use directory::{Directory, Finding, Generation, Policy, Question};
pub use grant::Grant;
pub use identity::IdentityHeaders;
pub use permit::Permit;
