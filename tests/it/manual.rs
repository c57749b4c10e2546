//! `patgate completions` and `patgate man`.

use std::fs;
use std::process::Command;

use crate::harness::Folder;

#[test]
fn bash_completes_commands_and_flags() {
    let folder = Folder::new();
    let script = folder.run(&["completions", "bash"]);
    folder.write("patgate.bash", &String::from_utf8(script.stdout).unwrap());
    let complete = r#"
        source patgate.bash
        ask() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _patgate patgate "${@: -1}" "${@: -2:1}"; echo "${COMPREPLY[@]}"; }
        ask patgate to
        ask patgate token ro
        ask patgate token create --us
        ask patgate snippet --client wind
    "#;
    let output = Command::new("bash").args(["-euc", complete]).current_dir(folder.path("")).output().unwrap();
    let answers = String::from_utf8(output.stdout).unwrap();
    assert_eq!(answers, "token\nrotate\n--user\nwindsurf\n", "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn other_shells_get_theirs() {
    let folder = Folder::new();
    for (shell, beginning) in [
        ("zsh", "#compdef patgate"),
        ("fish", "# Print an optspec"),
        ("elvish", "\nuse builtin"),
        ("powershell", "\nusing namespace"),
    ] {
        let script = String::from_utf8(folder.run(&["completions", shell]).stdout).unwrap();
        assert!(script.starts_with(beginning), "{shell}: {}", script.lines().next().unwrap_or_default());
        assert!(script.contains("scan-rules") && script.contains("revoke"), "{shell}");
    }
}

#[test]
fn every_command_has_a_page() {
    let folder = Folder::new();
    assert!(folder.run(&["man", "pages"]).status.success());
    let names: Vec<String> = fs::read_dir(folder.path("pages"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for name in
        ["patgate.1", "patgate-serve.1", "patgate-token-create.1", "patgate-user-suspend.1", "patgate-snippet.1"]
    {
        assert!(names.iter().any(|found| found == name), "no {name} in {names:?}");
    }
    for name in &names {
        let page = folder.read(&format!("pages/{name}"));
        assert!(page.contains(".TH ") && page.contains(".SH SYNOPSIS"), "{name}");
    }
    let first = folder.run(&["man"]).stdout;
    assert_eq!(String::from_utf8(first).unwrap(), folder.read("pages/patgate.1"));
}
