//! The image: the Dockerfile as a linter sees it, and its last stage, an empty root with the program in it.

use std::fs;

use super::{assert_is_a_variable, content};
use crate::harness::Folder;
use crate::installed::{repository, tool};

fn dockerfile() -> String {
    fs::read_to_string(repository().join("Dockerfile")).unwrap()
}

#[test]
fn the_linter_has_nothing_to_say() {
    content(tool("hadolint").arg("Dockerfile").current_dir(repository()));
    // it would have, if there were something
    let folder = Folder::new();
    folder.write("Dockerfile", "FROM debian\nRUN sudo apt-get install curl\n");
    assert!(!tool("hadolint").arg("Dockerfile").current_dir(folder.path("")).output().unwrap().status.success());
}

#[test]
fn it_builds_what_is_locked_and_runs_as_nobody() {
    let text = dockerfile();
    let last = text.split("\nFROM ").last().unwrap();
    let script = fs::read_to_string(repository().join("config/program")).unwrap();
    assert!(text.contains("config/program /patgate") && script.contains("cargo build --release --locked"));
    assert!(last.starts_with("scratch\n"));
    assert!(last.contains("USER 65532:65532") && last.contains("EXPOSE 8080 9090"));
    let variables = last.lines().find_map(|line| line.strip_prefix("ENV ")).unwrap();
    for variable in variables.split(' ') {
        assert_is_a_variable(variable.split('=').next().unwrap());
    }
    let version = format!("ARG VERSION={}", env!("CARGO_PKG_VERSION"));
    assert!(last.contains(&version), "no {version}");
}
