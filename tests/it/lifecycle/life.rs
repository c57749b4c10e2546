//! From the making of a token to its end: create, rename, rotate, revoke.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{hours, listed, moment, of_every_status, record, say, say_with, token};
use crate::harness::Folder;

#[test]
fn create_prints_the_token_alone_and_keeps_only_its_hash() {
    let folder = Folder::new();
    let said = say(&folder, "token create --user alice --name … --scope a --scope b", &["laptop"]);
    let token = said.out.strip_suffix('\n').unwrap();
    assert!(token.starts_with("mcp_pat_") && token.len() == 57, "{said:?}");
    assert!(said.err.contains(&token[8..18]) && said.err.contains("expires in 90 days"), "{said:?}");
    assert!(!said.err.contains(&token[19..]) && !folder.read("tokens.toml").contains(&token[19..]));

    let said = say(&folder, "token create --user bob --name ci --expires never --json", &[]);
    let made = said.json();
    assert_eq!((&made["user"], &made["expires_at"], &made["scopes"]), (&"bob".into(), &Value::Null, &Value::Null));
    assert_eq!(made["token"].as_str().unwrap()[8..18], *made["id"].as_str().unwrap());
    assert_eq!(listed(&folder).len(), 2);
}

#[test]
fn create_refuses_what_would_be_dead_or_unreadable() {
    let folder = Folder::new();
    folder.write("tokens.toml", "[[users]]\nid = \"alice\"\n[[users]]\nid = \"bob\"\nstatus = \"suspended\"\n");
    let create = |user: &str, name: &str| say(&folder, "token create --user … --name …", &[user, name]);
    create("carol", "x").refused(2, &["`carol` is not in [[users]]", "patgate user add carol"]);
    create("bob", "x").refused(2, &["`bob` is suspended", "patgate user activate bob"]);
    create("", "x").refused(2, &["empty"]);
    create("alice", "two\nlines").refused(2, &["control character"]);
    say(&folder, "token create --user alice --name x --expires yesterday", &[]).refused(2, &["not a lifetime"]);
    say(&folder, "token create --user alice --name x --expires 2020-01-01", &[]).refused(2, &["in the past"]);
    say(&folder, "token create --user alice", &[]).refused(2, &["--name"]);
    say(&folder, "token create --user alice --name x --tokens no/such/tokens.toml", &[]).refused(1, &["folder"]);
    assert!(create("alice", "x").code == Some(0) && listed(&folder).len() == 1);
}

#[test]
fn no_token_is_made_for_longer_than_the_policy_allows() {
    let folder = Folder::new();
    folder.write("patgate.toml", "[tokens]\nfile = \"tokens.toml\"\nmax_lifetime = \"30d\"\n");
    let create =
        |more: &str| say(&folder, &format!("token create --config patgate.toml --user a --name n {more}"), &[]);
    create("--expires 31d").refused(2, &["tokens.max_lifetime", "30d at most"]);
    create("--expires never").refused(2, &["never expires", "30d at most"]);
    assert!(create("").err.contains("expires in 30 days"));
    assert!(create("--expires 30d").code == Some(0) && create("--expires 45s").code == Some(0));

    // one that was made without the policy is dead under it
    let long = say(&folder, "token create --user a --name n --expires never --json", &[]).json();
    let tokens = say(&folder, "token list --config patgate.toml --json", &[]).json();
    let long = token(tokens.as_array().unwrap(), long["id"].as_str().unwrap());
    assert_eq!(long["status"], "over_max_lifetime");
    say(&folder, "token rotate … --config patgate.toml", &[long["id"].as_str().unwrap()])
        .refused(1, &["over max lifetime"]);
}

#[test]
fn revoke_keeps_the_first_date() {
    let folder = Folder::new();
    of_every_status(&folder);
    let said = say(&folder, "token revoke good --reason … --json", &["laptop lost"]);
    let first = said.json();
    assert_eq!((&first["status"], &first["revoked_reason"]), (&"revoked".into(), &"laptop lost".into()));
    assert!(moment(&first["revoked_at"]) <= Timestamp::now());
    let text = folder.read("tokens.toml");
    let again = say(&folder, "token revoke good --reason again --json", &[]);
    assert!(again.err.contains("already revoked"), "{again:?}");
    assert_eq!((again.json(), folder.read("tokens.toml")), (first, text));
    say(&folder, "token revoke godo", &[]).refused(1, &["did you mean `good`?"]);
    // an expired token can be revoked, and a broken deny list is no reason not to revoke
    folder.write("denied.txt", "not an id\n");
    let said = say(&folder, "token revoke expired --config patgate.toml --json", &[]);
    assert!(said.err.contains("deny list") && said.json()["status"] == "revoked");
}

