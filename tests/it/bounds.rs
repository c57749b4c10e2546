//! Deadlines and bounds, seen from outside: whoever is late, or too many, is told and let go.

use std::io::{BufRead, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use http::Request;
use socket2::{Domain, Protocol, Socket, Type};

use crate::floods::{ACK, DATA, Frames, INITIAL_WINDOW_SIZE, PING, WINDOW_UPDATE};
use crate::harness::{Folder, Keep, Origin, PATIENCE, Proxy, eventually, get, post, post_in_chunks};
use crate::http2::Client;
use crate::revocation::{await_standstill, flooding};
use crate::stage::{Line, Stage, staged};

// --- Late clients ---------------------------------------------------------------------------

#[test]
fn a_head_that_does_not_come_to_an_end_is_answered_with_408() {
    let (origin, _folder, token, proxy) = staged("[timeouts]\nhead = \"300ms\"");
    let whole = get(&token, "");
    for used in [false, true] {
        let mut client = Line::to(&proxy.address);
        if used {
            client.send(get("unknown", ""));
            assert_eq!(client.answer().status, 401);
        }
        client.send(&whole[..whole.len() - 2]);
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("connection")), (408, Some("close")));
        assert!(answer.json()["error"]["message"].as_str().unwrap().contains("too long in coming"));
        assert_eq!(proxy.record_of(&answer)["reason"], "client_timeout");
        client.await_end();
    }
    assert!(origin.is_quiet());
}

#[test]
fn an_unused_connection_is_closed_without_a_word_and_not_before_its_time() {
    let (_origin, _folder, _token, proxy) = staged("[timeouts]\nhead = \"200ms\"\nidle = \"900ms\"");
    let mut client = Line::to(&proxy.address);
    for _ in 0..2 {
        client.send(get("unknown", ""));
        assert_eq!(client.answer().status, 401);
        // more than a head may take
        std::thread::sleep(Duration::from_millis(400));
    }
    let since = Instant::now();
    assert_eq!(client.reader().read(&mut [0; 64]).unwrap(), 0, "not a word");
    assert!((200..5000).contains(&since.elapsed().as_millis()), "{:?}", since.elapsed());
    assert_eq!(proxy.audit(2).len(), 2);
}

#[test]
fn a_body_that_stalls_is_answered_with_408_and_its_upstream_is_left() {
    let (origin, _folder, token, proxy) = staged("[timeouts]\nbody = \"300ms\"");
    for request in [post(&token, "123456789").replace("6789", ""), post_in_chunks(&token) + "4\r\n1234\r\n"] {
        let mut client = Line::to(&proxy.address);
        client.send(request);
        let mut upstream = origin.accept();
        upstream.request();
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("connection")), (408, Some("close")));
        upstream.await_end();
        let record = proxy.record_of(&answer);
        assert_eq!((&record["outcome"], &record["reason"]), (&"denied".into(), &"client_timeout".into()));
        client.await_end();
    }
}

#[test]
fn a_body_may_take_its_time_as_long_as_it_goes_on() {
    let (origin, _folder, token, proxy) = staged("[timeouts]\nbody = \"800ms\"");
    let mut client = Line::to(&proxy.address);
    client.send(post_in_chunks(&token));
    let mut upstream = origin.accept();
    upstream.request();
    for part in ["1", "2", "3", "4"].map(|digit| digit.repeat(400)) {
        std::thread::sleep(Duration::from_millis(300));
        client.send_chunk(&part);
        assert_eq!(upstream.chunk(), part);
    }
    client.send_chunk("");
    assert!(upstream.end_of_chunks());
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(client.answer().status, 200);
}

#[test]
fn a_body_that_comes_in_a_trickle_is_answered_with_408_with_and_without_a_policy() {
    for policy in ["", "[policy]\ndefault = \"allow\"\n"] {
        let (origin, _folder, token, proxy) = staged(&format!("{policy}[timeouts]\nbody = \"500ms\""));
        let mut client = Line::to(&proxy.address);
        client.send(post_in_chunks(&token));
        let since = Instant::now();
        client.socket().set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        // each byte comes long before the pause is over
        while client.reader().fill_buf().is_err() {
            client.send_chunk(" ");
            assert!(since.elapsed() < PATIENCE, "it goes on and on");
        }
        assert!(since.elapsed() > Duration::from_millis(450), "{:?}", since.elapsed());
        let answer = client.answer();
        assert_eq!((answer.status, &proxy.record_of(&answer)["reason"]), (408, &"client_timeout".into()));
        if policy.is_empty() {
            let mut upstream = origin.accept();
            upstream.request();
            upstream.await_end();
        }
        assert!(origin.is_quiet());
    }
}

// --- Clients that do not read ---------------------------------------------------------------

/// A client whose system takes in a few kilobytes only, unless it reads them.
fn with_a_small_window(address: &str) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&address.parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.into()
}

