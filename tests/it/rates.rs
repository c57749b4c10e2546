//! How often: limits on the calls of a token and of a user, and what a caller past them is told.

use crate::harness::{Answer, Folder, Origin, Proxy, eventually, get, post};

/// A proxy with these limits, with two tokens of alice's and one of bob's.
fn limited(rate: &str) -> (Proxy, Origin, [String; 3], Folder) {
    let (origin, folder) = (Origin::plain(), Folder::new());
    let tokens = ["alice", "alice", "bob"].map(|user| folder.token(user, &[]));
    // with two workers, a limit that each had for itself would let twice as much pass
    let proxy = folder.serve(&origin.url(), &format!("workers = 2\n[rate]\n{rate}"));
    (proxy, origin, tokens, folder)
}

fn assert_limited(answer: &Answer, seconds: std::ops::RangeInclusive<u64>) {
    assert_eq!(answer.status, 429, "{answer:?}");
    let wait: u64 = answer.header("retry-after").expect("the time to wait").parse().unwrap();
    assert!(seconds.contains(&wait), "{wait} s");
    let body = answer.json();
    assert!(body["id"].is_null() && body["jsonrpc"] == "2.0", "{body}");
    assert!(body["error"]["message"].as_str().unwrap().ends_with(&format!("try again in {wait} s")), "{body}");
    assert_eq!(answer.header("www-authenticate"), None);
}

#[test]
fn a_token_that_calls_too_often_is_told_when_to_come_again_and_no_other_is() {
    let (proxy, origin, [laptop, desktop, bob], _folder) = limited("per_token = 3");
    for _ in 0..3 {
        assert_eq!(proxy.ask(&post(&laptop, "{}")).status, 200);
    }
    for _ in 0..5 {
        let refused = proxy.ask(&post(&laptop, "{}"));
        assert_limited(&refused, 15..=20);
        let record = proxy.record_of(&refused);
        assert_eq!(
            (&record["outcome"], &record["reason"], &record["status"], &record["user"]),
            (&"denied".into(), &"rate_limited".into(), &429.into(), &"alice".into())
        );
    }
    assert_eq!(proxy.ask(&post(&desktop, "{}")).status, 200);
    assert_eq!(proxy.ask(&post(&bob, "{}")).status, 200);
    assert_eq!(origin.received().len(), 5);
}

#[test]
fn a_user_has_one_allowance_however_many_tokens_she_has() {
    let (proxy, origin, [laptop, desktop, bob], _folder) = limited("per_token = 2\nper_user = 3");
    let ask = |token: &str| proxy.ask(&post(token, "{}"));
    assert_eq!([&laptop, &laptop].map(|token| ask(token).status), [200, 200]);
    // what the token's own limit refuses is not held against the user
    assert_limited(&ask(&laptop), 1..=30);
    assert_eq!(ask(&desktop).status, 200);
    let refused = ask(&desktop);
    assert_limited(&refused, 1..=20);
    // and the other way round
    for refused in [refused, ask(&desktop), ask(&desktop)] {
        assert!(refused.body.contains("of this user"), "{refused:?}");
    }
    assert_eq!(ask(&bob).status, 200);
    assert_eq!(origin.received().len(), 4);
}

#[test]
fn whatever_would_be_forwarded_counts_and_nothing_else_does() {
    let (proxy, origin, [laptop, ..], _folder) = limited("per_token = 3");
    let foreign = get(&laptop, "Origin: https://evil.example\r\n");
    let nobody = get("nobodys-token", "");
    let huge = post(&laptop, "{}").replace("Content-Length: 2", "Content-Length: 999999999");
    for (request, status) in [(&foreign, 403), (&nobody, 401), (&huge, 413)] {
        for _ in 0..5 {
            assert_eq!(proxy.ask(request).status, status);
        }
    }
    for method in ["GET", "POST", "DELETE"] {
        assert_eq!(proxy.ask(&get(&laptop, "").replacen("GET", method, 1)).status, 200, "{method}");
    }
    for method in ["GET", "POST", "DELETE", "PUT"] {
        assert_limited(&proxy.ask(&get(&laptop, "").replacen("GET", method, 1)), 1..=20);
    }
    assert_eq!(origin.received().len(), 3);
}

#[test]
fn the_wait_that_was_told_is_enough() {
    let (proxy, _origin, [laptop, ..], _folder) = limited("per_token = 120\nburst = 1");
    assert_eq!(proxy.ask(&post(&laptop, "{}")).status, 200);
    // half a second, rounded up
    assert_limited(&proxy.ask(&post(&laptop, "{}")), 1..=1);
    eventually("room for another call", || (proxy.ask(&post(&laptop, "{}")).status == 200).then_some(()));
    assert_limited(&proxy.ask(&post(&laptop, "{}")), 1..=1);
}

#[test]
fn a_reload_forgives_nothing() {
    let (proxy, _origin, [laptop, ..], folder) = limited("per_token = 1\nper_user = 10");
    assert_eq!(proxy.ask(&post(&laptop, "{}")).status, 200);
    let carol = folder.token("carol", &[]);
    eventually("the new list", || (proxy.ask(&post(&carol, "{}")).status == 200).then_some(()));
    assert_limited(&proxy.ask(&post(&laptop, "{}")), 1..=60);
}
