//! `patgate completions` and `patgate man`: what a package of this program has beside it.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{Cli, Exit, print};

/// What can be said about completions.
#[derive(Args, Debug)]
pub(super) struct Completions {
    /// The shell they are for
    shell: Shell,
}

/// What can be said about manual pages.
#[derive(Args, Debug)]
pub(super) struct Pages {
    /// A folder to write the page of every command to, instead of printing the first one
    folder: Option<PathBuf>,
}

impl Completions {
    pub(super) fn run(&self) -> Result<(), Exit> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "patgate", &mut script);
        print::answer(String::from_utf8_lossy(&script))
    }
}

impl Pages {
    pub(super) fn run(&self) -> Result<(), Exit> {
        let Some(folder) = &self.folder else {
            let mut page = Vec::new();
            Man::new(Cli::command().disable_help_subcommand(true)).render(&mut page).map_err(Exit::failure)?;
            return print::answer(String::from_utf8_lossy(&page));
        };
        let written = std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(Cli::command(), folder));
        written.map_err(|error| Exit::failure(format!("{}: {error}", folder.display())))
    }
}
