//! The program: parse the command line, run the command, report its exit code.

use std::process::ExitCode;

use clap::Parser;
use patgate::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
