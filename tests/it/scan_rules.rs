//! `patgate scan-rules`: scanners find what was minted, and leave alone what only looks like it.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::harness::Folder;
use crate::installed::{repository, tool};

/// A folder with planted tokens of two prefixes and what only looks like one; the tokens of `acme_`.
fn planted(folder: &Folder) -> BTreeSet<String> {
    folder.write(
        "patgate.toml",
        "upstream = \"http://127.0.0.1:3000\"\n[tokens]\nfile = \"tokens.toml\"\nprefix = \"acme_\"\n",
    );
    let mint = |more: &[&str]| folder.token("alice", more);
    let ours: Vec<String> = (0..4).map(|_| mint(&["--config", "patgate.toml"])).collect();
    let (cut, other) = (&ours[0][..ours[0].len() - 1], mint(&[]));
    let look_alikes = [
        cut.to_owned(),
        format!("{}x", ours[1]),
        format!("x{}", ours[2]),
        ours[3].replacen("acme_", "acmf_", 1),
        ours[3].replacen("acme_", "acme-", 1),
        "acme_0000000000_00000000000000000000000000000000000000".to_owned(),
        "acme_xxxxxxxxxx_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx".to_owned(),
    ];
    fs::create_dir(folder.path("planted")).unwrap();
    folder.write(
        "planted/leaks.txt",
        &format!(
            "export TOKEN={}\n{{\"Authorization\": \"Bearer {}\"}}\nhttps://example.com/?t={}&x=1\n{}\n{other}\n",
            ours[0], ours[1], ours[2], ours[3]
        ),
    );
    folder.write("planted/look-alikes.txt", &look_alikes.join("\n"));
    ours.into_iter().collect()
}

fn rules(folder: &Folder, format: &str) -> String {
    let output = folder.run(&["scan-rules", "--format", format, "--config", "patgate.toml"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn gitleaks_finds_minted_tokens_and_no_look_alike() {
    let folder = Folder::new();
    let planted = planted(&folder);
    folder.write("gitleaks.toml", &rules(&folder, "gitleaks"));
    let mut scan = tool("gitleaks");
    scan.args([
        "dir",
        "planted",
        "--config",
        "gitleaks.toml",
        "--report-format",
        "json",
        "--report-path",
        "report.json",
    ]);
    let output = scan.args(["--no-banner", "--exit-code", "3"]).current_dir(folder.path("")).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Vec<Value> = serde_json::from_str(&folder.read("report.json")).unwrap();
    let ours = report.iter().filter(|leak| leak["RuleID"] == "patgate-token");
    let found: BTreeSet<String> = ours.map(|leak| leak["Secret"].as_str().unwrap().to_owned()).collect();
    assert_eq!(found, planted);
}

/// TruffleHog 3 and GitHub's scanner cannot be installed here: a script reads their rules as their manuals say.
#[test]
fn the_rules_for_trufflehog_and_github_match_the_same_tokens() {
    let folder = Folder::new();
    let planted = planted(&folder);
    folder.write("trufflehog.yaml", &rules(&folder, "trufflehog"));
    folder.write("github.txt", &rules(&folder, "github"));
    let output = tool("python")
        .arg(repository().join("tests/tools/find_by_rules.py"))
        .current_dir(folder.path(""))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let set = |of: &str| -> BTreeSet<String> { serde_json::from_value(found[of].clone()).unwrap() };
    assert_eq!(set("trufflehog"), planted);
    // it knows no entropy, so examples that have the form are found as well
    let beyond: Vec<String> = set("github").difference(&planted).cloned().collect();
    assert!(
        planted.is_subset(&set("github"))
            && beyond.iter().all(|token| token.contains("0000") || token.contains("xxxx")),
        "{beyond:?}"
    );
}

#[test]
fn a_wrong_prefix_makes_no_rules() {
    let folder = Folder::new();
    folder.write("patgate.toml", "[tokens]\nprefix = \"no prefix\"\n");
    assert_eq!(folder.run(&["scan-rules", "--format", "gitleaks", "--config", "patgate.toml"]).status.code(), Some(2));
    folder.write("patgate.toml", "[tokens]\nprefx = \"acme_\"\n");
    assert_eq!(folder.run(&["scan-rules", "--format", "gitleaks", "--config", "patgate.toml"]).status.code(), Some(2));
}
