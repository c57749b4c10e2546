//! The program: parse the command line, run the command, report its exit code.

use std::process::ExitCode;

use mimalloc::MiMalloc;
use patgate::cli::Cli;

/// Each request allocates some thirty times, and each reload of a long list leaves much to be given back: the
/// system's allocator takes longer for both, that of musl much longer.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    match Cli::read() {
        Ok(cli) => cli.run(),
        Err(code) => code,
    }
}
