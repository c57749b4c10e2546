//! A whole list over HTTP: whatever the source does, nobody is let in by mistake and nobody is told
//! that his token is bad when only the source is.

use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{Source, answer, asks, assert_unavailable, audited, list, ok, readiness, record, serve, status};
use crate::harness::{Folder, Keep, Origin, Proxy, Received, eventually};

/// The settings of a list that is asked for all the time and stays good for `max_stale`.
fn http(source: &Source, max_stale: &str) -> String {
    format!(
        "http = {{ url = \"{}/pats.json\", refresh = \"50ms\", timeout = \"700ms\", max_stale = \"{max_stale}\", \
         max_size = \"64KiB\" }}",
        source.origin.url()
    )
}

fn alices() -> String {
    list(&[record("t1", "alices", "")])
}

fn await_readiness(proxy: &Proxy, text: &str) {
    eventually(text, || readiness(proxy).body.contains(text).then_some(()));
}

/// How many lists have come into force.
fn generations(proxy: &Proxy) -> usize {
    proxy.log().iter().filter(|entry| entry["message"] == "the token list is in force").count()
}

/// A list that is sent only to those who do not have it yet.
fn unless_known(
    body: String,
    etag: &'static str,
) -> impl Fn(&Received, &mut TcpStream) -> io::Result<Keep> + Send + Sync {
    move |received, stream| {
        let known = received.values("if-none-match") == [etag];
        let answer = if known {
            format!("HTTP/1.1 304 Not Modified\r\netag: {etag}\r\n\r\n")
        } else {
            answer("200 OK", &format!("etag: {etag}\r\n"), &body)
        };
        stream.write_all(answer.as_bytes()).map(|()| Keep::Open)
    }
}

type Fault = fn(&mut TcpStream) -> io::Result<Keep>;