/// An origin that answers with more than any buffer on the way holds.
fn endless() -> Origin {
    Origin::scripted(|_, stream| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")?;
        let event = [b'x'; 4096];
        for _ in 0..10_000 {
            write!(stream, "{:x}\r\n", event.len())?;
            stream.write_all(&event)?;
            stream.write_all(b"\r\n")?;
        }
        Ok(Keep::Close)
    })
}

#[test]
fn a_client_that_does_not_take_its_answer_is_let_go() {
    let origin = endless();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "[timeouts]\nwrite = \"500ms\"");
    let mut client = with_a_small_window(&proxy.address);
    let since = Instant::now();
    client.write_all(get(&token, "").as_bytes()).unwrap();
    // it reads nothing at all
    let record = &proxy.audit(1)[0];
    assert_eq!((&record["reason"], &record["ended"]), (&"ok".into(), &"client_gone".into()));
    assert!((400..8000).contains(&since.elapsed().as_millis()), "{:?}", since.elapsed());
    eventually("the upstream's connection to be closed", || (origin.closed().len() == 1).then_some(()));
}

/// How many bytes the system holds for the clients of a proxy, as proc(5) tells.
fn unsent(proxy: &Proxy) -> usize {
    let port: u16 = proxy.address.rsplit(':').next().unwrap().parse().unwrap();
    let (table, local) = (std::fs::read_to_string("/proc/net/tcp").unwrap(), format!(":{port:04X}"));
    let rows = table.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
    let queues = rows.filter(|row| row[1].ends_with(&local)).map(|row| row[4].split(':').next().unwrap().to_owned());
    queues.map(|queue| usize::from_str_radix(&queue, 16).unwrap()).sum()
}

#[test]
fn what_a_client_does_not_take_is_not_piled_up_in_the_system() {
    let (origin, written) = flooding();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "");
    let mut client = with_a_small_window(&proxy.address);
    client.write_all(get(&token, "").as_bytes()).unwrap();
    await_standstill(&written);
    let unsent = unsent(&proxy);
    assert!((1..512 * 1024).contains(&unsent), "{unsent}");
}

#[test]
fn a_client_that_takes_its_answer_in_drops_is_let_go_as_soon() {
    let (origin, folder) = (endless(), Folder::new());
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "[timeouts]\nwrite = \"500ms\"");
    let mut client = with_a_small_window(&proxy.address);
    client.write_all(get(&token, "").as_bytes()).unwrap();
    let mut http2 = Frames::to(&proxy, &[(INITIAL_WINDOW_SIZE, 1)]);
    http2.request(1, &token).unwrap();
    let since = Instant::now();
    eventually("the end of both", || {
        // a byte of each, whenever there is one
        let _ = client.read(&mut [0; 1]);
        let _ = http2.send(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes());
        (proxy.audit_so_far().len() == 2).then_some(())
    });
    assert!((450..8000).contains(&since.elapsed().as_millis()), "{:?}", since.elapsed());
    assert!(proxy.audit_so_far().iter().all(|record| record["ended"] == "client_gone"));
}

#[test]
fn a_client_that_has_nothing_to_take_is_not_late() {
    let (origin, _folder, token, proxy) = staged("[timeouts]\nwrite = \"200ms\"\nhead = \"200ms\"\nidle = \"200ms\"");
    let mut client = Line::to(&proxy.address);
    client.send(get(&token, ""));
    let mut http2 = Client::to(&proxy);
    let (_, answering) =
        http2.begin(Request::get(proxy.url("/mcp")).header("authorization", format!("Bearer {token}")));
    let mut upstreams: Vec<Line> = (0..2).map(|_| origin.accept()).collect();
    for upstream in &mut upstreams {
        upstream.request();
        upstream.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        upstream.send_chunk("data: 1\n\n");
    }
    client.answer_head();
    assert_eq!(client.chunk(), "data: 1\n\n");
    let mut body = http2.answer(answering).into_body();
    assert_eq!(http2.part(&mut body).unwrap(), "data: 1\n\n");
    std::thread::sleep(Duration::from_millis(900));
    for upstream in &mut upstreams {
        upstream.send_chunk("data: 2\n\n");
    }
    assert_eq!(client.chunk(), "data: 2\n\n");
    assert_eq!(http2.part(&mut body).unwrap(), "data: 2\n\n");
}

#[test]
fn a_client_that_closes_its_http2_window_is_let_go() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "[timeouts]\nwrite = \"400ms\"\nhead = \"5m\"\nidle = \"5m\"");
    let mut client = Frames::to(&proxy, &[(INITIAL_WINDOW_SIZE, 0)]);
    for (stream, token) in [(1, "unknown"), (3, &token)] {
        client.request(stream, token).unwrap();
    }
    let since = Instant::now();
    client.await_end();
    assert!((300..8000).contains(&since.elapsed().as_millis()), "{:?}", since.elapsed());
    eventually("both records", || (proxy.audit_so_far().len() == 2).then_some(()));
}

