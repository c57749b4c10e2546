//! How exchanges end before their time: whoever leaves, the other side hears of it, and the audit log
//! says who it was, once for each request.

use std::fs;
use std::io::{BufReader, Write};
use std::net::Shutdown;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::harness::{
    Folder, Keep, Origin, Proxy, connect, eventually, get, post, post_in_chunks, read_body, read_head,
};
use crate::stage::{Line, staged};

/// How soon one side must hear that the other has left: a second, with a margin for a busy machine.
const SOON: Duration = Duration::from_secs(2);

const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// Waits until the upstream's connection has been closed, which must not take long.
fn assert_is_left(upstream: &mut Line) {
    let since = Instant::now();
    upstream.await_end();
    assert!(since.elapsed() < SOON, "it took {:?}", since.elapsed());
}

// --- The client leaves ----------------------------------------------------------------------

#[test]
fn when_the_client_leaves_a_silent_stream_its_upstream_is_closed() {
    let (origin, _folder, token, proxy) = staged("");
    let mut client = Line::to(&proxy.address);
    client.send(get(&token, ""));
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send(STREAM);
    upstream.send_chunk("data: 1\n\n");
    client.answer_head();
    assert_eq!(client.chunk(), "data: 1\n\n");

    drop(client);
    assert_is_left(&mut upstream);
    let record = &proxy.audit(1)[0];
    assert_eq!((&record["outcome"], &record["ended"]), (&"allowed".into(), &"client_gone".into()));
    assert_eq!((&record["status"], &record["bytes_out"]), (&200.into(), &"data: 1\n\n".len().into()));
}

#[test]
fn when_the_client_leaves_with_more_requests_waiting_its_upstream_is_closed_all_the_same() {
    let (origin, _folder, token, proxy) = staged("");
    for waiting in [get(&token, ""), "G".to_owned()] {
        let mut client = Line::to(&proxy.address);
        client.send(get(&token, "") + &waiting);
        let mut upstream = origin.accept();
        upstream.request();
        upstream.send(STREAM);
        client.answer_head();
        drop(client);
        assert_is_left(&mut upstream);
    }
    assert!(proxy.audit(2).iter().all(|record| record["ended"] == "client_gone"));
}

#[test]
fn when_the_client_leaves_before_the_answer_its_upstream_is_closed() {
    let (origin, _folder, token, proxy) = staged("");
    let mut client = Line::to(&proxy.address);
    client.send(post(&token, "{}"));
    let mut upstream = origin.accept();
    upstream.request();
    drop(client);
    assert_is_left(&mut upstream);
    let record = &proxy.audit(1)[0];
    assert_eq!((record.get("status"), &record["ended"]), (None, &"client_gone".into()));
}

/// Stops every thread of a proxy where it is.
pub fn stop(proxy: &Proxy) {
    proxy.signal("STOP");
    eventually("the process to stand still", || {
        let mut tasks = fs::read_dir(format!("/proc/{}/task", proxy.pid())).unwrap();
        let is_stopped = |path: PathBuf| fs::read_to_string(path.join("stat")).unwrap().contains(") T ");
        tasks.all(|task| is_stopped(task.unwrap().path())).then_some(())
    });
}

#[test]
fn a_request_whose_client_has_left_before_it_is_read_has_its_record_too() {
    let (_origin, _folder, token, proxy) = staged("");
    let request = post(&token, "{}");
    // all of it, some of its body, its head
    for missing in 0..3 {
        stop(&proxy);
        let mut client = Line::to(&proxy.address);
        client.send(&request[..request.len() - missing]);
        drop(client);
        proxy.signal("CONT");
        let record = proxy.audit(missing + 1).pop().unwrap();
        assert_eq!((&record["path"], &record["ended"]), (&"/mcp".into(), &"client_gone".into()));
    }
    assert_eq!(proxy.last_audit().len(), 3);
}

#[test]
fn when_the_client_leaves_in_the_middle_of_its_request_its_upstream_is_closed() {
    let (origin, _folder, token, proxy) = staged("");
    for request in [post(&token, "123456789").replace("56789", ""), post_in_chunks(&token) + "4\r\n1234\r\n"] {
        let mut client = Line::to(&proxy.address);
        client.send(request);
        let mut upstream = origin.accept();
        upstream.request();
        drop(client);
        assert_is_left(&mut upstream);
    }
    assert!(proxy.audit(2).iter().all(|record| record["ended"] == "client_gone"), "{:#?}", proxy.audit(2));
}

