//! `patgate audit …`: what the audit log tells, and whether it can be believed.

mod filter;
mod input;
mod query;
mod summary;
mod verify;

use clap::Subcommand;

use super::Exit;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Find records by token, user, address, tool, verdict and time, and sum them up
    Query(Box<query::Query>),
    /// Find the first record that was altered, removed, moved or torn
    Verify(verify::Verify),
}

pub(super) fn run(command: Command) -> Result<(), Exit> {
    match command {
        Command::Query(query) => query.run(),
        Command::Verify(verify) => verify.run(),
    }
}
