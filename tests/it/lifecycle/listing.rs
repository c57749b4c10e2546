//! What is told of tokens: list, show, stats.

use serde_json::{Value, json};

use super::{BCRYPT, HASH_OF_ABC, listed, moment, of_every_status, record, say, say_with, token};
use crate::harness::Folder;

#[test]
fn list_says_how_every_token_stands() {
    let folder = Folder::new();
    of_every_status(&folder);
    let tokens = say(&folder, "token list --json --config patgate.toml", &[]).json();
    let statuses: Vec<_> = tokens.as_array().unwrap().iter().map(|token| token["status"].as_str().unwrap()).collect();
    assert_eq!(
        statuses,
        ["active", "active", "expired", "revoked", "not_yet_valid", "revoked", "suspended", "user_unknown"]
    );
    let good = tokens[0].as_object().unwrap();
    let mut keys: Vec<_> = good.keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        [
            "created_at",
            "effective_scopes",
            "expires_at",
            "hint",
            "id",
            "last_used_at",
            "name",
            "not_before",
            "replaced_by",
            "revoked_at",
            "revoked_reason",
            "scopes",
            "status",
            "tools",
            "user"
        ]
    );
    assert_eq!((&good["scopes"], &good["effective_scopes"]), (&json!(["x", "y"]), &json!(["y"])));
    assert!(moment(&good["last_used_at"]) < moment(&good["expires_at"]));
    assert_eq!((&tokens[3]["replaced_by"], &tokens[3]["revoked_reason"]), (&"good".into(), &"lost".into()));

    let said = say(&folder, "token list --config patgate.toml", &[]);
    let line = |word: &str| said.out.lines().find(|line| line.contains(word)).unwrap_or_else(|| panic!("{said:?}"));
    for (word, expected) in [
        ("laptop", ["3 days ago", "2 hours ago", "in 12 days", "active"]),
        ("endless", ["-", "all", "never", "active"]),
        ("expired ", ["-", "-", "expired 3 days ago", "expired"]),
        ("early", ["-", "-", "never", "not yet valid"]),
        ("asleep", ["bob", "-", "never", "suspended"]),
        ("nobody", ["carol", "-", "never", "user unknown"]),
    ] {
        assert!(expected.iter().all(|part| line(word).contains(part)), "{word}: {said:?}");
    }
    assert!(!said.out.contains("sha256") && !said.out.contains('\u{1b}') && said.err.is_empty(), "{said:?}");
    let columns: Vec<_> = said.out.lines().map(|line| line.find("active").or(line.find("STATUS"))).take(3).collect();
    assert!(columns[0].is_some() && columns.iter().all(|column| *column == columns[0]), "{said:?}");
}

#[test]
fn an_empty_list_and_a_missing_one() {
    let folder = Folder::new();
    say(&folder, "token list", &[]).refused(2, &["tokens.toml", "make it"]);
    folder.write("tokens.toml", "");
    assert_eq!(say(&folder, "token list --json", &[]).json(), json!([]));
    say(&folder, "token list", &[]).refused(0, &["no tokens in tokens.toml"]);
    say(&folder, "user list", &[]).refused(0, &["no users in tokens.toml"]);
    folder.write("tokens.toml", "[[tokens]]\nid = \"a b\"\n");
    say(&folder, "token list", &[]).refused(2, &["tokens.toml:2:6: tokens[0].id", "hash: missing"]);
}

#[test]
fn hints_show_how_a_token_begins_and_nothing_of_a_hash() {
    let folder = Folder::new();
    let made = say(&folder, "token create --user a --name n --json", &[]).json();
    say(&folder, "token import --user a --name n --id bare0000aa --hash …", &[HASH_OF_ABC]).went_well();
    say(&folder, "token import --user a --name n --id old --hash … --prefix wick_pat_1", &[BCRYPT]).went_well();
    say_with(&folder, "short-token\n", "token import --user a --name n --id short", &[]).went_well();
    say_with(&folder, "jam_pat_0123456789abcdef\n", "token import --user a --name n --id long", &[]).went_well();
    let tokens = listed(&folder);
    let hint = |id: &str| token(&tokens, id)["hint"].clone();
    let id = made["id"].as_str().unwrap();
    assert_eq!(hint(id), format!("mcp_pat_{id}_…"));
    assert_eq!((hint("bare0000aa"), hint("short")), (Value::Null, Value::Null));
    assert_eq!((hint("old"), hint("long")), ("wick_pat_1…".into(), "jam_pat_01…".into()));
}

