//! An upstream that is away, breaks off, is silent or is malicious: a clear answer, each request sent once
//! at most, and no restart needed when it is well again.

use std::io::{BufRead, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::harness::{Folder, Keep, Origin, Proxy, eventually, get, post, read_body};
use crate::stage::{Line, Stage, staged};

fn started(origin: &Origin, more: &str) -> (Folder, String, Proxy) {
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), more);
    (folder, token, proxy)
}

// --- Away, and back -------------------------------------------------------------------------

#[test]
fn an_upstream_that_was_away_is_found_again_without_a_restart() {
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let proxy = folder.serve(&format!("http://{address}"), "");
    let refused = proxy.ask(&post(&token, "{}"));
    assert_eq!((refused.status, &proxy.record_of(&refused)["reason"]), (502, &"upstream_unreachable".into()));
    assert!(refused.json()["error"]["message"].as_str().unwrap().contains("cannot be reached"));
    assert_eq!(proxy.health("/readyz").status, 200, "nobody asked for more");

    let listener = eventually("the port", || TcpListener::bind(address).ok());
    let mut client = Line::to(&proxy.address);
    client.send(post(&token, "{}"));
    let mut upstream = Line::new(listener.accept().unwrap().0);
    upstream.request();
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(client.answer().status, 200);
}

#[test]
fn a_post_whose_bytes_may_have_left_is_never_sent_again() {
    // it takes a request in and then does the worst that it can
    for end in ["", "HTTP/1.1 ", "HTTP/1.1 200 OK\r\ncontent-le"] {
        let origin = Origin::scripted(move |_, stream| {
            stream.write_all(end.as_bytes())?;
            Ok(Keep::Close)
        });
        let (_folder, token, proxy) = started(&origin, "workers = 1");
        for round in 1..=5 {
            let answer = proxy.ask(&post(&token, "{}"));
            assert_eq!(answer.status, 502, "{end:?}");
            assert_eq!(origin.received().len(), round, "each one arrived once");
        }
    }
}

#[test]
fn a_post_by_a_connection_that_was_used_before_is_not_sent_again_either() {
    let (origin, _folder, token, proxy) = staged("workers = 1\n[timeouts]\nupstream_idle = \"1h\"");
    let mut client = Line::to(&proxy.address);
    client.send(post(&token, "{}"));
    let mut upstream = origin.accept();
    upstream.request();
    upstream.bytes(2);
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(client.answer().status, 200);
    client.send(post(&token, "{}"));
    upstream.request();
    drop(upstream);
    assert_eq!(client.answer().status, 502);
    assert!(origin.is_quiet());
}

#[test]
fn connections_that_the_upstream_closed_in_the_pool_are_replaced() {
    let (origin, _folder, token, proxy) = staged("workers = 1\n[timeouts]\nupstream_idle = \"1h\"");
    // several unused connections, all of which end when the upstream restarts
    let mut clients: Vec<(Line, Line)> = (0..5)
        .map(|_| {
            let mut client = Line::to(&proxy.address);
            client.send(post(&token, "{}"));
            let mut upstream = origin.accept();
            upstream.request();
            (client, upstream)
        })
        .collect();
    for (client, upstream) in &mut clients {
        upstream.bytes(2);
        upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(client.answer().status, 200);
    }
    let mut client = clients.into_iter().map(|(client, _)| client).next().unwrap();
    for _ in 0..3 {
        client.send(post(&token, "{}"));
        let mut upstream = origin.accept();
        upstream.request();
        upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        assert_eq!(client.answer().status, 200);
    }
}

#[test]
fn an_upstream_that_does_not_answer_is_a_504_and_its_connection_is_closed() {
    let (origin, _folder, token, proxy) = staged("[timeouts]\nupstream_head = \"300ms\"");
    let mut client = Line::to(&proxy.address);
    client.send(post(&token, "{}"));
    let mut upstream = origin.accept();
    upstream.request();
    let answer = client.answer();
    assert_eq!((answer.status, &proxy.record_of(&answer)["reason"]), (504, &"upstream_timeout".into()));
    upstream.await_end();
    assert!(origin.is_quiet(), "it is not asked twice");
}

