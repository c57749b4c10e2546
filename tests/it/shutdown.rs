//! Health, and the end of the process: nothing new comes in, what runs may finish, and the deadline holds.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use http::Request;
use patgate::cli::AFTER_DRAIN;
use rustix::fs::{Mode, OFlags, open};

use crate::harness::{Folder, Keep, Origin, PATIENCE, Proxy, ask, eventually, get, post, read_body};
use crate::http2::Client;
use crate::stage::{Line, staged};

/// Sends the signal and waits until the proxy says that it is draining.
fn drain(proxy: &Proxy, signal: &str) {
    proxy.signal(signal);
    let told = eventually("readiness to end", || {
        // the admin listener answers to the last
        Some(proxy.health("/readyz")).filter(|answer| answer.status == 503)
    });
    assert!(told.body.contains("draining"), "{}", told.body);
    assert_eq!(proxy.health("/livez").status, 200);
}

#[test]
fn health_is_told_on_the_admin_listener_and_nowhere_else() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "");
    let live = proxy.health("/livez");
    assert_eq!((live.status, live.body.as_str()), (200, "alive\n"));
    let ready = proxy.health("/readyz");
    assert_eq!((ready.status, ready.body.as_str()), (200, "ready\n"));
    assert_eq!(proxy.health("/mcp").status, 404);
    let posted = ask(&proxy.admin, &post(&token, "{}").replace("/mcp", "/readyz").replace("POST", "DELETE"));
    assert_eq!(posted.status, 405);

    for path in ["/livez", "/readyz", "/livez/../mcp"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(proxy.ask(&request).status, 401, "{path} is nothing special to clients");
    }
    assert!(origin.received().is_empty());
}

#[test]
fn on_a_signal_what_runs_may_finish_and_nothing_new_comes_in() {
    for signal in ["TERM", "INT"] {
        let (origin, _folder, token, mut proxy) = staged("");
        let mut client = Line::to(&proxy.address);
        client.send(post(&token, "{}"));
        let mut upstream = origin.accept();
        upstream.request();
        // an unused connection, as clients keep them
        let mut unused = Line::to(&proxy.address);
        unused.send(get("unknown", ""));
        assert_eq!(unused.answer().status, 401);

        drain(&proxy, signal);
        unused.await_end();
        eventually("new connections to be refused", || TcpStream::connect(&proxy.address).is_err().then_some(()));
        upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
        let answer = client.answer();
        assert_eq!((answer.status, answer.body.as_str()), (200, "{}"));
        client.await_end();
        assert_eq!(proxy.wait().code(), Some(0));
        let records = proxy.audit_so_far();
        assert_eq!(records.len(), 2);
        assert_eq!((&records[1]["status"], &records[1]["ended"]), (&200.into(), &"complete".into()));
    }
}

#[test]
fn a_stream_may_end_by_itself_during_the_drain() {
    let (origin, _folder, token, mut proxy) = staged("");
    let mut client = Line::to(&proxy.address);
    client.send(get(&token, ""));
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    client.answer_head();
    drain(&proxy, "TERM");
    upstream.send_chunk("last words");
    assert_eq!(client.chunk(), "last words");
    upstream.send_chunk("");
    assert!(client.end_of_chunks());
    assert_eq!(proxy.wait().code(), Some(0));
    assert_eq!(proxy.audit_so_far()[0]["ended"], "complete");
}

#[test]
fn a_stream_is_cut_at_the_deadline_and_its_client_can_tell() {
    let (origin, _folder, token, mut proxy) = staged("[timeouts]\ndrain = \"1s\"");
    let mut waiting = Line::to(&proxy.address);
    waiting.send(get(&token, ""));
    let mut never_answers = origin.accept();
    never_answers.request();
    let mut client = Line::to(&proxy.address);
    client.send(get(&token, ""));
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nbegun\r\n");
    let head = client.answer_head();
    assert_eq!(client.chunk(), "begun");

    let since = Instant::now();
    proxy.signal("TERM");
    assert!(read_body(client.reader(), &head).is_err(), "a cut stream looks complete");
    upstream.await_end();
    never_answers.await_end();
    waiting.await_end();
    assert_eq!(proxy.wait().code(), Some(0));
    let took = since.elapsed();
    assert!((900..5000).contains(&took.as_millis()), "{took:?}");
    let records = proxy.audit_so_far();
    assert_eq!(records.len(), 2);
    assert!(records.iter().all(|record| record["ended"] == "drained"), "{records:#?}");
}

#[test]
fn a_second_signal_cuts_the_drain_short() {
    let (origin, _folder, token, mut proxy) = staged("[timeouts]\ndrain = \"10m\"");
    let mut client = Line::to(&proxy.address);
    client.send(get(&token, ""));
    let mut upstream = origin.accept();
    upstream.request();
    drain(&proxy, "TERM");
    proxy.signal("INT");
    assert_eq!(proxy.wait().code(), Some(0));
    assert_eq!(proxy.audit_so_far()[0]["ended"], "drained");
}

