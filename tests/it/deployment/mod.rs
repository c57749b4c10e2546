//! The files that an operator copies: each is held to the schema or the checker of what reads it, and its values
//! to the program.

mod image;
mod kubernetes;
mod services;
mod watch;

use patgate::cli::AFTER_DRAIN;

use crate::harness::{Folder, patgate};
use crate::installed::{content, content_with, repository};

/// A file below `config/`.
fn config(name: &str) -> String {
    std::fs::read_to_string(repository().join("config").join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Checks a configuration of a deployment, with the files that it finds there under `/etc/patgate`.
fn check_configuration(text: &str) {
    let folder = Folder::new();
    for name in ["tokens", "source"] {
        std::fs::create_dir(folder.path(name)).unwrap();
    }
    folder.token("alice", &[]);
    std::fs::rename(folder.path("tokens.toml"), folder.path("tokens/tokens.toml")).unwrap();
    folder.write("source/bearer", "a-bearer-token\n");
    let here = folder.path("").display().to_string();
    folder.write("patgate.toml", &text.replace("/etc/patgate/", &here));
    let check = folder.run(&["check", "--config", "patgate.toml"]);
    assert!(check.status.success(), "{text}\n{}", String::from_utf8_lossy(&check.stderr));
}

/// How long the program may take to end with this configuration, in seconds. Whoever kills it sooner takes the last
/// audit records with it.
fn end(text: &str) -> u64 {
    let table: toml::Table = text.parse().unwrap();
    let drain = table["timeouts"]["drain"].as_str().unwrap();
    drain.strip_suffix('s').unwrap().parse::<u64>().unwrap() + AFTER_DRAIN.as_secs()
}

/// Every variable that `patgate serve` knows.
fn assert_is_a_variable(name: &str) {
    let help = String::from_utf8(patgate().args(["serve", "--help"]).output().unwrap().stdout).unwrap();
    assert!(help.contains(&format!("{name}=]")), "no variable {name}: {help}");
}
