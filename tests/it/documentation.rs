//! The documentation, held to what the program does.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::{Folder, patgate};

/// The code blocks of a page in this language.
fn blocks<'p>(page: &'p str, language: &str) -> Vec<&'p str> {
    let opening = format!("```{language}\n");
    page.split(&opening).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

fn page(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)).unwrap()
}

#[test]
fn every_example_of_a_command_works() {
    let page = page("commands.md");
    let [tokens] = blocks(&page, "toml")[..] else { panic!("one token file") };
    let examples = blocks(&page, "sh");
    assert!(examples.len() >= 12, "{examples:?}");
    for example in &examples {
        // each example begins from the same file
        let folder = Folder::new();
        folder.write("tokens.toml", tokens);
        folder.write("legacy-token.txt", "jam_pat_0123456789abcdef\n");
        folder.write("token.txt", "another-token\n");
        let program = env!("CARGO_BIN_EXE_patgate");
        let script = format!("set -eu\npatgate() {{ '{program}' \"$@\"; }}\n{example}");
        let mut shell = Command::new("sh");
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PATGATE_")) {
            shell.env_remove(name);
        }
        let output = shell.arg("-c").arg(script).current_dir(folder.path("")).output().unwrap();
        assert!(output.status.success(), "{example}\n{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn every_command_about_tokens_and_users_has_an_example() {
    let examples = blocks(&page("commands.md"), "sh").join("\n");
    let mut found = 0;
    for group in ["token", "user"] {
        let help = String::from_utf8(patgate().args([group, "--help"]).output().unwrap().stdout).unwrap();
        let commands = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
        for command in commands.lines().filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help")
        {
            assert!(examples.contains(&format!("patgate {group} {command}")), "no example of {group} {command}");
            found += 1;
        }
    }
    assert!(found >= 14, "{found}");
}