#[test]
fn whatever_the_source_does_the_last_good_list_stays_in_force() {
    let upstream = Origin::plain();
    let elsewhere = Origin::plain();
    let source = Source::new(|_, _| Ok(Keep::Close));
    source.answers(ok(&alices()));
    let folder = Folder::new();
    let proxy = serve(&folder, &upstream, &http(&source, "1h"));
    await_readiness(&proxy, "ready\n");

    let redirect = answer("302 Found", &format!("location: {}/evil.json\r\n", elsewhere.url()), "");
    let large = list(&[record("t1", "alices", &format!(r#","name":"{}""#, "x".repeat(70_000)))]);
    let other = list(&[record("t2", "bobs", "")]);
    let encoded = answer("200 OK", "content-encoding: gzip\r\n", &other);
    for (trouble, script) in [
        ("answered with status 500", answer("500 Internal Server Error", "", &other)),
        ("answered with status 404", answer("404 Not Found", "", &other)),
        ("answered with status 203", answer("203 Non-Authoritative Information", "", &other)),
        ("answered with a redirect", redirect),
        ("answered with a Content-Encoding", encoded),
        ("answered with more than 65536 bytes", ok(&large)),
        ("answered with more than 65536 bytes", "HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n{".to_owned()),
        ("not JSON", ok(&other[..other.len() - 1])),
        ("not JSON", ok("<html>It works</html>")),
        ("not JSON", ok("")),
        ("not a JSON object", ok("[]")),
        ("no list of tokens", ok("{}")),
        ("error: unknown key", ok(r#"{"tokens":[],"error":"down"}"#)),
        ("tokens[0].user: missing", ok(r#"{"tokens":[{"id":"t2","hash":"x"}]}"#)),
        ("the list has become empty", ok(r#"{"tokens":[]}"#)),
        ("broke off", "this is not HTTP\r\n\r\n".to_owned()),
    ] {
        source.answers(script);
        await_readiness(&proxy, trouble);
        assert_eq!(readiness(&proxy).status, 200, "{trouble}");
        assert_eq!((status(&proxy, "alices"), status(&proxy, "bobs")), (200, 401), "{trouble}");
        source.answers(ok(&alices()));
        await_readiness(&proxy, "ready\n");
    }
    let faults: [(&str, Fault); 4] = [
        ("took longer than 700ms", |_| {
            thread::sleep(Duration::from_millis(900));
            Ok(Keep::Close)
        }),
        ("broke off", |stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"tokens\":[]}").map(|()| Keep::Close)
        }),
        ("broke off", |_| Ok(Keep::Close)),
        // a body that never ends, with no length to be warned by
        ("answered with more than 65536 bytes", |stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
            loop {
                stream.write_all(format!("400\r\n{}\r\n", " ".repeat(1024)).as_bytes())?;
            }
        }),
    ];
    for (trouble, script) in faults {
        source.does(move |_, stream| script(stream));
        await_readiness(&proxy, trouble);
        assert_eq!((status(&proxy, "alices"), status(&proxy, "bobs")), (200, 401), "{trouble}");
        source.answers(ok(&alices()));
        await_readiness(&proxy, "ready\n");
    }

    assert!(elsewhere.received().is_empty(), "a redirect was followed");
    assert_eq!(generations(&proxy), 1, "the list never changed");
    source.answers(ok(&other));
    eventually("the other list", || (status(&proxy, "bobs") == 200).then_some(()));
    assert_eq!(status(&proxy, "alices"), 401);
}

#[test]
fn what_is_asked_and_how() {
    let upstream = Origin::plain();
    let source = Source::new(|_, _| Ok(Keep::Close));
    source.does(unless_known(alices(), "\"1\""));
    let folder = Folder::new();
    let proxy = serve(&folder, &upstream, &http(&source, "1h"));
    eventually("several requests", || (source.asked() > 5).then_some(()));
    let received = source.origin.received();
    for (index, request) in received.iter().enumerate() {
        assert_eq!(request.request_line(), "GET /pats.json HTTP/1.1");
        assert_eq!(request.values("host"), [source.origin.address.as_str()]);
        assert_eq!(request.values("accept-encoding"), ["identity"]);
        assert!(request.values("authorization").is_empty());
        let known: &[&str] = if index == 0 { &[] } else { &["\"1\""] };
        assert_eq!(request.values("if-none-match"), known);
    }
    assert_eq!(received.last().unwrap().connection, 0, "one connection is enough");
    assert_eq!((status(&proxy, "alices"), generations(&proxy)), (200, 1));

    source.does(unless_known(list(&[record("t2", "bobs", "")]), "\"2\""));
    eventually("the new list", || (status(&proxy, "bobs") == 200).then_some(()));
    assert_eq!((status(&proxy, "alices"), generations(&proxy)), (401, 2));
}

#[test]
fn a_source_that_is_down_at_the_start_is_waited_for() {
    let upstream = Origin::plain();
    let source = Source::new(|_, _| Ok(Keep::Close));
    let folder = Folder::new();
    let proxy = serve(&folder, &upstream, &http(&source, "1h"));
    for token in ["alices", "bobs"] {
        assert_unavailable(&asks(&proxy, token));
    }
    assert_eq!(proxy.ask(&format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", proxy.address)).status, 401);
    let before = eventually("the reason", || Some(readiness(&proxy)).filter(|ready| ready.body.contains("broke off")));
    assert_eq!(before.status, 503);
    assert!(upstream.received().is_empty());

    source.answers(ok(&alices()));
    await_readiness(&proxy, "ready\n");
    assert_eq!(readiness(&proxy).status, 200);
    assert_eq!((status(&proxy, "alices"), status(&proxy, "bobs")), (200, 401));
    assert_eq!(audited(&proxy, "source_unavailable")["outcome"], "error");
}

#[test]
fn a_list_that_is_too_old_lets_nobody_in_and_refuses_nobody() {
    let upstream = Origin::plain();
    let source = Source::new(|_, _| Ok(Keep::Close));
    // the list is the same before and after the outage, and so is its validator
    let both = list(&[record("t1", "alices", ""), record("t2", "bobs", "")]);
    source.does(unless_known(both.clone(), "\"1\""));
    let folder = Folder::new();
    folder.write("revoked.txt", "");
    let proxy =
        serve(&folder, &upstream, &format!("{}\ndeny_list = \"revoked.txt\"\npoll = \"100ms\"", http(&source, "3s")));
    await_readiness(&proxy, "ready\n");

    source.answers(answer("500 Internal Server Error", "", ""));
    let failed = Instant::now();
    await_readiness(&proxy, "answered with status 500");
    assert_eq!((status(&proxy, "alices"), status(&proxy, "carols")), (200, 401));
    let answer =
        eventually("the end of the list", || Some(asks(&proxy, "alices")).filter(|answer| answer.status != 200));
    assert_unavailable(&answer);
    assert!(failed.elapsed() > Duration::from_secs(2), "the last good list has to last for max_stale");
    assert_unavailable(&asks(&proxy, "carols"));
    let ready = readiness(&proxy);
    assert!(ready.status == 503 && ready.body.contains("answered with status 500"), "{ready:?}");

    // what is denied is known even now
    let denied =
        || proxy.health("/metrics").body.contains("patgate_reloads_total{list=\"deny_list\",result=\"success\"} 2");
    folder.write("revoked.txt", "t1\n");
    eventually("the new deny list", || denied().then_some(()));
    source.does(unless_known(both, "\"1\""));
    eventually("recovery", || (status(&proxy, "bobs") == 200).then_some(()));
    assert_eq!((status(&proxy, "alices"), status(&proxy, "carols")), (401, 401));
    assert_eq!(readiness(&proxy).body, "ready\n");
}

#[test]
fn the_deny_list_works_while_the_source_is_down() {
    let upstream = Origin::plain();
    let source = Source::new(|_, _| Ok(Keep::Close));
    source.answers(ok(&list(&[record("t1", "alices", ""), record("t2", "bobs", "")])));
    let folder = Folder::new();
    folder.write("revoked.txt", "");
    let proxy =
        serve(&folder, &upstream, &format!("{}\ndeny_list = \"revoked.txt\"\npoll = \"100ms\"", http(&source, "1h")));
    await_readiness(&proxy, "ready\n");
    source.does(|_, _| Ok(Keep::Close));
    await_readiness(&proxy, "broke off");
    assert_eq!((status(&proxy, "alices"), status(&proxy, "bobs")), (200, 200));
    folder.write("revoked.txt", "t1\n");
    eventually("the revocation", || (status(&proxy, "alices") == 401).then_some(()));
    assert_eq!(status(&proxy, "bobs"), 200);
}

#[test]
fn a_source_that_forgets_to_change_its_validator_is_read_in_full_now_and_then() {
    let upstream = Origin::plain();
    let source = Source::new(|_, _| Ok(Keep::Close));
    source.does(unless_known(alices(), "\"1\""));
    let folder = Folder::new();
    let proxy = serve(&folder, &upstream, &http(&source, "1s"));
    await_readiness(&proxy, "ready\n");
    source.does(unless_known(list(&[record("t2", "bobs", "")]), "\"1\""));
    eventually("the new list", || (status(&proxy, "bobs") == 200).then_some(()));
    assert_eq!(status(&proxy, "alices"), 401);
}

#[test]
fn the_bearer_token_for_the_source_comes_from_a_file_and_goes_nowhere_else() {
    let upstream = Origin::plain();
    let source = Source::new(|_, _| Ok(Keep::Close));
    source.does(|received, stream| {
        let answer = match received.values("authorization")[..] {
            ["Bearer hunter2"] => ok(&alices()),
            ["Bearer hunter3"] => ok(&list(&[record("t2", "bobs", "")])),
            _ => answer("401 Unauthorized", "", ""),
        };
        stream.write_all(answer.as_bytes()).map(|()| Keep::Open)
    });
    let folder = Folder::new();
    let tokens = http(&source, "1h").replace("max_size", "bearer_file = \"bearer\", max_size");
    let mut proxy = serve(&folder, &upstream, &tokens);
    await_readiness(&proxy, "the bearer token in");
    proxy.await_log("the token source cannot be asked yet");
    assert_unavailable(&asks(&proxy, "alices"));
    folder.write("bearer", "hunter1\nand more");
    assert_unavailable(&asks(&proxy, "alices"));
    folder.write("bearer", "hunter2\n");
    await_readiness(&proxy, "ready\n");
    assert_eq!(status(&proxy, "alices"), 200);
    folder.write("bearer", "hunter3");
    eventually("the new bearer token", || (status(&proxy, "bobs") == 200).then_some(()));
    folder.write("bearer", "hunter4\nand more");
    await_readiness(&proxy, "the bearer token in");
    folder.write("bearer", "hunter5");
    await_readiness(&proxy, "answered with status 401");
    assert_eq!(status(&proxy, "bobs"), 200, "the source's 401 is not the client's");
    let told = format!("{:?}{}", proxy.log(), folder.read("audit.jsonl"));
    assert!(!told.contains("hunter"), "{told}");
}

#[test]
fn a_trouble_that_lasts_is_told_once() {
    let upstream = Origin::plain();
    let source = Source::new(|_, _| Ok(Keep::Close));
    source.answers(answer("500 Internal Server Error", "", ""));
    let folder = Folder::new();
    let proxy = serve(&folder, &upstream, &http(&source, "1h"));
    eventually("many failures", || (source.asked() > 20).then_some(()));
    source.answers(ok(&alices()));
    await_readiness(&proxy, "ready\n");
    let told = proxy.log().iter().filter(|entry| entry["level"] == "ERROR").count();
    assert_eq!(told, 1, "{:?}", proxy.log());
}

#[test]
fn the_url_of_a_list_can_be_named_on_the_command_line() {
    let upstream = Origin::plain();
    let source = Source::new(|_, _| Ok(Keep::Close));
    source.answers(ok(&alices()));
    let folder = Folder::new();
    let url = format!("{}/pats.json", source.origin.url());
    let arguments =
        ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--upstream", &upstream.url(), "--tokens", &url];
    let proxy = Proxy::start(folder.path("").as_path(), &arguments);
    eventually("the list", || (status(&proxy, "alices") == 200).then_some(()));

    let checked = folder.run(&["check", "--upstream", &upstream.url(), "--tokens", &url]);
    let asked = source.asked();
    assert!(checked.status.success() && String::from_utf8_lossy(&checked.stdout).contains(&url), "{checked:?}");
    assert_eq!(source.asked(), asked, "a check asks nobody");
    let created = folder.run(&["token", "create", "--user", "alice", "--name", "x", "--tokens", &url]);
    assert_eq!(created.status.code(), Some(2), "{created:?}");
}

#[test]
fn requests_do_not_wait_for_the_source() {
    let upstream = Origin::plain();
    let source = Source::new(|_, _| Ok(Keep::Close));
    source.answers(ok(&alices()));
    let folder = Folder::new();
    let proxy = serve(&folder, &upstream, &http(&source, "1h").replace("700ms", "30s"));
    await_readiness(&proxy, "ready\n");
    let hanging = Arc::new(AtomicUsize::new(0));
    let hangs = Arc::clone(&hanging);
    source.does(move |_, _| {
        hangs.fetch_add(1, Ordering::Relaxed);
        thread::sleep(Duration::from_secs(30));
        Ok(Keep::Close)
    });
    eventually("the source to hang", || (hanging.load(Ordering::Relaxed) > 0).then_some(()));
    let started = Instant::now();
    for _ in 0..20 {
        assert_eq!(status(&proxy, "alices"), 200);
    }
    assert!(started.elapsed() < Duration::from_secs(5));
}
