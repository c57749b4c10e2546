//! The life of a token and of its user by command: what each one prints where, its exit code, and
//! what a running proxy makes of it.

mod edits;
mod import;
mod life;
mod listing;
mod users;
mod words;

use std::process::Output;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::harness::{Folder, Origin, Proxy, eventually};

/// SHA-256 of `abc`, the one-block test vector of FIPS 180-4.
const HASH_OF_ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const BCRYPT: &str = "$2b$10$./ABCDEFGHIJKLMNOPQRSeVWXYZabcdefghijklmnopqrstuvwxyu";

/// What a command printed, and its exit code.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.any_json()
    }

    fn any_json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// What it printed, if it went well.
    #[track_caller]
    fn went_well(&self) -> &str {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out.trim_end()
    }

    /// That it ended with this code, said all of this on standard error and nothing on standard output.
    #[track_caller]
    fn refused(&self, code: i32, words: &[&str]) {
        assert_eq!((self.code, self.out.as_str()), (Some(code), ""), "{self:?}");
        for word in words {
            assert!(self.err.contains(word), "{word:?} not in {self:?}");
        }
    }
}

/// Runs `patgate` with a command line of simple words; each `…` is the next of `words`.
fn say(folder: &Folder, line: &str, words: &[&str]) -> Said {
    say_with(folder, "", line, words)
}

fn say_with(folder: &Folder, input: &str, line: &str, words: &[&str]) -> Said {
    let mut words = words.iter();
    let arguments: Vec<&str> =
        line.split_whitespace().map(|word| if word == "…" { words.next().unwrap() } else { word }).collect();
    assert_eq!(words.next(), None, "more words than places");
    Said::of(if input.is_empty() { folder.run(&arguments) } else { folder.feed(input, &arguments) })
}

/// The tokens of the list by `token list --json`.
fn listed(folder: &Folder) -> Vec<Value> {
    say(folder, "token list --json", &[]).json().as_array().unwrap().clone()
}

fn token<'t>(tokens: &'t [Value], id: &str) -> &'t Value {
    tokens.iter().find(|token| token["id"] == id).unwrap_or_else(|| panic!("no {id} in {tokens:?}"))
}

fn moment(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

fn hours(hours: i64) -> SignedDuration {
    SignedDuration::from_hours(hours)
}

fn record(id: &str, user: &str, more: &str) -> String {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(format!("secret-of-{id}"));
    let hash = digest.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    format!("[[tokens]]\nid = \"{id}\"\nhash = \"sha256:{hash}\"\nuser = \"{user}\"\n{more}\n")
}

/// A token of every status, and one more that is active.
fn of_every_status(folder: &Folder) {
    let now = Timestamp::now();
    let at = |key: &str, hours_from_now| format!("{key} = {}\n", now + hours(hours_from_now));
    let records = [
        record(
            "good",
            "alice",
            &(at("created_at", -24 * 3) + &at("expires_at", 24 * 12) + "name = \"laptop\"\nscopes = [\"x\", \"y\"]"),
        ),
        record("endless", "alice", ""),
        record("expired", "alice", &at("expires_at", -24 * 3)),
        record("revoked", "alice", &(at("revoked_at", -1) + "revoked_reason = \"lost\"\nreplaced_by = \"good\"")),
        record("early", "alice", &at("not_before", 5)),
        record("denied", "alice", ""),
        record("asleep", "bob", ""),
        record("nobody", "carol", ""),
    ];
    let users = "[[users]]\nid = \"alice\"\nroles = [\"dev\"]\nemail = \"alice@example.com\"\n\
                 [[users]]\nid = \"bob\"\nstatus = \"suspended\"\n[roles.dev]\nscopes = [\"y\", \"z\"]\n";
    folder.write("tokens.toml", &(records.concat() + users));
    folder.write("denied.txt", "denied\n");
    folder.write("tokens.toml.last-used.json", &format!("{{\"good\":\"{}\"}}", now - hours(2)));
    folder.write("patgate.toml", "[tokens]\nfile = \"tokens.toml\"\ndeny_list = \"denied.txt\"\n");
}

// --- what the proxy makes of it -------------------------------------------------------------

fn status(proxy: &Proxy, token: &str) -> u16 {
    proxy.ask(&format!("GET /mcp HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n\r\n", proxy.address)).status
}

fn becomes(proxy: &Proxy, token: &str, expected: u16) {
    eventually(&format!("status {expected}"), || (status(proxy, token) == expected).then_some(()));
}

#[test]
fn a_running_proxy_obeys_every_command() {
    let origin = Origin::plain();
    let folder = Folder::new();
    say(&folder, "user add alice", &[]).went_well();
    say(&folder, "user add bob", &[]).went_well();
    let (lost, kept, dropped, bobs) =
        (folder.token("alice", &[]), folder.token("alice", &[]), folder.token("alice", &[]), folder.token("bob", &[]));
    let proxy = folder.serve(&origin.url(), "");
    for token in [&lost, &kept, &dropped, &bobs] {
        assert_eq!(status(&proxy, token), 200);
    }

    say(&folder, "token revoke …", &[&lost[8..18]]).went_well();
    becomes(&proxy, &lost, 401);

    let new = say(&folder, "token rotate …", &[&kept[8..18]]).went_well().to_owned();
    becomes(&proxy, &new, 200);
    assert_eq!(status(&proxy, &kept), 200, "the old one lives on for the grace");
    eventually("the record that tells that the old one is still used", || {
        let records = proxy.audit_so_far();
        let old = records.iter().filter(|record| record["pat_id"] == kept[8..18] && record["outcome"] == "allowed");
        (old.count() == 2).then_some(())
    });

    let new = say(&folder, "token rotate … --grace 0s", &[&dropped[8..18]]).went_well().to_owned();
    becomes(&proxy, &new, 200);
    assert_eq!(status(&proxy, &dropped), 401);

    say(&folder, "user suspend bob", &[]).went_well();
    becomes(&proxy, &bobs, 401);
    say(&folder, "user activate bob", &[]).went_well();
    becomes(&proxy, &bobs, 200);
    say(&folder, "user remove bob", &[]).went_well();
    becomes(&proxy, &bobs, 401);

    say_with(&folder, "jam_pat_0123456789\n", "token import --user alice --name jam --id jam", &[]).went_well();
    becomes(&proxy, "jam_pat_0123456789", 200);
    say(&folder, "token rename jam …", &["the jam"]).went_well();
    say(&folder, "token revoke jam", &[]).went_well();
    becomes(&proxy, "jam_pat_0123456789", 401);
}