// --- Clients that say nothing ---------------------------------------------------------------

#[test]
fn a_client_that_does_not_answer_pings_is_let_go() {
    let (origin, _folder, token, proxy) = staged("[timeouts]\nkeep_alive = \"300ms\"");
    let mut client = Frames::to(&proxy, &[]);
    client.request(1, &token).unwrap();
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    upstream.send_chunk("data: 1\n\n");
    while client.frame().unwrap().0 != DATA {}
    // as long as it answers, it stays
    let mut pings = 0;
    while pings < 3 {
        let (kind, flags, payload) = client.frame().expect("a stream that stays open");
        if (kind, flags & ACK) == (PING, 0) {
            client.send(PING, ACK, 0, &payload).unwrap();
            pings += 1;
        }
    }
    client.await_end();
    upstream.await_end();
    assert_eq!(proxy.audit(1)[0]["ended"], "client_gone");
}

// --- Too many -------------------------------------------------------------------------------

#[test]
fn a_connection_too_many_is_refused_and_the_next_one_after_an_end_is_not() {
    let (_origin, _folder, _token, proxy) = staged("[limits]\nconnections = 3");
    let mut held: Vec<Line> = (0..3)
        .map(|_| {
            let mut client = Line::to(&proxy.address);
            client.send(get("unknown", ""));
            assert_eq!(client.answer().status, 401);
            client
        })
        .collect();
    for _ in 0..2 {
        let refused = proxy.ask(&get("unknown", ""));
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
        assert!(refused.json()["error"]["message"].as_str().unwrap().contains("too many connections"));
        let record = proxy.record_of(&refused);
        assert_eq!((&record["outcome"], &record["reason"]), (&"error".into(), &"too_many_connections".into()));
    }
    // those who are in notice nothing
    held[0].send(get("unknown", ""));
    assert_eq!(held[0].answer().status, 401);
    drop(held.pop());
    eventually("a place", || (proxy.ask(&get("unknown", "")).status == 401).then_some(()));
}

#[test]
fn a_flood_of_refused_connections_is_no_flood_in_the_log() {
    let (_origin, _folder, _token, proxy) = staged("[limits]\nconnections = 1");
    let mut held = Line::to(&proxy.address);
    held.send(get("unknown", ""));
    assert_eq!(held.answer().status, 401);
    let since = Instant::now();
    for _ in 0..500 {
        drop(TcpStream::connect(&proxy.address).unwrap());
    }
    held.send(get("unknown", ""));
    assert_eq!(held.answer().status, 401);
    let seconds = usize::try_from(since.elapsed().as_secs()).unwrap() + 1;
    let records = proxy.last_audit();
    let refused = records.iter().filter(|record| record["reason"] == "too_many_connections").count();
    assert!((1..=10 * (seconds + 1)).contains(&refused), "{refused} records in {seconds} s");
}

#[test]
fn a_token_with_too_many_open_streams_is_told_to_end_one() {
    let (origin, folder) = (Stage::new(), Folder::new());
    let (token, other) = (folder.token("alice", &[]), folder.token("bob", &[]));
    let proxy = folder.serve(&origin.url(), "[limits]\nstreams_per_token = 2");
    let begin = |token: &str| {
        let mut client = Line::to(&proxy.address);
        client.send(get(token, ""));
        let mut upstream = origin.accept();
        upstream.request();
        (client, upstream)
    };
    let (mut stream, waiting) = (begin(&token), begin(&token));
    stream.1.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    stream.0.answer_head();
    let refused = proxy.ask(&post(&token, "{}"));
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    let record = proxy.record_of(&refused);
    assert_eq!((&record["outcome"], &record["reason"]), (&"denied".into(), &"too_many_streams".into()));
    assert!(origin.is_quiet());
    // another token has its own
    begin(&other);
    drop((stream, waiting));
    eventually("a place", || {
        let mut client = Line::to(&proxy.address);
        client.send(get(&token, ""));
        (!origin.is_quiet()).then_some(())
    });
}

#[test]
fn the_admin_address_has_places_for_a_few_and_the_next_one_waits() {
    let (_origin, _folder, _token, proxy) = staged("");
    let mut held: Vec<_> = (0..64).map(|_| Line::to(&proxy.admin)).collect();
    let mut waiting = Line::to(&proxy.admin);
    waiting.send("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
    waiting.socket().set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(waiting.reader().read(&mut [0; 1]).is_err(), "an answer without a place");
    waiting.socket().set_read_timeout(Some(PATIENCE)).unwrap();
    held.pop();
    assert_eq!(waiting.answer().status, 200);
}