#[test]
fn a_client_that_ends_only_its_own_direction_still_gets_its_answer_or_is_told_by_a_close() {
    let (origin, _folder, token, proxy) = staged("");
    let mut client = Line::to(&proxy.address);
    client.send(get(&token, ""));
    client.socket().shutdown(Shutdown::Write).unwrap();
    // either way is right by HTTP; hanging is not
    client.await_end();
    drop(origin.accept());
    assert_eq!(proxy.audit(1).len(), 1);
}

// --- The upstream leaves --------------------------------------------------------------------

#[test]
fn when_the_upstream_dies_in_the_middle_of_an_answer_the_client_sees_a_broken_body() {
    let (origin, _folder, token, proxy) = staged("");
    for begun in [
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n12345",
        &format!("{STREAM}5\r\n12345\r\n"),
        &format!("{STREAM}9\r\n12345"),
    ] {
        let mut client = Line::to(&proxy.address);
        client.send(get(&token, ""));
        let mut upstream = origin.accept();
        upstream.request();
        upstream.send(begun);
        let head = client.answer_head();
        drop(upstream);
        assert!(read_body(client.reader(), &head).is_err(), "{begun:?} looks complete");
    }
    let records = proxy.audit(3);
    assert!(
        records.iter().all(|record| record["ended"] == "upstream_failed" && record["status"] == 200),
        "{records:#?}"
    );
}

#[test]
fn an_answer_without_a_length_ends_with_its_connection_and_is_complete() {
    let (origin, _folder, token, proxy) = staged("");
    let mut client = Line::to(&proxy.address);
    client.send(get(&token, ""));
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n");
    let head = client.answer_head();
    assert_eq!(client.chunk(), "data: 1\n\n");
    drop(upstream);
    assert!(client.end_of_chunks(), "{head:?}");
    assert_eq!(proxy.audit(1)[0]["ended"], "complete");
}

// --- Once each ------------------------------------------------------------------------------

#[test]
fn every_request_has_exactly_one_audit_record_however_it_ends() {
    let (origin, _folder, token, proxy) = staged("workers = 1\n[limits]\nbody = 1000");
    // complete, twice on one connection
    let mut client = Line::to(&proxy.address);
    client.send(get(&token, "").repeat(2));
    let mut upstream = origin.accept();
    for _ in 0..2 {
        upstream.request();
        upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(client.answer().status, 200);
    }
    // client gone
    client.send(get(&token, ""));
    upstream.request();
    upstream.send(STREAM);
    client.answer_head();
    drop(client);
    upstream.await_end();
    // upstream failed before the head of its answer, and after it
    let mut client = Line::to(&proxy.address);
    for begun in ["", STREAM] {
        client.send(get(&token, ""));
        let mut upstream = origin.accept();
        upstream.request();
        upstream.send(begun);
        if begun.is_empty() {
            drop(upstream);
            assert_eq!(client.answer().status, 502);
        } else {
            client.answer_head();
            drop(upstream);
            client.await_end();
        }
    }
    // denied, too large, not HTTP
    for request in [get("unknown", ""), post(&token, &"x".repeat(1001)), "\r\nnonsense\r\n\r\n".to_owned()] {
        assert!(proxy.ask(&request).status >= 400);
    }
    let records = proxy.last_audit();
    let mut ends: Vec<_> =
        records.iter().map(|record| (record["reason"].as_str().unwrap(), record["ended"].as_str().unwrap())).collect();
    ends.sort_unstable();
    assert_eq!(
        ends,
        [
            ("malformed_request", "complete"),
            ("ok", "client_gone"),
            ("ok", "complete"),
            ("ok", "complete"),
            ("ok", "upstream_failed"),
            ("too_large", "complete"),
            ("unknown_token", "complete"),
            ("upstream_unreachable", "complete"),
        ]
    );
    let ids: std::collections::HashSet<_> = records.iter().map(|record| record["request_id"].as_str()).collect();
    assert_eq!(ids.len(), records.len());
}

#[test]
fn a_client_that_sends_much_more_and_leaves_ends_its_stream_as_well() {
    let origin = Origin::scripted(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n7\r\ndata: 0\r\n")?;
        Ok(Keep::Open)
    });
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "");
    let mut client = connect(&proxy.address);
    let head = format!("GET /mcp HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n\r\n", proxy.address);
    client.write_all(head.as_bytes()).unwrap();
    let mut reader = BufReader::new(client.try_clone().unwrap());
    assert_eq!(read_head(&mut reader).status, 200);
    // the proxy may well break off before all of it is sent
    let _ = client.write_all(&vec![b'x'; 200_000]);
    drop((client, reader));
    eventually("the end of the upstream's connection", || (!origin.closed().is_empty()).then_some(()));
    assert_eq!(proxy.audit(1)[0]["ended"], "client_gone");
}