#[test]
fn a_token_in_the_place_of_an_id_is_not_repeated() {
    let folder = Folder::new();
    let secret = folder.token("alice", &[]);
    say_with(&folder, "opaque-token-of-old\n", "token import --user a --name n --id old", &[]).went_well();
    for command in ["show", "revoke", "rotate"] {
        let said = say(&folder, &format!("token {command} …"), &[&secret]);
        said.refused(2, &["this is a token", &secret[8..18]]);
        assert!(!said.err.contains(&secret[19..]));
        let said = say(&folder, &format!("token {command} …"), &["opaque-token-of-old"]);
        said.refused(2, &["this is a token", "(old)"]);
        assert!(!said.err.contains("opaque"));
    }
    for flag in ["--hash", "--id"] {
        let said = say(&folder, &format!("token import --user a --name n {flag} …"), &["opaque-token of old"]);
        said.refused(2, &[flag]);
        assert!(!said.err.contains("opaque"), "{said:?}");
    }
}

#[test]
fn rotate_makes_a_successor_of_the_same_length_and_keeps_the_old_one_for_the_grace() {
    let folder = Folder::new();
    of_every_status(&folder);
    let said = say(&folder, "token rotate good", &[]);
    let secret = said.out.strip_suffix('\n').unwrap();
    assert!(secret.len() == 57 && said.err.contains("ends in 24 hours"), "{said:?}");
    let tokens = listed(&folder);
    let (old, new) = (token(&tokens, "good"), token(&tokens, &secret[8..18]));
    assert_eq!((&old["replaced_by"], &old["status"]), (&new["id"], &"active".into()));
    for key in ["user", "name", "scopes", "status"] {
        assert_eq!(old[key], new[key], "{key}");
    }
    let length = moment(&new["expires_at"]).duration_since(moment(&new["created_at"]));
    assert!((length - hours(24 * 15)).abs() <= SignedDuration::from_secs(1), "{length}");
    let grace = moment(&old["expires_at"]).duration_since(Timestamp::now());
    assert!(grace <= hours(24) && grace > hours(24) - SignedDuration::from_mins(1), "{grace}");

    say(&folder, "token rotate good", &[]).refused(1, &["rotated already", &secret[8..18]]);
    for id in ["expired", "revoked", "early", "asleep", "nobody"] {
        say(&folder, "token rotate …", &[id]).refused(1, &["cannot be rotated"]);
    }
    say(&folder, "token rotate denied --config patgate.toml", &[]).refused(1, &["revoked"]);
    say(&folder, "token rotate endless --grace soon", &[]).refused(2, &["not a duration"]);
}

#[test]
fn rotate_without_grace_and_beyond_the_end() {
    let folder = Folder::new();
    let soon = Timestamp::now() + hours(1);
    let records = [record("a", "alice", ""), record("b", "alice", &format!("expires_at = {soon}"))];
    folder.write("tokens.toml", &records.concat());
    let made = say(&folder, "token rotate a --grace 0s --json", &[]).json();
    assert_eq!(
        (&made["replaces"]["status"], &made["replaces"]["revoked_reason"]),
        (&"revoked".into(), &"rotated".into())
    );
    assert_eq!((&made["expires_at"], &made["replaces"]["replaced_by"]), (&Value::Null, &made["id"]));

    say(&folder, "token rotate b --grace 7d", &[]).refused(1, &["no created_at", "--expires"]);
    let made = say(&folder, "token rotate b --grace 7d --expires 30d --json", &[]).json();
    assert_eq!(moment(&made["replaces"]["expires_at"]), soon, "a grace does not lengthen a life");
}

#[test]
fn rename_changes_the_name_alone() {
    let folder = Folder::new();
    of_every_status(&folder);
    let before = folder.read("tokens.toml");
    let said = say(&folder, "token rename good … --json", &["the \"new\" laptop"]);
    assert_eq!(said.json()["name"], "the \"new\" laptop");
    let after = folder.read("tokens.toml");
    let changed: Vec<_> = before.lines().zip(after.lines()).filter(|(before, after)| before != after).collect();
    assert!(changed.len() == 1 && changed[0].0 == "name = \"laptop\"", "{changed:?}");
    say(&folder, "token rename good …", &["two\nlines"]).refused(2, &["control character"]);
    say(&folder, "token rename god x", &[]).refused(1, &["did you mean `good`?"]);
}
