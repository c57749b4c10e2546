//! The example configuration: it can be run, it names every key, and the defaults in it are the real ones.

use std::collections::BTreeSet;
use std::process::Command;

use patgate::config::{Config, Overrides};

use crate::harness::Folder;

const EXAMPLE: &str = include_str!("../../config/patgate.toml");
const SOURCES: [&str; 6] = [
    include_str!("../../src/config/file.rs"),
    include_str!("../../src/config/audit.rs"),
    include_str!("../../src/config/bounds.rs"),
    include_str!("../../src/config/otlp.rs"),
    include_str!("../../src/config/policy.rs"),
    include_str!("../../src/config/tls.rs"),
];
const ORIGIN: &str = include_str!("../../src/config/origin.rs");

/// A folder with everything that the example refers to.
fn folder() -> Folder {
    let folder = Folder::new();
    folder.token("alice", &[]);
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    folder.write("cert.pem", &certified.cert.pem());
    folder.write("key.pem", &certified.signing_key.serialize_pem());
    folder.write("ca.pem", &certified.cert.pem());
    folder.write("revoked.txt", "");
    folder.write("source.token", "");
    folder
}

/// The example with the keys set in those of its paragraphs that `choose` takes.
fn uncommented(choose: impl Fn(&str) -> bool) -> String {
    let paragraphs = EXAMPLE.split("\n\n").map(|paragraph| {
        let set = choose(paragraph);
        let lines = paragraph.lines().map(|line| line.strip_prefix("# ").filter(|_| set).unwrap_or(line));
        lines.collect::<Vec<_>>().join("\n")
    });
    paragraphs.collect::<Vec<_>>().join("\n\n")
}

/// Whether the keys of a paragraph can be set in this program.
fn is_built(paragraph: &str) -> bool {
    cfg!(feature = "otlp") || !paragraph.contains("`otlp`")
}

/// Whether the values of a paragraph are examples, and not the defaults.
fn is_example(paragraph: &str) -> bool {
    paragraph.contains("Default:")
}

#[test]
fn the_example_is_valid_as_it_stands() {
    let folder = folder();
    folder.write("patgate.toml", EXAMPLE);
    let check = folder.run(&["check", "--config", "patgate.toml"]);
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    assert!(String::from_utf8_lossy(&check.stdout).contains("1 tokens in"));
}

#[test]
fn the_example_is_valid_with_every_key_set() {
    let folder = folder();
    folder.write("patgate.toml", &uncommented(is_built));
    // the certificate authorities are read only where they are needed
    let check = folder.run(&["check", "--config", "patgate.toml", "--upstream", "https://localhost:3000"]);
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
}

#[cfg(not(feature = "otlp"))]
#[test]
fn spans_are_refused_where_the_program_cannot_send_them() {
    let folder = folder();
    folder.configure("http://127.0.0.1:3000", "[otlp]\nendpoint = \"http://127.0.0.1:4318/v1/traces\"\n");
    let check = folder.run(&["check", "--config", "patgate.toml"]);
    assert_eq!(check.status.code(), Some(2));
    let error = String::from_utf8_lossy(&check.stderr);
    assert!(error.contains("otlp: this program was built without it: build it with `--features otlp`"), "{error}");
}

#[test]
fn the_defaults_in_the_example_are_the_real_ones() {
    let folder = folder();
    let load = |name, text: &str| {
        let overrides = Overrides { config: Some(folder.write(name, text)), ..Overrides::default() };
        format!("{:#?}", Config::load(&overrides).unwrap())
    };
    let defaults = uncommented(|paragraph| !is_example(paragraph) && is_built(paragraph));
    let set = defaults.lines().filter(|line| line.contains('=') && !line.starts_with('#')).count();
    assert!(set > 25, "only {set} keys are set");
    assert_eq!(load("bare.toml", EXAMPLE), load("defaults.toml", &defaults));
    // so that nothing is proved by a comparison that sees no difference
    assert_ne!(load("bare.toml", EXAMPLE), load("other.toml", &defaults.replace("\"64MiB\"", "\"63MiB\"")));
}

#[test]
fn the_example_names_every_key_that_is_read() {
    let read = keys_of_the_source();
    assert!(read.len() > 25, "only {} keys were found in the source: {read:?}", read.len());
    let example: toml::Table = uncommented(|_| true).parse().unwrap();
    let mut named = BTreeSet::new();
    collect(&example, "", &mut named);
    let unnamed: Vec<_> = read.difference(&named).collect();
    let unread: Vec<_> = named.difference(&read).collect();
    assert!(unnamed.is_empty() && unread.is_empty(), "not in the example: {unnamed:?}; read by nobody: {unread:?}");
}

