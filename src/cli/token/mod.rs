//! `patgate token …`: the life of a token, in the token file.

mod create;
mod import;
mod list;
mod record;
mod rename;
mod revoke;
mod rotate;
mod secret;
mod show;
mod stats;
mod verify;

use clap::Subcommand;

pub(super) use verify::explanation;

use super::Exit;

/// What can be done with tokens.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a token and print it, once; only its hash is kept
    Create(create::Create),
    /// List all tokens and how they stand
    List(list::List),
    /// Tell all that is known of one token and of its user
    Show(show::Show),
    /// Revoke a token: it is refused from the next request on, and its open streams end
    Revoke(revoke::Revoke),
    /// Make a successor and print it, once; the old token lives on for the grace
    ///
    /// The successor has the same user, name and scopes. The old record names it as `replaced_by`, so an
    /// audit record of the old one tells that somebody still uses it.
    Rotate(rotate::Rotate),
    /// Give a token another name
    Rename(rename::Rename),
    /// Take in a token of another system, by its hash or from standard input
    Import(import::Import),
    /// Read a token from standard input and tell what the server would say to it, and why
    ///
    /// Exit code 0: it would be allowed; 1: it would be denied.
    Verify(verify::Verify),
    /// Count tokens by how they stand
    Stats(stats::Stats),
}

pub(super) fn run(command: Command) -> Result<(), Exit> {
    match command {
        Command::Create(create) => create.run(),
        Command::List(list) => list.run(),
        Command::Show(show) => show.run(),
        Command::Revoke(revoke) => revoke.run(),
        Command::Rotate(rotate) => rotate.run(),
        Command::Rename(rename) => rename.run(),
        Command::Import(import) => import.run(),
        Command::Verify(verify) => verify.run(),
        Command::Stats(stats) => stats.run(),
    }
}
