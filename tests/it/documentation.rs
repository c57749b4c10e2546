//! The documentation, held to what the program does: every example in it is run, or checked by what reads it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use patgate::cli::AFTER_DRAIN;

use crate::harness::{Folder, patgate};

/// Examples that are run as what they are, by something else than a shell here.
const ELSEWHERE: [&str; 5] = [
    // tests/it/demo.rs
    "cargo run --release --locked -- demo\n",
    // it runs this very test
    "./tests/run\n",
    // what cargo would install is what the other examples call
    "cargo install --locked --path .\n",
    // tests/run does, for it takes minutes
    "config/release target/release-files\n",
    // tests/run does, for its tests and without optimisation
    "cargo install --locked --path . --features otlp\n",
];

/// What an example finds: `patgate`, which checks where it would serve, and stand-ins for programs that would
/// change a machine or a cluster: they see whether the files that they are told of are there.
const PRELUDE: &str = r#"set -eu
patgate() {
  case $1 in
    serve) shift; "$PROGRAM" check "$@" ;;
    *) "$PROGRAM" "$@" ;;
  esac
}
see() {
  for word in "$@"; do
    case ${word##*=} in
      config/*) test -e "$REPOSITORY/$word" || { echo "no $word" >&2; exit 1; } ;;
      /*) ;;
      *.toml | *.yaml) test -e "${word##*=}" || { echo "no $word" >&2; exit 1; } ;;
    esac
  done
}
kubectl() { see "$@"; }
docker() { see "$@"; }
sudo() { see "$@"; }
git() { echo 0123456789abcdef; }
"#;

/// A block of code on a page.
struct Block<'p> {
    language: &'p str,
    text: String,
    /// The file that it is, where the page says so: `<!-- file: NAME -->` in the line before.
    file: Option<&'p str>,
}

/// The blocks of a page, in their order.
fn blocks(page: &str) -> Vec<Block<'_>> {
    let (mut blocks, mut before) = (Vec::new(), "");
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let text = lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect();
            let file = before.strip_prefix("<!-- file: ").and_then(|rest| rest.strip_suffix(" -->"));
            blocks.push(Block { language, text, file });
        }
        before = line;
    }
    blocks
}

/// The texts of the blocks in one language.
pub fn in_language(page: &str, language: &str) -> Vec<String> {
    blocks(page).into_iter().filter(|block| block.language == language).map(|block| block.text).collect()
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The README and every page below `docs/`, by their paths.
fn pages() -> BTreeMap<String, String> {
    let (mut found, mut folders) = (vec![repository().join("README.md")], vec![repository().join("docs")]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    let name = |path: &PathBuf| path.strip_prefix(repository()).unwrap().display().to_string();
    let pages: BTreeMap<_, _> = found.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect();
    assert!(pages.len() >= 10, "{:?}", pages.keys());
    pages
}

/// What every page may name: the token file of docs/commands.md, two tokens, and the files of docs/sources.md.
fn folder() -> Folder {
    let folder = Folder::new();
    let commands = fs::read_to_string(repository().join("docs/commands.md")).unwrap();
    folder.write("tokens.toml", &in_language(&commands, "toml")[0]);
    let audit = fs::read_to_string(repository().join("docs/audit.md")).unwrap();
    let log = blocks(&audit).into_iter().find(|block| block.file == Some("audit.jsonl")).unwrap();
    folder.write("audit.jsonl", &log.text);
    folder.write("legacy-token.txt", "jam_pat_0123456789abcdef\n");
    folder.write("token.txt", "another-token\n");
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    for name in ["ca.pem", "cert.pem", "client.pem"] {
        folder.write(name, &certified.cert.pem());
    }
    for name in ["key.pem", "client.key"] {
        folder.write(name, &certified.signing_key.serialize_pem());
    }
    folder.write("source.token", "a-bearer-token\n");
    folder.configure("http://127.0.0.1:3000", "");
    folder
}

/// Runs an example in a folder; what went wrong.
fn run(example: &str, folder: &Folder) -> Result<(), String> {
    let mut shell = Command::new("sh");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PATGATE_")) {
        shell.env_remove(name);
    }
    shell
        .env("PROGRAM", env!("CARGO_BIN_EXE_patgate"))
        .env("REPOSITORY", repository())
        .arg("-c")
        .arg(format!("{PRELUDE}{example}"));
    let output = shell.current_dir(folder.path("")).output().unwrap();
    output.status.success().then_some(()).ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Whether an excerpt of a file is still one, however far it is indented there.
fn is_excerpt(text: &str, files: &[String]) -> bool {
    let trimmed = |text: &str| text.lines().map(str::trim).collect::<Vec<_>>().join("\n");
    files.iter().any(|file| trimmed(file).contains(&trimmed(text)))
}

/// Every file below `config/`.
fn configuration_files() -> Vec<String> {
    let (mut files, mut folders) = (Vec::new(), vec![repository().join("config")]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(fs::read_to_string(path).unwrap()) }
        }
    }
    files
}

/// Checks a piece of a configuration as `patgate check` does; a token list only has to be TOML.
fn check_toml(text: &str) -> Result<(), String> {
    let table: toml::Table = text.parse().map_err(|error| format!("{error}"))?;
    let is_list = ["tokens", "users"].iter().any(|key| table.get(*key).is_some_and(toml::Value::is_array));
    if is_list {
        return Ok(());
    }
    let folder = folder();
    let source = if table.contains_key("tokens") { "" } else { "\n[tokens]\nfile = \"tokens.toml\"\n" };
    folder.write("patgate.toml", &format!("{text}{source}"));
    let arguments: &[&str] =
        if table.contains_key("upstream") { &[] } else { &["--upstream", "http://127.0.0.1:3000"] };
    let check = folder.run(&[&["check", "--config", "patgate.toml"], arguments].concat());
    check.status.success().then_some(()).ok_or_else(|| String::from_utf8_lossy(&check.stderr).into_owned())
}

#[test]
fn every_example_works() {
    let (mut ran, mut checked, mut elsewhere) = (0, 0, 0);
    let files = configuration_files();
    for (name, page) in pages() {
        let mut shared = folder();
        if name.starts_with("docs/migration/") {
            // who comes from elsewhere has no list yet
            fs::remove_file(shared.path("tokens.toml")).unwrap();
        }
        for Block { language, text, file } in blocks(&page) {
            if name == "docs/commands.md" {
                // as it says, each example begins from the same file
                shared = folder();
            }
            let done = match (file, language) {
                (Some(file), _) => {
                    shared.write(file, &text);
                    Ok(())
                }
                (None, "sh") if ELSEWHERE.contains(&&*text) => {
                    elsewhere += 1;
                    Ok(())
                }
                (None, "sh") => {
                    ran += 1;
                    run(&text, &shared)
                }
                (None, "toml") => {
                    checked += 1;
                    check_toml(&text)
                }
                (None, "json") => {
                    checked += 1;
                    serde_json::from_str::<serde_json::Value>(&text).map(|_| ()).map_err(|error| error.to_string())
                }
                (None, "yaml" | "ini" | "dockerfile") => {
                    checked += 1;
                    is_excerpt(&text, &files).then_some(()).ok_or_else(|| "it is in no file below config/".to_owned())
                }
                // run by tests/it/audit/stores.rs; for people, and for programs that are not here
                (None, "sql" | "logql" | "text" | "nginx") => Ok(()),
                (None, other) => Err(format!("nobody checks `{other}`: write text, or see to it here")),
            };
            done.unwrap_or_else(|why| panic!("{name}: {why}\n{text}"));
        }
    }
    assert!(ran >= 30 && checked >= 6, "ran {ran}, checked {checked}");
    assert_eq!(elsewhere, ELSEWHERE.len());
}

#[test]
fn every_command_has_an_example() {
    let examples = in_language(&pages()["docs/commands.md"], "sh").join("\n");
    let commands = |words: &[&str]| -> Vec<String> {
        let help = patgate().args(words).arg("--help").output().unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        let listed = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap().to_owned();
        let names = listed.lines().filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
        names.map(|name| [words, &[name]].concat().join(" ")).collect()
    };
    let mut found = 0;
    for command in commands(&[]) {
        // these three are the README's
        if ["demo", "serve", "check"].contains(&&*command) {
            continue;
        }
        let groups = ["token", "user", "audit"];
        for command in if groups.contains(&&*command) { commands(&[&command]) } else { vec![command] } {
            assert!(examples.contains(&format!("patgate {command}")), "no example of {command}");
            found += 1;
        }
    }
    assert!(found >= 18, "{found}");
}

#[test]
fn the_time_that_the_end_takes_is_told_as_it_is() {
    let after = AFTER_DRAIN.as_secs();
    let configuration = fs::read_to_string(repository().join("config/patgate.toml")).unwrap();
    assert!(configuration.contains(&format!("The end may take {after} seconds more")));
    let pages = pages();
    assert!(pages["docs/operations.md"].contains(&format!("more than the drain and {after} seconds")));
    assert!(pages["docs/kubernetes.md"].contains(&format!("[the {after} seconds]")));
}

#[test]
fn links_lead_somewhere() {
    let mut found = 0;
    for (name, page) in pages() {
        let folder = repository().join(&name).parent().unwrap().to_owned();
        for link in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let path = link.split('#').next().unwrap();
            assert!(folder.join(path).exists(), "{name}: {link}");
            found += 1;
        }
    }
    assert!(found >= 12, "{found}");
}

/// The names of all tests of this binary, as it lists them, and of those in `src`, as they are written.
fn tests() -> BTreeSet<String> {
    let listed = Command::new(std::env::current_exe().unwrap()).arg("--list").output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let mut tests: BTreeSet<_> =
        listed.lines().filter_map(|line| Some(line.strip_suffix(": test")?.to_owned())).collect();
    let root = repository().join("src");
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let module = path.strip_prefix(&root).unwrap().with_extension("").display().to_string();
            let module = module.trim_end_matches("/mod").replace('/', "::");
            let (module, inside) = match module.strip_suffix("::tests") {
                Some(module) => (module, text.as_str()),
                None => (module.as_str(), text.split_once("mod tests {").map_or("", |(_, inside)| inside)),
            };
            let functions = inside.split("#[test]\n").chain(inside.split("#[tokio::test]\n")).filter_map(|after| {
                let line = after.lines().next()?.trim_start().trim_start_matches("async ");
                line.strip_prefix("fn ")?.split('(').next()
            });
            tests.extend(functions.map(|function| format!("{module}::tests::{function}")));
        }
    }
    tests
}

#[test]
fn every_test_that_the_threat_model_names_is_there() {
    let (page, tests) = (&pages()["docs/threat-model.md"], tests());
    let names = page.split('`').skip(1).step_by(2).filter(|code| code.contains("::") && !code.contains(' '));
    let mut found = 0;
    for name in names.filter(|name| *name != "headers::x") {
        assert!(tests.contains(name), "there is no test {name}");
        found += 1;
    }
    assert!(found >= 100, "{found}");
}