#[test]
fn show_tells_all_of_a_token_and_its_user() {
    let folder = Folder::new();
    of_every_status(&folder);
    let shown = say(&folder, "token show good --json", &[]).json();
    assert_eq!((&shown["owner"]["email"], &shown["owner"]["status"]), (&"alice@example.com".into(), &"active".into()));
    assert_eq!(shown["owner"]["roles"], json!(["dev"]));
    let said = say(&folder, "token show good", &[]);
    for word in ["laptop", "x y", "(in 12 days)", "alice@example.com", "dev", "(2 hours ago)"] {
        assert!(said.out.contains(word), "{word}: {said:?}");
    }
    assert!(!said.out.contains("sha256"), "{said:?}");
    say(&folder, "token show gooood", &[]).refused(1, &["no token `gooood`", "did you mean `good`?"]);
    say(&folder, "token show quite-another", &[]).refused(1, &["no token `quite-another` in tokens.toml\n"]);
}

#[test]
fn stats_count_tokens_by_how_they_stand() {
    let folder = Folder::new();
    of_every_status(&folder);
    let counts = say(&folder, "token stats --json --config patgate.toml", &[]).json();
    let expected = json!({
        "tokens": 8, "active": 2, "users": 1, "never_used": 1, "expiring_within_30_days": 1,
        "revoked": 2, "expired": 1, "otherwise_inactive": 3
    });
    assert_eq!(counts, expected);
    assert!(say(&folder, "token stats", &[]).out.contains("expiring within 30 days  1\n"));
    // what is no file of last uses is remarked on and costs nothing
    folder.write("tokens.toml.last-used.json", "{");
    let said = say(&folder, "token stats --json", &[]);
    assert!(said.json()["never_used"].is_null() && said.err.contains("warning: the last uses"), "{said:?}");
}

#[test]
fn where_last_uses_cannot_be_read_nobody_says_never() {
    let folder = Folder::new();
    folder.write(
        "tokens.toml",
        &record("a", "alice", "expires_at = 2099-01-01T00:00:00Z\ncreated_at = 2026-01-01T00:00:00Z"),
    );
    let said = |line: &str| say(&folder, line, &[]).went_well().to_owned();
    let texts = || ["token list", "token show a", "token stats"].map(said);
    // no server has written any yet
    assert!(texts().iter().all(|text| text.contains("never") && !text.contains("unknown")), "{:?}", texts());
    assert_eq!(say(&folder, "token stats --json", &[]).json()["never_used"], 1);
    folder.write("tokens.toml.last-used.json", "{");
    assert!(texts().iter().all(|text| text.contains("unknown") && !text.contains("never  ")), "{:?}", texts());
    assert_eq!(say(&folder, "token stats --json", &[]).json()["never_used"], Value::Null);
    assert_eq!(listed(&folder)[0]["last_used_at"], Value::Null);
}
#[test]
fn names_cannot_steer_a_terminal() {
    let folder = Folder::new();
    let more = "name = \"a\u{202e}b…\"\nrevoked_at = 2026-01-01T00:00:00Z\nrevoked_reason = \"\u{2066}lost\"";
    let users = "[[users]]\nid = \"al\u{61c}ice\"\nname = \"\u{200f}A\"\n";
    folder.write("tokens.toml", &(record("a", "al\u{61c}ice", more) + users));
    let steering = ['\u{202e}', '\u{2066}', '\u{61c}', '\u{200f}', '\u{1b}'];
    for line in [
        "token list",
        "token show a",
        "token verify",
        "user list",
        "explain --token-id a --tool t",
        "token rename a b\u{202e}",
    ] {
        let said =
            if line == "token verify" { say_with(&folder, "secret-of-a", line, &[]) } else { say(&folder, line, &[]) };
        let text = said.out + &said.err;
        assert!(text.contains('\u{fffd}') && !text.contains(steering), "{line}: {text:?}");
    }
    folder.write("tokens.toml", "[[tokens]]\n\"\\u001b[2J\u{202e}\" = 1\n");
    let said = say(&folder, "token list", &[]);
    assert!(
        said.err.contains("tokens[0].\u{fffd}[2J\u{fffd}: unknown key") && !said.err.contains(steering),
        "{said:?}"
    );
}

#[test]
fn a_token_on_the_command_line_is_not_repeated() {
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let (id, secret) = (&token[8..18], &token[19..]);
    for line in ["token verify …", "token list --…", "token list --json=…", "…"] {
        let said = say(&folder, line.replace('…', &token).as_str(), &[]);
        said.refused(2, &[id, "[masked]", "revoke it"]);
        assert!(!said.err.contains(secret), "{said:?}");
    }
    say(&folder, "token verify x", &[]).refused(2, &["unexpected argument 'x'"]);
    assert!(say(&folder, "--help", &[]).went_well().contains("Usage:"));
}
