//! Who may hold tokens: user add, list, suspend, activate, remove.

use super::{listed, of_every_status, record, say, token};
use crate::harness::Folder;

#[test]
fn a_first_user_locks_nobody_out_unasked() {
    let folder = Folder::new();
    let records = ["a", "b", "c"].map(|user| record(user, user, ""));
    folder.write("tokens.toml", &(records.concat() + &record("d", "d", "revoked_at = 2020-01-01T00:00:00Z")));
    let before = folder.read("tokens.toml");
    say(&folder, "user add a", &[]).refused(1, &["would be dead: b, c\n", "--with-existing"]);
    assert_eq!(folder.read("tokens.toml"), before);
    let added = say(&folder, "user add a --email a@example.com --role dev --with-existing --json", &[]);
    assert!(added.json()["roles"][0] == "dev" && added.err.contains("b, c"), "{added:?}");
    say(&folder, "user add a", &[]).refused(1, &["listed already"]);
    let users = say(&folder, "user list --json", &[]).json();
    let ids: Vec<_> = users
        .as_array()
        .unwrap()
        .iter()
        .map(|user| (user["id"].as_str().unwrap(), user["listed"].as_bool().unwrap()))
        .collect();
    assert_eq!(ids, [("a", true), ("b", true), ("c", true), ("d", false)]);
    // no further question once there are users
    assert_eq!(say(&folder, "user add e", &[]).code, Some(0));
}

#[test]
fn suspend_and_activate() {
    let folder = Folder::new();
    of_every_status(&folder);
    let status = |id: &str| token(&listed(&folder), id)["status"].as_str().unwrap().to_owned();
    assert_eq!(say(&folder, "user suspend alice --json", &[]).json()["status"], "suspended");
    assert_eq!((status("good"), status("endless")), ("suspended".into(), "suspended".into()));
    assert!(say(&folder, "user suspend alice", &[]).err.contains("already"));
    assert_eq!(say(&folder, "user activate alice --json", &[]).json()["active_tokens"], 3);
    assert_eq!(status("good"), "active");
    say(&folder, "user suspend alcie", &[]).refused(1, &["no user `alcie`", "did you mean `alice`?"]);
    folder.write("tokens.toml", &record("a", "alice", ""));
    say(&folder, "user suspend alice", &[]).refused(1, &["lists no users", "patgate user add alice"]);
}

#[test]
fn a_user_who_is_removed_stays_dead_even_if_she_comes_back() {
    let folder = Folder::new();
    folder.write("tokens.toml", &(record("a", "alice", "") + "\n# the boss\n[[users]]\nid = \"alice\"\n"));
    let said = say(&folder, "user remove alice", &[]);
    assert!(said.code == Some(0) && said.err.contains("nobody is listed now"), "{said:?}");
    let text = folder.read("tokens.toml");
    assert!(text.contains("users = []") && !text.contains("boss"), "{text}");
    assert_eq!(token(&listed(&folder), "a")["status"], "revoked");
    assert_eq!(say(&folder, "user add alice", &[]).code, Some(0));
    let tokens = listed(&folder);
    assert_eq!((&tokens[0]["status"], &tokens[0]["revoked_reason"]), (&"revoked".into(), &"user removed".into()));
    say(&folder, "user remove bob", &[]).refused(1, &["no user `bob`"]);
}