#[test]
fn each_answer_on_a_connection_has_all_the_time_there_is_and_no_more() {
    let (origin, _folder, token, proxy) = staged("workers = 1\n[timeouts]\nupstream_head = \"2s\"");
    let mut client = Line::to(&proxy.address);
    client.send(post(&token, "{}"));
    let mut upstream = origin.accept();
    // together they take longer than one may
    for _ in 0..2 {
        upstream.request();
        std::thread::sleep(Duration::from_millis(1_200));
        upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
        assert_eq!(client.answer().status, 200);
        client.send(post(&token, "{}"));
    }
    let asked = Instant::now();
    upstream.request();
    assert_eq!(client.answer().status, 504);
    assert!(asked.elapsed() < Duration::from_millis(3_800), "{:?}", asked.elapsed());
    upstream.await_end();
}

#[test]
fn an_answer_that_pauses_for_too_long_breaks_off_unless_it_is_an_event_stream() {
    let (origin, _folder, token, proxy) = staged("[timeouts]\nanswer_idle = \"300ms\"");
    let begin = |content_type: &str| {
        let mut client = Line::to(&proxy.address);
        client.send(get(&token, ""));
        let mut upstream = origin.accept();
        upstream.request();
        upstream.send(format!("HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ntransfer-encoding: chunked\r\n\r\n"));
        upstream.send_chunk("begun");
        let head = client.answer_head();
        (client, upstream, head)
    };
    let (mut client, mut upstream, _head) = begin("Text/Event-Stream; charset=utf-8");
    let (mut late, mut stalled, head) = begin("application/json");
    assert!(read_body(late.reader(), &head).is_err(), "it looks complete");
    stalled.await_end();
    assert_eq!(proxy.audit(1)[0]["ended"], "upstream_failed");
    upstream.send_chunk("still here");
    assert_eq!((client.chunk(), client.chunk()), ("begun".to_owned(), "still here".to_owned()));
}

// --- Malicious ------------------------------------------------------------------------------

/// What it says, and what the client hears: a status, and whether the body is whole.
const MALICE: [(&str, u16, bool); 19] = [
    ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc", 502, true),
    ("HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nab", 502, true),
    ("HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nab", 502, true),
    ("HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\nab", 502, true),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 502, true),
    ("HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 0\r\n\r\n", 502, true),
    ("HTTP/1.1 200 OK\r\nx : a\r\ncontent-length: 0\r\n\r\n", 502, true),
    ("HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 0\r\n\r\n", 502, true),
    ("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n", 502, true),
    ("HTTP/1.1 999999 What\r\n\r\n", 502, true),
    ("HTTP/2.0 200 OK\r\n\r\n", 502, true),
    ("SSH-2.0-OpenSSH_9.2\r\n", 502, true),
    ("\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 502, true),
    ("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n", 502, true),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\nab\r\n0\r\n\r\n", 200, false),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\nab", 200, false),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nabXX0\r\n\r\n", 200, false),
    ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nab", 200, false),
    ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nabHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nstolen", 200, true),
];

#[test]
fn whatever_a_malicious_upstream_says_is_a_502_or_a_broken_body_and_nobody_elses() {
    let (origin, folder) = (Stage::new(), Folder::new());
    let (token, honest) = (folder.token("mallory", &[]), folder.token("alice", &[]));
    let proxy = folder.serve(&origin.url(), "workers = 1");
    for (said, status, whole) in MALICE {
        let mut client = Line::to(&proxy.address);
        client.send(get(&token, ""));
        let mut upstream = origin.accept();
        upstream.request();
        upstream.send(said);
        // what is not complete is broken off
        upstream.socket().shutdown(std::net::Shutdown::Write).unwrap();
        // an answer that is known to be broken at once may not even begin
        let begun = client.reader().fill_buf().is_ok_and(|begun| !begun.is_empty());
        let heard =
            begun.then(|| client.answer_head()).map(|head| (head.status, read_body(client.reader(), &head).is_ok()));
        assert!(heard == Some((status, whole)) || heard.is_none() && !whole, "{said:?} is heard as {heard:?}");
        upstream.await_end();
        // a neighbour gets an answer of its own, by a connection of its own
        let mut neighbour = Line::to(&proxy.address);
        neighbour.send(get(&honest, ""));
        let mut upstream = origin.accept();
        upstream.request();
        upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nhonest");
        assert_eq!(neighbour.body(), b"honest");
    }
}

