//! Tokens of an older system, kept as bcrypt hashes.

use std::io::{BufReader, Write};
use std::thread;
use std::time::{Duration, Instant};

use ::bcrypt::{Version, hash_with_salt};
use patgate::token::TokenDigest;

use super::{asks, assert_unavailable, audited, serve, status};
use crate::harness::{Folder, Origin, Proxy, connect, eventually, read_answer};

fn record(id: &str, hash: &str, prefix: &str) -> String {
    format!("[[tokens]]\nid = \"{id}\"\nhash = \"{hash}\"\nprefix = \"{prefix}\"\nuser = \"{id}\"\n")
}

fn hash(token: &str, cost: u32, version: Version) -> String {
    hash_with_salt(token, cost, [7; 16]).unwrap().format_for_version(version)
}

fn start(folder: &Folder, upstream: &Origin, tokens: &str) -> Proxy {
    folder.write("tokens.toml", tokens);
    serve(folder, upstream, "file = \"tokens.toml\"\npoll = \"100ms\"")
}

#[test]
fn hashes_of_every_age_open_for_their_token_and_for_no_other() {
    let upstream = Origin::plain();
    let folder = Folder::new();
    let (a, b, y) = ("legacy_pat_of_the_first", "legacy_pat_of_the_second", "legacy_pat_of_the_third");
    let tokens = [("a", a, Version::TwoA), ("b", b, Version::TwoB), ("y", y, Version::TwoY)]
        .map(|(id, token, version)| record(id, &hash(token, 4, version), "legacy_pat"));
    let proxy = start(&folder, &upstream, &tokens.concat());
    for (user, token) in [("a", a), ("b", b), ("y", y), ("a", a)] {
        assert_eq!(status(&proxy, token), 200, "{token}");
        assert_eq!(upstream.received().last().unwrap().values("x-auth-user"), [user]);
    }
    for token in ["legacy_pat_of_nobody", "legacy_pat", "legacy_pat_of_the_first_", "LEGACY_PAT_OF_THE_FIRST", "other"]
    {
        assert_eq!(status(&proxy, token), 401, "{token}");
    }
    assert_eq!(upstream.received().len(), 4);
}

#[test]
fn a_token_past_what_bcrypt_reads_never_matches() {
    let upstream = Origin::plain();
    let folder = Folder::new();
    // bcrypt itself takes all of these for the same
    let read = format!("legacy_pat{}", "a".repeat(62));
    assert!(::bcrypt::verify(format!("{read}b"), &hash(&read, 4, Version::TwoB)).unwrap());
    let fits = format!("elder_pat_{}", "a".repeat(61));
    let tokens = [
        record("long", &hash(&read, 4, Version::TwoB), "legacy_pat"),
        record("fits", &hash(&fits, 4, Version::TwoB), "elder_pat_"),
    ];
    let proxy = start(&folder, &upstream, &tokens.concat());
    assert_eq!(status(&proxy, &fits), 200);
    for ending in ["", "b", "c", "bc"] {
        assert_eq!(status(&proxy, &format!("{read}{ending}")), 401, "{ending:?}");
    }
    assert_eq!(upstream.received().len(), 1);
}

#[test]
fn a_token_is_tried_once() {
    let upstream = Origin::plain();
    let folder = Folder::new();
    let tokens = record("alice", &hash("legacy_pat_1", 13, Version::TwoB), "legacy_pat");
    let proxy = start(&folder, &upstream, &tokens);
    let time = |times: u32, token: &str, expected: u16| {
        let started = Instant::now();
        (0..times).for_each(|_| assert_eq!(status(&proxy, token), expected));
        started.elapsed()
    };
    for (token, expected) in [("legacy_pat_1", 200), ("legacy_pat_2", 401)] {
        let first = time(1, token, expected);
        let later = time(100, token, expected);
        assert!(later < first * 20, "100 times took {later:?}, the first time {first:?}");
    }
    // another list with the same record does not make it forgotten
    folder.write(
        "tokens.toml",
        &format!("{tokens}[[tokens]]\nid = \"bob\"\nhash = \"{}\"\nuser = \"bob\"\n", TokenDigest::of("bobs")),
    );
    eventually("the new list", || (status(&proxy, "bobs") == 200).then_some(()));
    let (known, unknown) = (time(10, "legacy_pat_1", 200), time(1, "legacy_pat_3", 401));
    assert!(known < unknown * 5, "ten times took {known:?}, a trial takes {unknown:?}");
}