/// The keys of a table and of those below it, each with the name of its own table.
fn collect(table: &toml::Table, name: &str, keys: &mut BTreeSet<String>) {
    for (key, value) in table {
        match value.as_table() {
            // a scope is a name that the operator gives
            Some(inner) => collect(inner, &if key.contains(':') { name.to_owned() } else { format!("{key}.") }, keys),
            None => {
                keys.insert(format!("{name}{key}"));
            }
        }
    }
}

#[test]
fn every_key_of_the_example_is_explained() {
    for paragraph in EXAMPLE.split("\n\n").filter(|paragraph| paragraph.contains(" = ")) {
        assert!(paragraph.starts_with("## "), "a key without a text:\n{paragraph}");
        let keys = paragraph.lines().filter(|line| !line.starts_with("##")).count();
        assert_eq!(keys, 1, "each key needs its own text:\n{paragraph}");
    }
}

/// The sources that the example names besides the file: each would have to stand in its place.
fn other_sources() -> Vec<&'static str> {
    let lines = EXAMPLE.lines().filter_map(|line| line.strip_prefix('#'));
    let sources: Vec<_> = lines.filter(|line| line.starts_with(['h', 'l']) && line.contains(" = {")).collect();
    assert_eq!(sources.len(), 2, "{sources:?}");
    sources
}

#[test]
fn the_other_sources_in_the_example_are_valid_and_name_every_key() {
    let folder = folder();
    let mut named = BTreeSet::new();
    for source in other_sources() {
        folder.write("patgate.toml", &EXAMPLE.replace("\nfile = \"tokens.toml\"", &format!("\n{source}")));
        let check = folder.run(&["check", "--config", "patgate.toml"]);
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
        for (name, value) in source.parse::<toml::Table>().unwrap() {
            named.extend(value.as_table().unwrap().keys().cloned());
            named.insert(name);
        }
    }
    let code = ORIGIN.split("#[cfg(test)]").next().unwrap();
    let literals = code.match_indices("(\"").map(|(at, _)| code[at + 2..].split('"').next().unwrap());
    let is_key = |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let read: BTreeSet<_> = literals.filter(is_key).map(str::to_owned).collect();
    assert_eq!(read, named);
}

#[test]
fn the_defaults_of_the_other_sources_in_the_example_are_the_real_ones() {
    let folder = folder();
    let load = |source: &str| {
        // without TLS, nothing of this system is in it
        let source = source.replace("https:", "http:");
        let text = format!("upstream = \"http://127.0.0.1:3000\"\n[tokens]\n{source}\n");
        let overrides = Overrides { config: Some(folder.write("patgate.toml", &text)), ..Overrides::default() };
        format!("{:#?}", Config::load(&overrides).unwrap())
    };
    for source in other_sources() {
        let (url, rest) = source.split_once(", ").unwrap();
        let (defaults, _) = rest.split_once(", ca = ").unwrap();
        let set = format!("{url}, {defaults} }}");
        assert_eq!(load(&format!("{url} }}")), load(&set));
        assert_ne!(load(&set), load(&set.replace("timeout = \"2s\"", "timeout = \"3s\"")));
    }
}

/// The full names of the keys that these sources ask for. Each of its functions reads the
/// table that it names, or else the top of the file; a key is a literal that opens a pair of parentheses,
/// but for those of messages and of values.
fn keys_of_the_source() -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    let mut table = String::new();
    for line in SOURCES.iter().flat_map(|source| source.lines()) {
        if line.trim_start().starts_with("fn ") {
            table.clear();
        }
        for (before, after) in line.match_indices("(\"").map(|(at, _)| line.split_at(at)) {
            let literal = after[2..].split('"').next().unwrap_or_default();
            let is_key = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
            if !literal.starts_with(|first: char| first.is_ascii_lowercase()) || !literal.bytes().all(is_key) {
                continue;
            }
            if before.ends_with("table") {
                table = format!("{literal}.");
            } else if !["problem", "Some"].iter().any(|other| before.ends_with(other)) {
                keys.insert(format!("{table}{literal}"));
            }
        }
    }
    keys
}

#[test]
fn an_answer_that_cannot_be_printed_is_a_failure_of_its_own() {
    let folder = folder();
    folder.configure("http://127.0.0.1:3000", "");
    for streams in [">/dev/full", ">/dev/full 2>&1"] {
        let script = format!("exec '{}' check --config patgate.toml {streams}", env!("CARGO_BIN_EXE_patgate"));
        let output = Command::new("sh").args(["-c", &script]).current_dir(folder.path("")).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(streams.contains("2>") || said.starts_with("error: cannot print"), "{said}");
    }
    folder.write("patgate.toml", "nonsense = 1\n");
    let script = format!("exec '{}' check --config patgate.toml 2>/dev/full", env!("CARGO_BIN_EXE_patgate"));
    let output = Command::new("sh").args(["-c", &script]).current_dir(folder.path("")).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
