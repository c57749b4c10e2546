//! `patgate token create`: the token on standard output and nowhere else, and a token file that loses
//! nothing of what it held.

use std::collections::HashSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Output;
use std::thread;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::harness::{Folder, Origin, get};

fn create(folder: &Folder, more: &[&str]) -> Output {
    let plain = ["token", "create", "--user", "alice", "--name", "laptop", "--tokens", "tokens.toml"];
    folder.run(&[&plain, more].concat())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn mode(folder: &Folder, name: &str) -> u32 {
    fs::metadata(folder.path(name)).unwrap().permissions().mode() & 0o777
}

fn hash_of(token: &str) -> String {
    Sha256::digest(token).iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// The only value of a key in the token file.
fn value_of(folder: &Folder, key: &str) -> Option<String> {
    let list = folder.read("tokens.toml");
    let mut values = list.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix(" = ").map(str::to_owned));
    let value = values.next();
    assert_eq!(values.next(), None);
    value
}

#[test]
fn the_token_alone_is_printed_and_only_its_hash_is_kept() {
    let folder = Folder::new();
    let output = create(&folder, &[]);
    assert!(output.status.success());
    let printed = text(&output.stdout);
    let token = printed.strip_suffix('\n').unwrap();
    assert!(token.len() == 57 && token.starts_with("mcp_pat_") && !token.contains(char::is_whitespace), "{token:?}");
    let said = text(&output.stderr);
    assert!(said.contains(&token[8..18]) && said.contains("tokens.toml"), "{said}");

    let list = folder.read("tokens.toml");
    for (place, text) in [("file", &list), ("messages", &said)] {
        assert!(!text.contains(&token[19..]) && !text.contains(&token[19..51]), "the secret is in the {place}");
    }
    assert_eq!(value_of(&folder, "hash"), Some(format!("\"{}\"", hash_of(token))));
    assert_eq!(value_of(&folder, "id"), Some(format!("\"{}\"", &token[8..18])));
    assert_eq!(
        (value_of(&folder, "user"), value_of(&folder, "name")),
        (Some("\"alice\"".into()), Some("\"laptop\"".into()))
    );
    assert_eq!(mode(&folder, "tokens.toml"), 0o600);
    let names: Vec<_> = fs::read_dir(folder.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["tokens.toml"], "nothing is left beside the file");
}

#[test]
fn what_people_wrote_around_their_tokens_stays() {
    let folder = Folder::new();
    let written = "# the tokens of our team\n\n[[tokens]] # alice's first\nid = \"first\" # never reuse\n\
                   hash = \"sha256:0000000000000000000000000000000000000000000000000000000000000000\"\n\
                   user   =   \"alice\"\n\n# people\n[[users]]\nid = \"alice\"\nroles = [\n  \"dev\", # for now\n]\n\n\
                   [roles.dev]\nscopes = [\"mcp:read\"]\n# the end\n";
    folder.write("tokens.toml", written);
    fs::set_permissions(folder.path("tokens.toml"), Permissions::from_mode(0o640)).unwrap();
    let token = text(&create(&folder, &["--scope", "mcp:read", "--scope", "mcp:write"]).stdout);
    let list = folder.read("tokens.toml");
    let mut rest = list.as_str();
    for line in written.lines().filter(|line| !line.is_empty()) {
        let (_, after) = rest.split_once(line).unwrap_or_else(|| panic!("`{line}` is lost or moved in {list}"));
        rest = after;
    }
    assert!(list.contains(&token[8..18]) && list.contains("scopes = [\"mcp:read\", \"mcp:write\"]"), "{list}");
    assert_eq!(mode(&folder, "tokens.toml"), 0o640, "the mode is the owner's business");
    assert!(folder.run(&["check", "--tokens", "tokens.toml", "--upstream", "http://localhost"]).status.success());
}

#[test]
fn a_link_is_followed_and_stays_a_link() {
    let folder = Folder::new();
    fs::create_dir(folder.path("data")).unwrap();
    folder.write("data/list.toml", "");
    symlink("data/list.toml", folder.path("tokens.toml")).unwrap();
    assert!(create(&folder, &[]).status.success());
    assert!(folder.path("tokens.toml").is_symlink());
    assert!(folder.read("data/list.toml").contains("[[tokens]]"));
}

#[test]
fn one_json_object_is_printed_on_request() {
    let folder = Folder::new();
    let output = create(&folder, &["--json", "--scope", "mcp:read", "--expires", "2199-01-31"]);
    let printed = text(&output.stdout);
    assert_eq!(printed.lines().count(), 1);
    let object: Value = serde_json::from_str(&printed).unwrap();
    let token = object["token"].as_str().unwrap();
    assert_eq!((object["id"].as_str(), &object["user"]), (Some(&token[8..18]), &"alice".into()));
    assert_eq!((&object["name"], &object["scopes"][0]), (&"laptop".into(), &"mcp:read".into()));
    assert_eq!(object["expires_at"], "2199-01-31T00:00:00Z");
    assert!(!text(&output.stderr).contains(&token[19..]));
    let endless: Value = serde_json::from_slice(&create(&folder, &["--json", "--expires", "never"]).stdout).unwrap();
    assert!(endless["expires_at"].is_null());
}

#[test]
fn lifetimes_are_taken_as_people_write_them() {
    for (lifetime, seconds) in [("45s", 45), ("12h", 43_200), ("90d", 7_776_000)] {
        let folder = Folder::new();
        assert!(create(&folder, &["--expires", lifetime]).status.success());
        let moment = |key| value_of(&folder, key).unwrap().parse::<jiff::Timestamp>().unwrap().as_second();
        assert_eq!(moment("expires_at") - moment("created_at"), seconds, "{lifetime}");
    }
    for (lifetime, end) in [
        ("2199-01-31", Some("2199-01-31T00:00:00Z")),
        ("2199-01-31T12:00:00+02:00", Some("2199-01-31T10:00:00Z")),
        ("never", None),
    ] {
        let folder = Folder::new();
        assert!(create(&folder, &["--expires", lifetime]).status.success());
        assert_eq!(value_of(&folder, "expires_at").as_deref(), end, "{lifetime}");
    }
    let folder = Folder::new();
    assert!(create(&folder, &[]).status.success());
    assert!(value_of(&folder, "expires_at").is_some(), "a token ends unless somebody says otherwise");
    for lifetime in ["", "90", "soon", "-1d", "0s", "2020-01-01", "9999999y"] {
        let folder = Folder::new();
        let output = create(&folder, &[&format!("--expires={lifetime}")]);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{lifetime:?}");
        assert!(text(&output.stderr).contains("expires"), "{}", text(&output.stderr));
        assert!(!folder.path("tokens.toml").exists());
    }
}

#[test]
fn twenty_at_once_lose_nothing_and_every_token_works() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let tokens: Vec<String> = thread::scope(|scope| {
        let creating: Vec<_> = (0..20)
            .map(|_| {
                scope.spawn(|| {
                    let output = create(&folder, &[]);
                    assert!(output.status.success(), "{}", text(&output.stderr));
                    text(&output.stdout).trim_end().to_owned()
                })
            })
            .collect();
        creating.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(tokens.iter().collect::<HashSet<_>>().len(), 20);
    assert_eq!(folder.read("tokens.toml").matches("[[tokens]]").count(), 20);
    let proxy = folder.serve(&origin.url(), "");
    for token in &tokens {
        assert_eq!(proxy.ask(&get(token, "")).status, 200);
    }
}

#[test]
fn a_file_that_is_wrong_or_would_be_stays_as_it_is() {
    let folder = Folder::new();
    for (list, expected) in [
        ("[[tokens]]\nid = \"x\n", "tokens.toml:2:"),
        ("[[tokens]]\nid = \"x\"\n", "tokens[0].hash: missing"),
        ("[[users]]\nid = \"bob\"\n", "`alice` is not in [[users]]"),
    ] {
        folder.write("tokens.toml", list);
        let output = create(&folder, &[]);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{list}");
        assert!(text(&output.stderr).contains(expected), "{}", text(&output.stderr));
        assert_eq!(folder.read("tokens.toml"), list);
    }
    for arguments in [&["--scope", "a b"][..], &["--user", "a\nb"], &["--name", "\u{1b}[2J"]] {
        folder.write("tokens.toml", "");
        let plain = if arguments[0] == "--scope" { &["--user", "a", "--name", "n"][..] } else { &[] };
        let plain = if arguments[0] == "--user" { &["--name", "n"][..] } else { plain };
        let plain = if arguments[0] == "--name" { &["--user", "a"][..] } else { plain };
        let output = folder.run(&[&["token", "create", "--tokens", "tokens.toml"], plain, arguments].concat());
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{arguments:?}");
        assert_eq!(folder.read("tokens.toml"), "");
    }
}

#[test]
fn the_configuration_says_where_tokens_are_and_how_they_begin() {
    let folder = Folder::new();
    fs::create_dir(folder.path("etc")).unwrap();
    folder.write("etc/patgate.toml", "[tokens]\nfile = \"list.toml\"\nprefix = \"acme_\"\n");
    let output = folder.run(&["token", "create", "--user", "a", "--name", "n", "--config", "etc/patgate.toml"]);
    assert!(output.status.success() && text(&output.stdout).starts_with("acme_"), "{output:?}");
    assert!(folder.read("etc/list.toml").contains(&hash_of(text(&output.stdout).trim_end())));
}
