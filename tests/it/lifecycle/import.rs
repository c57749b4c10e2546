//! Tokens from elsewhere, and a word on any token: import, verify.

use super::{BCRYPT, HASH_OF_ABC, of_every_status, say, say_with};
use crate::harness::Folder;

#[test]
fn import_takes_a_hash_or_a_token_from_standard_input() {
    let folder = Folder::new();
    let import = |input: &str, more: &str, words: &[&str]| {
        say_with(&folder, input, &format!("token import --user alice --name n {more}"), words)
    };
    assert_eq!(import("", "--hash … --id vector", &[HASH_OF_ABC]).went_well(), "vector");
    assert_eq!(import("wick_pat_0123456789abcdef0123456789abcdef\n", "", &[]).went_well().len(), 10);
    let narrow = import("narrow", "--id narrow --scope mcp:read --tool get_* --deny-tool get_secret", &[]);
    assert_eq!(narrow.went_well(), "narrow");
    let tools = say(&folder, "token show narrow --json", &[]).any_json()["tools"].clone();
    assert_eq!(tools.to_string(), r#"{"allow":["get_*"],"deny":["get_secret"]}"#);
    import("abc", "", &[]).refused(1, &["already", "vector"]);
    import("abcd", "--id vector", &[]).refused(1, &["`vector` is taken"]);
    import("", "--hash …", &[BCRYPT]).refused(2, &["--prefix", "first 10 characters"]);
    import("", "--hash … --prefix short", &[BCRYPT]).refused(2, &["--prefix"]);
    import("x", "--prefix 0123456789", &[]).refused(2, &["--hash"]);
    import("", "", &[]).refused(2, &["no token on standard input"]);
    import("two words\n", "", &[]).refused(1, &["no client can send this"]);
    import("mcp_pat_k3V9mQ2xTa_cut", "", &[]).refused(1, &["checksum is wrong"]);
    // a token of our form from elsewhere keeps the id that it carries
    let own = Folder::new().token("alice", &[]);
    assert_eq!(import(&own, "", &[]).went_well(), &own[8..18]);
    assert!(!folder.read("tokens.toml").contains(&own[19..]));
    let verified = say_with(&folder, &own, "token verify", &[]);
    assert!(verified.code == Some(0) && verified.out.starts_with("allowed: token "), "{verified:?}");
}

#[test]
fn verify_says_what_the_server_would_say() {
    let folder = Folder::new();
    of_every_status(&folder);
    for (input, reason, words) in [
        ("secret-of-good", "ok", "expires in 12 days"),
        ("secret-of-endless\r\n", "ok", "never expires"),
        ("secret-of-expired", "expired", "expired 3 days ago"),
        ("secret-of-revoked", "revoked", "revoked 1 hour ago: lost"),
        ("secret-of-early", "not_yet_valid", "good in 5 hours"),
        ("secret-of-denied", "revoked", "deny list"),
        ("secret-of-asleep", "user_suspended", "bob is suspended"),
        ("secret-of-nobody", "user_unknown", "carol is not in"),
        ("another", "unknown_token", "not in the list"),
        ("mcp_pat_another", "bad_checksum", "checksum is wrong"),
        ("two words", "malformed_credential", "no client can send"),
        ("new\nline", "malformed_credential", "no client can send"),
    ] {
        let said = say_with(&folder, input, "token verify --json --config patgate.toml", &[]);
        let verdict = said.any_json();
        let allowed = reason == "ok";
        assert_eq!(said.code, Some(i32::from(!allowed)), "{input}: {said:?}");
        assert_eq!(verdict["outcome"], if allowed { "allowed" } else { "denied" }, "{input}");
        assert_eq!((&verdict["reason"], said.err.as_str()), (&reason.into(), ""), "{input}");
        let known = input.strip_prefix("secret-of-").map(str::trim_end);
        assert_eq!(verdict["token"]["id"].as_str(), known, "{input}");
        let said = say_with(&folder, input, "token verify --config patgate.toml", &[]);
        assert!(said.out.contains(words) && !said.out.contains("secret-of"), "{input}: {said:?}");
    }
    say(&folder, "token verify", &[]).refused(2, &["no token on standard input"]);
    folder.write("denied.txt", "not an id\n");
    say_with(&folder, "x", "token verify --config patgate.toml", &[]).refused(2, &["denied.txt:1:1"]);
}

#[test]
fn verify_tries_the_hashes_of_an_older_system() {
    let folder = Folder::new();
    let hash = bcrypt::hash("wick_pat_0123456789", 4).unwrap();
    let line = "token import --user alice --name n --id old --prefix wick_pat_0 --hash …";
    assert_eq!(say(&folder, line, &[&hash]).went_well(), "old");
    let verified = say_with(&folder, "wick_pat_0123456789", "token verify --json", &[]);
    assert_eq!((verified.code, &verified.any_json()["token"]["id"]), (Some(0), &"old".into()));
    let verified = say_with(&folder, "wick_pat_0123456780", "token verify --json", &[]);
    assert_eq!((verified.code, &verified.any_json()["reason"]), (Some(1), &"unknown_token".into()));
}