#[test]
fn an_answer_with_too_large_a_head_is_a_502() {
    let large = format!("HTTP/1.1 200 OK\r\nx: {}\r\ncontent-length: 0\r\n\r\n", "x".repeat(70_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}content-length: 0\r\n\r\n", "x: y\r\n".repeat(100));
    let small = format!("HTTP/1.1 200 OK\r\nx: {}\r\ncontent-length: 0\r\n\r\n", "x".repeat(60_000));
    for (said, status) in [(large, 502), (many, 502), (small, 200)] {
        let origin = Origin::scripted(move |_, stream| stream.write_all(said.as_bytes()).map(|()| Keep::Open));
        let (_folder, token, proxy) = started(&origin, "");
        assert_eq!(proxy.ask(&get(&token, "")).status, status);
    }
}

#[test]
fn interim_answers_are_taken_in_but_a_flood_of_them_is_a_502() {
    let origin = Origin::scripted(|received, stream| {
        let interim = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
        let few = received.values("x-few").len() == 1;
        for _ in 0..if few { 20 } else { 10_000_000 } {
            stream.write_all(interim)?;
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").map(|()| Keep::Open)
    });
    let (_folder, token, proxy) = started(&origin, "workers = 1");
    assert_eq!(proxy.ask(&get(&token, "X-Few: 1\r\n")).status, 200);
    let since = Instant::now();
    let answer = proxy.ask(&get(&token, ""));
    assert_eq!((answer.status, &proxy.record_of(&answer)["reason"]), (502, &"upstream_invalid".into()));
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    assert_eq!(proxy.ask(&get(&token, "X-Few: 1\r\n")).status, 200);
}

// --- Health ---------------------------------------------------------------------------------

#[test]
fn an_upstream_that_is_asked_for_its_health_decides_readiness_and_nothing_else() {
    let origin = Origin::scripted(|received, stream| {
        let healthy = !received.request_line().starts_with("GET /health ");
        let status = if healthy { "200 OK" } else { "503 Service Unavailable" };
        write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").map(|()| Keep::Open)
    });
    for (path, well) in [("path = \"/health\"", false), ("path = \"/healthy\"", true), ("", true)] {
        let (_folder, token, proxy) = started(&origin, &format!("[health]\n{path}\ninterval = \"50ms\""));
        let expected = if well { "ready\n" } else { "not ready: the MCP server is not well: it answers 503" };
        eventually(expected, || proxy.health("/readyz").body.starts_with(expected).then_some(()));
        assert_eq!(proxy.ask(&get(&token, "")).status, 200, "it decides nothing");
        assert_eq!(proxy.health("/livez").status, 200);
    }
    let probe = origin.received().into_iter().find(|received| received.head.contains("/healthy")).unwrap();
    assert!(!probe.head.to_lowercase().contains("x-auth") && !probe.head.to_lowercase().contains("authorization"));
}

#[test]
fn readiness_follows_an_upstream_that_goes_and_comes() {
    let folder = Folder::new();
    folder.token("alice", &[]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let proxy = folder.serve(&format!("http://{address}"), "[health]\ninterval = \"50ms\"");
    eventually("readiness", || (proxy.health("/readyz").status == 200).then_some(()));
    drop(listener);
    eventually("its end", || proxy.health("/readyz").body.contains("cannot connect").then_some(()));
    let _listener = eventually("the port", || TcpListener::bind(address).ok());
    eventually("readiness", || (proxy.health("/readyz").body == "ready\n").then_some(()));
}