#[test]
fn connections_without_a_request_do_not_hold_up_the_end() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let mut proxy = folder.serve(&origin.url(), "[timeouts]\ndrain = \"10m\"\nhead = \"1s\"");
    let mut silent = Line::to(&proxy.address);
    let mut begun = Line::to(&proxy.address);
    begun.send("GET /mcp HTTP/1.1\r\nHost: local");
    let mut preface = Line::to(&proxy.address);
    preface.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    let mut used = Line::to(&proxy.address);
    used.send(get(&token, ""));
    assert_eq!(used.answer().status, 200);
    let mut spoken = Client::to(&proxy);
    assert_eq!(spoken.ask(Request::get(proxy.url("/mcp"))).0.status, 401);

    let since = Instant::now();
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(0));
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    for line in [&mut silent, &mut begun, &mut preface, &mut used] {
        line.await_end();
    }
    let mut reasons: Vec<_> = proxy.audit_so_far().iter().map(|record| record["reason"].to_string()).collect();
    reasons.sort();
    assert_eq!(reasons, ["\"client_timeout\"", "\"missing_credential\"", "\"ok\""]);
}

#[test]
fn a_file_that_hangs_does_not_hold_up_the_end() {
    let (origin, folder) = (Origin::plain(), Folder::new());
    let token = folder.token("alice", &[]);
    let mut proxy = folder.serve_tokens(&origin.url(), "file = \"tokens.toml\"\npoll = \"100ms\"\n");
    assert_eq!(proxy.ask(&get(&token, "")).status, 200);
    assert!(Command::new("mkfifo").arg(folder.path("pipe")).status().unwrap().success());
    fs::rename(folder.path("pipe"), folder.path("tokens.toml")).unwrap();
    // it can be opened like this once somebody reads it, who then waits for what never comes
    let flags = OFlags::WRONLY | OFlags::NONBLOCK;
    let _pipe = eventually("the list to be read", || open(folder.path("tokens.toml"), flags, Mode::empty()).ok());
    let since = Instant::now();
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(0));
    assert!(since.elapsed() < AFTER_DRAIN, "{:?}", since.elapsed());
    assert_eq!(proxy.audit_so_far().len(), 1);
}

#[test]
fn the_audit_log_is_written_to_its_end() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "");
    let mut client = Line::to(&proxy.address);
    client.send(get(&token, "").repeat(300));
    for _ in 0..300 {
        assert_eq!(client.answer().status, 200);
    }
    assert_eq!(proxy.last_audit().len(), 300);
}

#[test]
fn a_thousand_open_streams_are_cut_at_the_deadline_and_all_of_them_recorded() {
    let origin = Origin::scripted(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n7\r\ndata: 0\r\n")?;
        Ok(Keep::Open)
    });
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let mut proxy = folder.serve(&origin.url(), "[timeouts]\ndrain = \"1s\"");
    // by a few connections of HTTP/2 and many of HTTP/1.1; besides, one without a word and one half-way
    let mut spoken: Vec<Client> = (0..5).map(|_| Client::to(&proxy)).collect();
    let request = || Request::get(proxy.url("/mcp")).header("authorization", format!("Bearer {token}"));
    let bodies: Vec<_> = spoken
        .iter_mut()
        .flat_map(|client| {
            let begun: Vec<_> = (0..100).map(|_| client.begin(request()).1).collect();
            begun.into_iter().map(|answering| client.answer(answering).into_body()).collect::<Vec<_>>()
        })
        .collect();
    let mut lines: Vec<Line> = (0..500)
        .map(|_| {
            let mut client = Line::to(&proxy.address);
            client.send(get(&token, ""));
            assert_eq!(client.answer_head().status, 200);
            client
        })
        .collect();
    let mut silent = Line::to(&proxy.address);
    let mut half = Line::to(&proxy.address);
    half.send("PRI * HTTP/2.0\r\n\r\n");
    let since = Instant::now();
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(0));
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    for line in lines.iter_mut().chain([&mut silent, &mut half]) {
        line.await_end();
    }
    drop(bodies);
    let records = proxy.audit_so_far();
    let drained = records.iter().filter(|record| record["ended"] == "drained").count();
    assert_eq!((records.len(), drained), (1000, 1000));
}

#[test]
fn a_service_manager_is_told_of_the_beginning_and_the_end() {
    let folder = Folder::new();
    folder.token("alice", &[]);
    folder.configure("http://127.0.0.1:9", "");
    let path = folder.path("notify.sock");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = || {
        let mut text = [0; 256];
        let length = manager.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    let mut proxy = folder.serve_with(&[], &[("NOTIFY_SOCKET", path.to_str().unwrap())]);
    assert!(told().starts_with("READY=1\n"));
    proxy.signal("HUP");
    assert!(told().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert!(told().starts_with("READY=1\n"));
    proxy.signal("TERM");
    assert!(told().starts_with("STOPPING=1\n"));
    assert_eq!(proxy.wait().code(), Some(0));
}