#[test]
fn a_revoked_record_is_dead_although_its_verdict_is_known() {
    let upstream = Origin::plain();
    let folder = Folder::new();
    let tokens = record("alice", &hash("legacy_pat_1", 4, Version::TwoB), "legacy_pat");
    let proxy = start(&folder, &upstream, &tokens);
    assert_eq!(status(&proxy, "legacy_pat_1"), 200);
    folder.write("tokens.toml", &format!("{tokens}revoked_at = 2026-01-01T00:00:00Z\n"));
    eventually("the revocation", || (status(&proxy, "legacy_pat_1") == 401).then_some(()));
    audited(&proxy, "revoked");
    folder.write("tokens.toml", &record("bob", &hash("legacy_pat_2", 4, Version::TwoB), "legacy_pat"));
    eventually("the other record", || (status(&proxy, "legacy_pat_2") == 200).then_some(()));
    assert_eq!(status(&proxy, "legacy_pat_1"), 401);
}

#[test]
fn a_list_that_changes_while_a_token_is_tried_is_the_one_that_counts() {
    let upstream = Origin::plain();
    let folder = Folder::new();
    let tokens = record("alice", &hash("legacy_pat_1", 14, Version::TwoB), "legacy_pat");
    let proxy = start(&folder, &upstream, &tokens);
    thread::scope(|scope| {
        // three trials in a row take seconds; the token's own is the last of them
        for guess in ["legacy_pat_2", "legacy_pat_3"] {
            let proxy = &proxy;
            scope.spawn(move || asks(proxy, guess).status);
        }
        thread::sleep(Duration::from_millis(100));
        let trial = scope.spawn(|| status(&proxy, "legacy_pat_1"));
        thread::sleep(Duration::from_millis(100));
        folder.write("tokens.toml", &format!("{tokens}revoked_at = 2026-01-01T00:00:00Z\n"));
        assert_eq!(trial.join().unwrap(), 401);
    });
    assert!(upstream.received().is_empty());
}

#[test]
fn a_flood_of_guesses_is_not_felt_by_other_tokens() {
    let upstream = Origin::plain();
    let folder = Folder::new();
    let sha = format!("[[tokens]]\nid = \"bob\"\nhash = \"{}\"\nuser = \"bob\"\n", TokenDigest::of("bobs"));
    let bcrypt = record("alice", &hash("legacy_pat_1", 10, Version::TwoB), "legacy_pat");
    let proxy = start(&folder, &upstream, &format!("{sha}{bcrypt}"));
    assert_eq!(status(&proxy, "legacy_pat_1"), 200);
    let mut stream = BufReader::new(connect(&proxy.address));
    thread::scope(|scope| {
        let guesses: Vec<_> = (0..200)
            .map(|guess| {
                let proxy = &proxy;
                scope.spawn(move || asks(proxy, &format!("legacy_pat_guess_{guess}")))
            })
            .collect();
        let mut worst = Duration::ZERO;
        for token in ["bobs", "legacy_pat_1"].into_iter().cycle().take(60) {
            let started = Instant::now();
            let head = format!("Host: {}\r\nAuthorization: Bearer {token}\r\n", proxy.address);
            stream.get_mut().write_all(format!("GET /mcp HTTP/1.1\r\n{head}\r\n").as_bytes()).unwrap();
            assert_eq!(read_answer(&mut stream).status, 200);
            worst = worst.max(started.elapsed());
        }
        assert!(guesses.iter().any(|guess| !guess.is_finished()), "the flood was over too soon to tell");
        // all trials together take far longer
        assert!(worst < Duration::from_secs(2), "{worst:?}");
        let mut turned_away = 0;
        for guess in guesses {
            let answer = guess.join().unwrap();
            if answer.status != 401 {
                assert_unavailable(&answer);
                turned_away += 1;
            }
        }
        assert!(turned_away > 50, "only so many may wait, and {turned_away} were turned away");
    });
    assert_eq!(status(&proxy, "legacy_pat_1"), 200);
}
