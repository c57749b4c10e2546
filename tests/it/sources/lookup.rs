//! One token at a time: what is asked, how often, and what is made of the answers.

use std::io::{self, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use patgate::token::TokenDigest;

use super::{Source, answer, asks, assert_unavailable, audited, list, ok, readiness, record, serve, status};
use crate::harness::{Folder, Keep, Origin, Proxy, Received, eventually, get, read_chunk};
use crate::revocation::{open, streaming, time_to_cut};
use crate::stage::Line;

type Known = &'static [(&'static str, &'static str)];

/// A source that knows these tokens, each with more members of its record.
fn knows(tokens: Known) -> impl Fn(&Received, &mut TcpStream) -> io::Result<Keep> + Send + Sync {
    move |received, stream| {
        let line = received.request_line();
        let known = tokens.iter().find(|(token, _)| line.contains(&hex(token)));
        let answer = match known {
            Some((token, more)) => ok(&list(&[record(token, token, more)])),
            None => answer("404 Not Found", "", "no such token"),
        };
        stream.write_all(answer.as_bytes()).map(|()| Keep::Open)
    }
}

fn hex(token: &str) -> String {
    TokenDigest::of(token).hex().to_string()
}

/// Starts the proxy with more settings of the look-up, each with a comma before it.
fn start(folder: &Folder, source: &Source, more: &str) -> (Proxy, Origin) {
    let upstream = Origin::plain();
    (start_before(folder, source, &upstream, more), upstream)
}

fn start_before(folder: &Folder, source: &Source, upstream: &Origin, more: &str) -> Proxy {
    folder.write("revoked.txt", "");
    let lookup = format!(
        "lookup = {{ url = \"{}/pats/{{sha256}}\"{more} }}\ndeny_list = \"revoked.txt\"\npoll = \"100ms\"",
        source.origin.url()
    );
    serve(folder, upstream, &lookup)
}

#[test]
fn a_token_is_asked_for_once_by_its_digest_and_by_nothing_else() {
    let source = Source::new(knows(&[("alices", r#","scopes":["mcp:read"]"#)]));
    let folder = Folder::new();
    let (proxy, upstream) = start(&folder, &source, "");
    assert_eq!(readiness(&proxy).status, 200);
    for _ in 0..5 {
        assert_eq!(status(&proxy, "alices"), 200);
    }
    let received = source.origin.received();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].request_line(), format!("GET /pats/{} HTTP/1.1", hex("alices")));
    assert_eq!(received[0].values("accept-encoding"), ["identity"]);
    assert!(!received[0].head.contains("alices") && received[0].values("authorization").is_empty());
    let passed = upstream.received();
    assert_eq!((passed.len(), passed[0].values("x-auth-user")), (5, vec!["alice"]));
    assert_eq!(passed[0].values("x-auth-scopes"), ["mcp:read"]);
}

#[test]
fn a_client_that_leaves_before_there_is_a_verdict_is_not_said_to_have_been_let_in() {
    let source = Source::new(|_, stream| {
        // until the proxy gives up
        io::copy(stream, &mut io::sink()).map(|_| Keep::Close)
    });
    let folder = Folder::new();
    let (proxy, upstream) = start(&folder, &source, "");
    let mut client = Line::to(&proxy.address);
    client.send(get("alices", ""));
    eventually("the question", || (source.asked() == 1).then_some(()));
    drop(client);
    let record = audited(&proxy, "not_judged");
    assert_eq!((&record["outcome"], &record["ended"]), (&"denied".into(), &"client_gone".into()));
    assert!(record.get("user").is_none() && upstream.received().is_empty());
}

#[test]
fn a_token_of_nobody_is_asked_for_once_too_until_the_answer_is_old() {
    let source = Source::new(knows(&[]));
    let folder = Folder::new();
    let (proxy, upstream) = start(&folder, &source, ", negative_ttl = \"3s\"");
    for _ in 0..5 {
        let refused = asks(&proxy, "alices");
        assert_eq!(refused.status, 401);
        assert!(refused.header("www-authenticate").unwrap().contains("invalid_token"));
    }
    assert_eq!(source.asked(), 1);
    assert!(upstream.received().is_empty());
    source.does(knows(&[("alices", "")]));
    eventually("the token", || (status(&proxy, "alices") == 200).then_some(()));
    assert_eq!(source.asked(), 2);
}

#[test]
fn an_answer_is_renewed_when_it_is_old() {
    let source = Source::new(knows(&[("alices", "")]));
    let folder = Folder::new();
    let (proxy, _upstream) = start(&folder, &source, ", ttl = \"2s\", negative_ttl = \"1h\"");
    assert_eq!(status(&proxy, "alices"), 200);
    source.does(knows(&[("alices", r#","revoked_at":"2026-01-01T00:00:00Z""#)]));
    eventually("the revocation", || (status(&proxy, "alices") == 401).then_some(()));
    assert_eq!(source.asked(), 2);
    assert_eq!(audited(&proxy, "revoked")["pat_id"], "alices");
}

#[test]
fn a_service_that_never_answered_makes_nobody_ready_and_is_found_without_anybodys_help() {
    let source = Source::new(|_, _| Ok(Keep::Close));
    let folder = Folder::new();
    let (proxy, _upstream) = start(&folder, &source, "");
    // nobody has asked for anything yet
    assert_eq!((readiness(&proxy).status, source.asked()), (200, 0));
    assert_unavailable(&asks(&proxy, "alices"));
    let ready = readiness(&proxy);
    assert!(ready.status == 503 && ready.body.contains("has not worked yet"), "{ready:?}");
    source.does(knows(&[("alices", "")]));
    eventually("an answer", || (readiness(&proxy).body == "ready\n").then_some(()));
    let asked = source.asked();
    thread::sleep(Duration::from_millis(1500));
    assert_eq!(source.asked(), asked, "nobody asks without need");
    assert_eq!(status(&proxy, "alices"), 200);
}

#[test]
fn a_kept_answer_does_not_outlive_the_token() {
    let source = Source::new(|_, _| Ok(Keep::Close));
    let end = jiff::Timestamp::now() + Duration::from_secs(5);
    source.answers(ok(&list(&[record("t1", "alices", &format!(r#","expires_at":"{end}""#))])));
    let folder = Folder::new();
    let (proxy, _upstream) = start(&folder, &source, ", ttl = \"1h\"");
    assert_eq!(status(&proxy, "alices"), 200);
    eventually("the end", || (status(&proxy, "alices") == 401).then_some(()));
    assert!(jiff::Timestamp::now() >= end);
    audited(&proxy, "expired");
}

#[test]
fn twenty_requests_at_once_are_one_question() {
    let source = Source::new(|_, _| Ok(Keep::Close));
    source.does(|received, stream| {
        thread::sleep(Duration::from_millis(700));
        knows(&[("alices", "")])(received, stream)
    });
    let folder = Folder::new();
    let (proxy, upstream) = start(&folder, &source, ", timeout = \"10s\"");
    thread::scope(|scope| {
        for token in ["alices", "nobodys"] {
            for _ in 0..20 {
                let proxy = &proxy;
                scope.spawn(move || assert_eq!(status(proxy, token), if token == "alices" { 200 } else { 401 }));
            }
        }
    });
    assert_eq!((source.asked(), upstream.received().len()), (2, 20));
}

#[test]
fn whatever_else_the_source_says_is_our_own_trouble() {
    let source = Source::new(|_, _| Ok(Keep::Close));
    let folder = Folder::new();
    let (proxy, upstream) = start(&folder, &source, ", timeout = \"700ms\"");
    let alices = record("t1", "alices", "");
    let bcrypt = format!(
        r#"{{"tokens":[{{"id":"t1","prefix":"alices_pat","user":"alice","hash":"{}"}}]}}"#,
        ::bcrypt::hash("alices", 4).unwrap()
    );
    for (trouble, script) in [
        ("answered with status 500", answer("500 Internal Server Error", "", "")),
        ("answered with status 401", answer("401 Unauthorized", "", "")),
        ("answered with status 304", answer("304 Not Modified", "", "")),
        ("answered with a redirect", answer("301 Moved Permanently", "location: /\r\n", "")),
        (
            "answered with a Content-Encoding",
            answer("200 OK", "content-encoding: br\r\n", &list(std::slice::from_ref(&alices))),
        ),
        ("answered with something else", ok(&list(&[record("t1", "bobs", "")]))),
        ("answered with something else", ok(&list(&[alices.clone(), record("t2", "bobs", "")]))),
        ("answered with something else", ok(&list(&[]))),
        ("answered with something else", ok(&bcrypt)),
        ("not JSON", ok("alice")),
        ("no list of tokens", ok("{}")),
        ("unknown key", ok(&alices)),
        ("answered with more than", "HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n".to_owned()),
        ("broke off", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{".to_owned()),
    ] {
        let close = trouble == "broke off";
        source.does(move |_, stream| {
            stream.write_all(script.as_bytes()).map(|()| if close { Keep::Close } else { Keep::Open })
        });
        assert_unavailable(&asks(&proxy, "alices"));
        let ready = readiness(&proxy);
        assert!(ready.status == 503 && ready.body.contains(trouble), "{trouble}: {ready:?}");
    }
    source.does(|_, _| {
        thread::sleep(Duration::from_secs(1));
        Ok(Keep::Close)
    });
    assert_unavailable(&asks(&proxy, "alices"));
    assert!(readiness(&proxy).body.contains("took longer than 700ms"));
    assert!(upstream.received().is_empty());

    // none of that was kept
    source.does(knows(&[("alices", "")]));
    assert_eq!(status(&proxy, "alices"), 200);
    assert_eq!(readiness(&proxy).body, "ready\n");
    // and what is known stays known; the log is told of changes no more than once in a second
    thread::sleep(Duration::from_millis(1100));
    source.does(|_, _| Ok(Keep::Close));
    assert_unavailable(&asks(&proxy, "bobs"));
    assert_eq!(status(&proxy, "alices"), 200);
    let ready = readiness(&proxy);
    assert!(ready.status == 200 && ready.body.contains("broke off"), "{ready:?}");
    let log = proxy.log();
    let told = |words: &str| log.iter().any(|entry| entry["message"].as_str().is_some_and(|it| it.ends_with(words)));
    assert!(told("trouble: nothing is known of tokens, and requests are answered with 503"), "{log:?}");
    assert!(told("trouble: the last good state stays in force"), "{log:?}");
}

#[test]
fn the_deny_list_stands_above_every_answer() {
    let source = Source::new(knows(&[("alices", ""), ("bobs", ""), ("carols", "")]));
    let folder = Folder::new();
    let (proxy, _upstream) = start(&folder, &source, ", ttl = \"1h\"");
    for token in ["alices", "bobs", "carols"] {
        assert_eq!(status(&proxy, token), 200);
    }
    folder.write("revoked.txt", &format!("alices\n{}\n", TokenDigest::of("bobs")));
    eventually("the revocation", || (status(&proxy, "alices") == 401).then_some(()));
    assert_eq!((status(&proxy, "bobs"), status(&proxy, "carols")), (401, 200));
}

#[test]
fn what_is_no_token_of_ours_is_asked_of_nobody() {
    let source = Source::new(knows(&[]));
    let folder = Folder::new();
    let (proxy, _upstream) = start(&folder, &source, "");
    assert_eq!(status(&proxy, "mcp_pat_k3V9mQ2xTa_0123456789ABCDEFGHIJKLMNOPQRSTUV000000"), 401);
    assert_eq!(source.asked(), 0);
    audited(&proxy, "bad_checksum");
}

#[test]
fn a_flood_of_guesses_reaches_the_source_by_few_connections() {
    let source = Source::new(knows(&[("alices", "")]));
    let folder = Folder::new();
    let (proxy, _upstream) = start(&folder, &source, ", parallel = 4, timeout = \"20s\"");
    thread::scope(|scope| {
        for worker in 0..20 {
            let proxy = &proxy;
            scope.spawn(move || {
                for guess in 0..20 {
                    assert_eq!(status(proxy, &format!("guess-{worker}-{guess}")), 401);
                }
            });
        }
    });
    assert_eq!(status(&proxy, "alices"), 200);
    let received = source.origin.received();
    assert_eq!(received.len(), 401);
    let connections = received.iter().map(|request| request.connection).max().unwrap() + 1;
    assert!(connections <= 40, "{connections} connections for 401 questions, four at a time");
}

#[test]
fn an_open_stream_ends_when_the_source_says_no_more_of_its_token_what_it_said() {
    let ttl = Duration::from_secs(2);
    let before: Known = &[("alices", r#","scopes":["a","b"]"#), ("bobs", "")];
    for (change, expected) in [
        (knows(&[("bobs", "")]), "revoked"),
        (knows(&[("alices", r#","scopes":["a","b"],"revoked_at":"2026-01-01T00:00:00Z""#), ("bobs", "")]), "revoked"),
        (knows(&[("alices", r#","scopes":["a"]"#), ("bobs", "")]), "revoked"),
        (knows(&[("alices", r#","scopes":["a","b"],"expires_at":"2026-01-01T00:00:00Z""#), ("bobs", "")]), "expired"),
    ] {
        let source = Source::new(knows(before));
        let folder = Folder::new();
        let upstream = streaming();
        let proxy = start_before(&folder, &source, &upstream, ", ttl = \"2s\"");
        let asked = Instant::now();
        let (alice, mut bob) = (open(&proxy, "alices"), open(&proxy, "bobs"));
        source.does(change);
        time_to_cut(alice);
        assert!(asked.elapsed() < ttl + Duration::from_secs(1), "{:?}", asked.elapsed());
        assert_eq!(proxy.audit(1)[0]["ended"], expected);
        bob.get_ref().set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        assert_eq!(read_chunk(&mut bob).unwrap_err().kind(), io::ErrorKind::WouldBlock, "bob's stream must be open");
    }
}

#[test]
fn a_token_is_asked_for_again_once_however_many_streams_it_has() {
    let source = Source::new(knows(&[("alices", "")]));
    let folder = Folder::new();
    let upstream = streaming();
    let proxy = start_before(&folder, &source, &upstream, ", ttl = \"1s\"");
    let started = Instant::now();
    let streams: Vec<_> = (0..20).map(|_| open(&proxy, "alices")).collect();
    eventually("four questions", || (source.asked() >= 4).then_some(()));
    assert!(started.elapsed() > Duration::from_secs(3), "asked too often: {:?}", started.elapsed());
    assert_eq!(upstream.closed().len(), 0);
    drop(streams);
}

#[test]
fn an_outage_of_the_source_ends_no_stream() {
    let source = Source::new(knows(&[("alices", "")]));
    let folder = Folder::new();
    let upstream = streaming();
    let proxy = start_before(&folder, &source, &upstream, ", ttl = \"1s\", timeout = \"500ms\"");
    let mut stream = open(&proxy, "alices");
    source.does(|_, _| Ok(Keep::Close));
    let asked = source.asked();
    eventually("questions in vain", || (source.asked() >= asked + 2).then_some(()));
    stream.get_ref().set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert_eq!(read_chunk(&mut stream).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    // what the source says when it is back counts
    source.does(knows(&[]));
    stream.get_ref().set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    time_to_cut(stream);
}
