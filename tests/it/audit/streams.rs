//! A stream that goes on is told of while it does, and each exchange once when it is over.

use std::collections::HashSet;
use std::net::Shutdown;
use std::thread;

use serde_json::Value;

use crate::harness::{Folder, Keep, Origin, connect, eventually, get};
use crate::revocation::{await_standstill, flooding};
use crate::stage::{Line, staged};

const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

fn events<'r>(records: &'r [Value], event: &str) -> Vec<&'r Value> {
    records.iter().filter(|record| record["event"] == event).collect()
}

#[test]
fn a_stream_that_goes_on_has_an_opening_record_and_a_short_exchange_has_none() {
    let (origin, _folder, token, proxy) = staged("workers = 1");
    let mut client = Line::to(&proxy.address);
    client.send(get(&token, ""));
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send(STREAM);
    upstream.send_chunk("one");
    assert_eq!((client.answer_head().status, client.chunk()), (200, "one".to_owned()));
    let opened = eventually("the opening record", || {
        events(&proxy.audit_lines(), "stream_opened").first().map(|record| (*record).clone())
    });
    assert!(opened.get("ended").is_none() && opened.get("duration_ms").is_none(), "{opened}");
    assert_eq!(
        (&opened["outcome"], &opened["user"], &opened["bytes_out"]),
        (&"allowed".into(), &"alice".into(), &3.into())
    );

    // a short exchange that has to wait for a part of its answer
    let mut other = Line::to(&proxy.address);
    other.send(get(&token, ""));
    let mut short = origin.accept();
    short.request();
    short.send(STREAM);
    other.answer_head();
    short.send_chunk("");
    assert!(other.end_of_chunks());

    upstream.send_chunk("two");
    upstream.send_chunk("");
    assert_eq!(client.chunk(), "two");
    assert!(client.end_of_chunks());
    proxy.audit(2);
    let records = proxy.audit_lines();
    let closed = events(&records, "request").into_iter().find(|record| record["request_id"] == opened["request_id"]);
    let closed = closed.unwrap();
    assert_eq!((&closed["ended"], &closed["bytes_out"]), (&"complete".into(), &6.into()));
    assert_eq!(closed["ts"], opened["ts"]);
    assert_eq!(events(&records, "stream_opened").len(), 1);
}

#[test]
fn a_client_that_reads_nothing_does_not_keep_its_stream_out_of_the_log() {
    let (origin, written) = flooding();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "");
    let mut client = connect(&proxy.address);
    std::io::Write::write_all(&mut client, get(&token, "").as_bytes()).unwrap();
    await_standstill(&written);
    let opened = eventually("the opening record", || proxy.audit_lines().first().cloned());
    assert_eq!((&opened["event"], &opened["user"]), (&"stream_opened".into(), &"alice".into()));
    let bytes = |record: &Value| record["bytes_out"].as_u64().unwrap();
    assert!(bytes(&opened) >= 0x4000, "{opened}");
    drop(client);
    let closed = &proxy.audit(1)[0];
    assert_eq!((&closed["request_id"], &closed["ended"]), (&opened["request_id"], &"client_gone".into()));
    assert!(bytes(closed) >= bytes(&opened));
    assert_eq!(proxy.audit_lines().len(), 2);
}

/// Many exchanges at once, which clients leave, upstreams break off or time out, and a shutdown cuts:
/// each request that reached the proxy has one record, and says how it ended.
#[test]
fn thousands_of_open_exchanges_have_one_record_each_when_the_process_ends() {
    let origin = Origin::scripted(|received, stream| {
        use std::io::Write;
        match received.values("x-play")[0] {
            "hang" => {}
            "die" => return Ok(Keep::Close),
            play => {
                stream.write_all(STREAM.as_bytes())?;
                stream.write_all(b"3\r\none\r\n")?;
                if play == "break" {
                    return Ok(Keep::Close);
                }
            }
        }
        Ok(Keep::Open)
    });
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let bounds = "[limits]\nstreams_per_token = 5000\nconnections_per_address = 5000";
    let proxy = folder.serve(&origin.url(), &format!("{bounds}\n[timeouts]\nupstream_head = \"2s\"\ndrain = \"1s\""));
    let plays = ["hang", "die", "break", "stay", "leave"];
    let (each, more) = (200, 1800);
    let mixed = each * plays.len();
    // a thread for each of the origin's connections: small steps, so that none is refused
    let mut clients = Vec::new();
    for number in 0..mixed + more {
        let play = if number < mixed { plays[number % plays.len()] } else { "stay" };
        let mut client = connect(&proxy.address);
        std::io::Write::write_all(&mut client, get(&token, &format!("X-Play: {play}\r\n")).as_bytes()).unwrap();
        match play {
            "leave" => {
                let mut line = Line::new(client);
                assert_eq!(line.answer_head().status, 200);
                line.socket().shutdown(Shutdown::Both).unwrap();
            }
            "stay" => {
                let mut line = Line::new(client.try_clone().unwrap());
                assert_eq!(line.answer_head().status, 200);
                clients.push(client);
            }
            _ => clients.push(client),
        }
    }
    // what has to end by itself
    proxy.audit(each * (plays.len() - 1));
    let records = proxy.last_audit();
    assert_eq!(records.len(), mixed + more);
    let ids: HashSet<_> = records.iter().map(|record| record["request_id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), records.len());
    for (reason, ended, count) in [
        ("upstream_timeout", "complete", each),
        ("upstream_unreachable", "complete", each),
        ("ok", "upstream_failed", each),
        ("ok", "drained", each + more),
        ("ok", "client_gone", each),
    ] {
        let found = records.iter().filter(|record| record["reason"] == reason && record["ended"] == ended).count();
        assert_eq!(found, count, "{reason} {ended}");
    }
    drop(clients);
    thread::yield_now();
}
