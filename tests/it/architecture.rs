//! The floors of the house: imports run downward only, and siblings do not know each other.

use std::fs;
use std::path::{Path, PathBuf};

/// The modules of the crate, from the ground up.
const FLOORS: [&[&str]; 9] = [
    &["charset", "deadline", "digits", "document", "verdict"],
    &["mcp", "metrics", "token", "trace", "watch"],
    &["access", "descriptors", "https", "tls"],
    &["source", "audit"],
    &["proxy"],
    &["server"],
    &["config"],
    &["cli"],
    &["main"],
];

const MAX_LINES: usize = 500;

fn floor(module: &str) -> usize {
    let found = FLOORS.iter().position(|floor| floor.contains(&module));
    found.unwrap_or_else(|| panic!("`{module}` stands on no floor: give it one in FLOORS"))
}

/// A file of `src/`.
struct Source {
    /// Its path below `src/`.
    path: PathBuf,
    /// The module of the crate to which it belongs.
    module: String,
    text: String,
}

/// Every file of `src/` but `lib.rs`, which only lists the modules.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let file = entry.unwrap().path();
            if file.is_dir() {
                folders.push(file);
            } else if file.extension().is_some_and(|extension| extension == "rs") {
                let path = file.strip_prefix(&root).unwrap().to_owned();
                let first = Path::new(path.iter().next().unwrap());
                let module = first.file_stem().unwrap().to_str().unwrap().to_owned();
                found.push(Source { path, module, text: fs::read_to_string(&file).unwrap() });
            }
        }
    }
    found.retain(|source| source.module != "lib");
    assert!(found.len() >= 30, "only {} files were found", found.len());
    found
}

/// The text without its comments.
fn code(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.map(|line| line.split(" // ").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The crate's modules that a text reaches: each first name after `crate::` or `patgate::`, and each
/// name of a floor after as many `super::` as lead out of the module, which are `depth`.
fn imports(text: &str, depth: usize) -> Vec<String> {
    let code = code(text);
    let mut found = Vec::new();
    for root in ["crate::", "patgate::"] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].chars().next_back();
            if before.is_none_or(|before| !before.is_alphanumeric() && before != '_') {
                found.extend(first_names(&code[at + root.len()..]));
            }
        }
    }
    let out = "super::".repeat(depth);
    for (at, _) in code.match_indices(&out) {
        let names = first_names(&code[at + out.len()..]);
        found.extend(names.into_iter().filter(|name| FLOORS.iter().any(|floor| floor.contains(&&**name))));
    }
    found
}

/// The first name of a path, or of each path in a group in braces.
fn first_names(path: &str) -> Vec<String> {
    let name = |text: &str| {
        let text = text.trim_start();
        let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
        text[..end].to_owned()
    };
    let Some(group) = path.strip_prefix('{') else { return vec![name(path)] };
    let (mut names, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            '}' => {
                names.push(name(&group[start..at]));
                break;
            }
            ',' if depth == 0 => {
                names.push(name(&group[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

#[test]
fn imports_run_downward() {
    let mut seen = 0;
    let mut wrong = Vec::new();
    for Source { path, module, text } in sources() {
        let inside = path.iter().count() - usize::from(path.ends_with("mod.rs"));
        for import in imports(&text, inside) {
            seen += 1;
            if import != module && floor(&import) >= floor(&module) {
                wrong.push(format!("{} uses {import}", path.display()));
            }
            if module == "main" && import != "cli" {
                wrong.push(format!("main.rs uses {import}: it may use the command line only"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(seen >= 60, "only {seen} imports were found");
}

#[test]
fn every_module_has_a_floor() {
    let mut modules: Vec<String> = sources().into_iter().map(|source| source.module).collect();
    modules.sort();
    modules.dedup();
    let mut planned: Vec<&str> = FLOORS.concat();
    planned.sort_unstable();
    assert_eq!(modules, planned);
}

#[test]
fn files_stay_small() {
    for Source { path, text, .. } in sources() {
        let lines = text.lines().count();
        assert!(lines <= MAX_LINES, "{} has {lines} lines: split it", path.display());
    }
}

/// The macros panic where nobody takes what they print.
#[test]
fn no_macro_prints() {
    let macros = ["println!", "print!", "dbg!"];
    let prints = |text: &str| macros.iter().any(|name| code(text).contains(name));
    assert!(prints("anstream::eprintln!(\"\")"), "nothing is found");
    for Source { path, text, .. } in sources() {
        assert!(!prints(&text), "{}: use tracing, or the print functions of the command line", path.display());
    }
}

#[test]
fn the_scan_sees_every_way_to_write_an_import() {
    let text = "
        use crate::access::Permit; // and crate::comment
        use crate::{audit::{self, AuditLog}, proxy,
            server};
        /// [`crate::documentation`]
        fn f() -> crate::token::Token { crate::source::open() }
        pub(in crate::verdict) struct X;
        use super::super::config::Config;
        use super::super::Unknown;
        use super::cli;
        use mycrate::document;
    ";
    let mut found = imports(text, 2);
    found.sort();
    assert_eq!(found, ["access", "audit", "config", "proxy", "server", "source", "token", "verdict"]);
}
