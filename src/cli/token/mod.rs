//! `patgate token …`: the life of a token, in the token file.

mod create;
mod record;

use clap::Subcommand;

use super::Exit;

/// What can be done with tokens.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a token and print it, once; only its hash is kept
    Create(create::Create),
}

pub(super) fn run(command: Command) -> Result<(), Exit> {
    match command {
        Command::Create(create) => create.run(),
    }
}
