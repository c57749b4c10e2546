//! The commands. Exit codes: 0 done, 1 a negative answer or a failure, 2 wrong usage or configuration.

mod audit;
mod check;
mod demo;
mod diagnostics;
mod explain;
mod facts;
mod manual;
mod notify;
mod print;
mod scan_rules;
mod serve;
mod snippet;
mod store;
mod token;
mod user;
mod words;

use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

pub use self::serve::AFTER_DRAIN;
use crate::config::Overrides;
use crate::document::Problems;
use crate::token::Prefix;

/// An authentication sidecar that puts a lock on any MCP server.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Try it: a small MCP server, a fresh token and the proxy in front, in one process
    Demo(demo::Arguments),
    /// Stand in front of an MCP server and let in only callers with a valid token
    Serve(Settings),
    /// Report every mistake in the configuration and the token file; start nothing
    Check(Settings),
    /// Tell what the server would decide about a token and a call, and by which rule
    ///
    /// Exit code 0: it would be allowed; 1: it would be denied.
    Explain(explain::Explain),
    /// Make, list, rotate and revoke tokens
    #[command(subcommand)]
    Token(token::Command),
    /// Say who may hold tokens, and suspend or remove them
    #[command(subcommand)]
    User(user::Command),
    /// Ask the audit log what was done, and check that it was not tampered with
    #[command(subcommand)]
    Audit(audit::Command),
    /// Print what a client needs in order to connect
    Snippet(snippet::Arguments),
    /// Print rules that let a secret scanner find leaked tokens
    ScanRules(scan_rules::Arguments),
    /// Print completions for a shell
    Completions(manual::Completions),
    /// Print the manual page, or write those of all commands
    Man(manual::Pages),
}

/// The settings that stand above the configuration file.
#[derive(Args, Debug)]
struct Settings {
    /// The configuration file (TOML)
    #[arg(long, value_name = "FILE", env = "PATGATE_CONFIG")]
    config: Option<PathBuf>,
    /// Where to listen: host:port or unix:/path [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS", env = "PATGATE_LISTEN")]
    listen: Option<String>,
    /// The MCP server: http://host:port, https://host or unix:/path, with a path prefix at most
    #[arg(long, value_name = "URL", env = "PATGATE_UPSTREAM")]
    upstream: Option<String>,
    /// The token file, or the URL of a token list
    #[arg(long, value_name = "FILE|URL", env = "PATGATE_TOKENS")]
    tokens: Option<String>,
    /// Where to tell of health: host:port or unix:/path, or `off` [default: 127.0.0.1:9090]
    #[arg(long, value_name = "ADDRESS", env = "PATGATE_ADMIN")]
    admin: Option<String>,
    /// What to say on standard error: a level, or levels by part [default: info]
    #[arg(long, value_name = "FILTER", env = "PATGATE_LOG_LEVEL")]
    log_level: Option<String>,
    /// In which form to say it: auto, text or json [default: auto]
    #[arg(long, value_name = "FORMAT", env = "PATGATE_LOG_FORMAT")]
    log_format: Option<String>,
}

impl From<Settings> for Overrides {
    fn from(settings: Settings) -> Self {
        let Settings { config, listen, upstream, tokens, admin, log_level, log_format } = settings;
        Self { config, listen, upstream, tokens, admin, log_level, log_format }
    }
}

impl Cli {
    /// Reads the command line, or tells what is wrong with it: not the secret of a token that stands there.
    ///
    /// # Errors
    /// The exit code; 0 if help was asked for.
    pub fn read() -> Result<Self, ExitCode> {
        Self::try_parse().map_err(|error| {
            let said = error.render().to_string();
            match Prefix::default().mask_whole(&said) {
                masked if masked != said => {
                    print::remark(masked);
                    print::error(
                        "a token on a command line is seen by everybody on the machine and may now be in the history \
                         of your shell, so revoke it; commands read tokens from standard input",
                    );
                }
                // nobody has to be there to read it
                _ => drop(error.print()),
            }
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
        })
    }

    /// Runs the command.
    pub fn run(self) -> ExitCode {
        let done = match self.command {
            Command::Demo(arguments) => demo::run(&arguments),
            Command::Serve(settings) => serve::run(&settings.into()),
            Command::Check(settings) => check::run(&settings.into()),
            Command::Explain(explain) => explain.run(),
            Command::Token(command) => token::run(command),
            Command::User(command) => user::run(command),
            Command::Audit(command) => audit::run(command),
            Command::Snippet(arguments) => snippet::run(&arguments),
            Command::ScanRules(arguments) => scan_rules::run(&arguments),
            Command::Completions(completions) => completions.run(),
            Command::Man(pages) => pages.run(),
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(exit) => {
                // whatever stood where it does not belong
                print::error(&Prefix::default().mask_whole(&exit.message));
                ExitCode::from(exit.code)
            }
        }
    }
}

/// An end that is no success: what to tell the person, and the exit code.
#[derive(Debug)]
struct Exit {
    code: u8,
    message: String,
}

impl Exit {
    /// Something failed or was answered with no.
    fn failure(message: impl Display) -> Self {
        Self { code: 1, message: format!("{message}") }
    }

    /// The answer was given, and it is no.
    fn negative() -> Self {
        Self::failure("")
    }

    /// A token cannot be made.
    fn no_random_numbers(error: impl Display) -> Self {
        Self::failure(format!("the system has no random numbers: {error}"))
    }

    /// The command or the configuration is wrong.
    fn usage(message: impl Display) -> Self {
        Self { code: 2, message: format!("{message}") }
    }
}

impl From<Problems> for Exit {
    fn from(problems: Problems) -> Self {
        Self::usage(problems)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn walk(command: &clap::Command, look: &mut impl FnMut(&str, &clap::Arg)) {
        for argument in command.get_arguments() {
            look(command.get_name(), argument);
        }
        command.get_subcommands().for_each(|below| walk(below, look));
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    /// Arguments are seen by everybody on the machine, and variables by every child.
    #[test]
    fn no_argument_and_no_variable_holds_a_secret() {
        let mut seen = 0;
        walk(&Cli::command(), &mut |command, argument| {
            seen += 1;
            let name = argument.get_id().as_str();
            let suspect = ["token", "secret", "password", "bearer", "key"].contains(&name);
            assert!(!suspect, "{command} takes `{name}`");
        });
        assert!(seen > 30, "{seen}");
    }
}
