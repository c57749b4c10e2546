//! Bodies pass as they come, in both directions: at once, unchanged, with back-pressure, and with the
//! truth about how they ended.

use std::io::{self, BufRead, Read, Write};
use std::time::Duration;

use crate::harness::{Folder, Keep, Origin, Proxy, eventually, get, post, post_in_chunks};
use crate::stage::{Line, staged};

/// All byte values in an order that shows every loss, repetition and exchange.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn in_chunks(body: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in body.chunks(size) {
        write!(out, "{:x}\r\n", chunk.len()).unwrap();
        out.extend(chunk);
        out.extend(b"\r\n");
    }
    out.extend(b"0\r\n\r\n");
    out
}

// --- Every byte -----------------------------------------------------------------------------

#[test]
fn bodies_of_every_size_and_framing_are_byte_identical_in_both_directions() {
    // an echo, framed as its request was
    let origin = Origin::scripted(|received, stream| {
        let (framing, body) = if received.values("content-length").is_empty() {
            ("transfer-encoding: chunked".to_owned(), in_chunks(&received.body, 1000))
        } else {
            (format!("content-length: {}", received.body.len()), received.body.clone())
        };
        stream.write_all(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n").as_bytes())?;
        stream.write_all(&body).map(|()| Keep::Open)
    });
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "");
    let mut client = Line::to(&proxy.address);
    for length in [0, 1, 999, 65_536, 1_000_003] {
        let body = noise(length);
        client.send(post(&token, "").replace("Content-Length: 0", &format!("Content-Length: {length}")));
        client.send(&body);
        assert_eq!(client.body(), body);
        client.send(post_in_chunks(&token));
        client.send(in_chunks(&body, 777));
        assert_eq!(client.body(), body);
    }
    let received = origin.received();
    assert_eq!(received.len(), 10);
    assert!(received.iter().all(|received| received.body == noise(received.body.len())));
    for (index, record) in proxy.audit(10).iter().enumerate() {
        let length = received[index].body.len();
        assert_eq!((&record["bytes_in"], &record["bytes_out"]), (&length.into(), &length.into()));
    }
}

#[test]
fn ten_megabytes_pass_in_both_directions_at_once() {
    const LENGTH: usize = 10 * 1024 * 1024;
    let (origin, _folder, token, proxy) = staged("");
    let mut client = Line::to(&proxy.address);
    let body = noise(LENGTH);
    client.send(post(&token, "").replace("Content-Length: 0", &format!("Content-Length: {LENGTH}")));

    let mut upstream = origin.accept();
    upstream.request();
    upstream.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n"));
    // the upstream echoes while the client still sends, and the client reads while it does
    let echo = std::thread::spawn(move || {
        let mut to = upstream.socket().try_clone().unwrap();
        let copied = io::copy(&mut upstream.reader().take(LENGTH as u64), &mut to).unwrap();
        assert_eq!(copied, LENGTH as u64);
        upstream
    });
    let mut sending = client.socket().try_clone().unwrap();
    let sender = {
        let body = body.clone();
        std::thread::spawn(move || sending.write_all(&body).unwrap())
    };
    assert!(client.body() == body, "the echo differs");
    sender.join().unwrap();
    drop(echo.join().unwrap());
    assert_eq!(proxy.audit(1)[0]["bytes_in"], LENGTH);
}

// --- At once --------------------------------------------------------------------------------

#[test]
fn the_head_of_an_answer_comes_before_its_body_exists() {
    let (origin, _folder, token, proxy) = staged("");
    let mut client = Line::to(&proxy.address);
    client.send(get(&token, "Accept: text/event-stream\r\n"));
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
    let head = client.answer_head();
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    assert!(proxy.audit_so_far().is_empty(), "a request that goes on has no record yet");
}

#[test]
fn events_come_one_by_one_whatever_their_content_type() {
    let (origin, _folder, token, proxy) = staged("");
    for content_type in ["text/event-stream", "application/json", "text/html"] {
        let mut client = Line::to(&proxy.address);
        client.send(post(&token, "{}"));
        let mut upstream = origin.accept();
        upstream.request();
        assert_eq!(upstream.bytes(2), b"{}");
        upstream.send(format!("HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ntransfer-encoding: chunked\r\n\r\n"));
        client.answer_head();
        for event in ["data: 1\n\n", "data: 2\n\n", "x", "data: 3\n\n"] {
            upstream.send_chunk(event);
            assert_eq!(client.chunk(), event);
        }
        upstream.send_chunk("");
        assert!(client.end_of_chunks(), "a clean end");
        // a kept connection would serve the next round
        drop(upstream);
    }
    assert!(proxy.audit(3).iter().all(|record| record["ended"] == "complete"));
}

#[test]
fn a_stream_that_goes_on_for_long_is_a_request_among_others_on_its_connection() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let (origin, _folder, token, proxy) = staged("");
    let mut client = Line::to(&proxy.address);
    let mut upstream = None;
    let large = "x".repeat(200_000);
    for (number, request) in [get(&token, ""), post(&token, "{}"), get(&token, "")].into_iter().enumerate() {
        // its successor does not wait for the end
        client.send(request + &post(&token, "next"));
        let upstream = upstream.get_or_insert_with(|| origin.accept());
        let body = upstream.request().values("content-length").first().map_or(0, |length| length.parse().unwrap());
        upstream.bytes(body);
        upstream.send(HEAD);
        client.answer_head();
        upstream.send_chunk("data: 1\n\n");
        assert_eq!(client.chunk(), "data: 1\n\n");
        eventually("the record of a stream that goes on", || {
            let opened = proxy.audit_lines().iter().filter(|record| record["event"] == "stream_opened").count();
            (opened > number).then_some(())
        });
        for event in ["data: 2\n\n", "x", "data: 3\n\n"] {
            upstream.send_chunk(event);
            assert_eq!(client.chunk(), event);
        }
        upstream.send_chunk(&large);
        let mut taken = String::new();
        while taken.len() < large.len() {
            taken += &client.chunk();
        }
        assert!(taken == large, "every byte");
        upstream.send_chunk("");
        assert!(client.end_of_chunks(), "a clean end");
        upstream.request();
        assert_eq!(upstream.bytes(4), b"next");
        upstream.send(ANSWER);
        assert_eq!(client.answer().body, "ok");
    }
    // and the connection waits for more, or for its end
    let records = proxy.audit(6);
    assert!(records.iter().all(|record| record["ended"] == "complete"), "{records:?}");
    let lengths: Vec<_> = records.iter().map(|record| record["bytes_out"].as_u64().unwrap()).collect();
    assert_eq!(lengths, [200_028, 2, 200_028, 2, 200_028, 2]);
    client.send("GET / HTTP/1.1\r\nHost : x\r\n\r\n");
    let refused = client.answer();
    assert_eq!((refused.status, refused.header("x-request-id").is_some()), (400, true));
    client.await_end();
}

#[test]
fn a_stream_that_goes_on_keeps_what_was_pipelined_behind_it() {
    let (origin, _folder, token, proxy) = staged("");
    let mut client = Line::to(&proxy.address);
    // what the library has read of them together with what is read ahead is more than may be read ahead
    let behind = post(&token, &"x".repeat(1000)).repeat(15);
    client.send(get(&token, "") + &behind);
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
    client.answer_head();
    eventually("the record of a stream that goes on", || {
        proxy.audit_lines().iter().any(|record| record["event"] == "stream_opened").then_some(())
    });
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        upstream.send_chunk(event);
        assert_eq!(client.chunk(), event);
    }
    upstream.send_chunk("");
    assert!(client.end_of_chunks(), "a clean end");
    for _ in 0..15 {
        upstream.request();
        assert_eq!(upstream.bytes(1000), [b'x'; 1000]);
        upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        assert_eq!(client.answer().body, "ok");
    }
}

#[test]
fn a_stream_that_goes_on_ends_its_connection_where_the_request_had_two_framings() {
    let (origin, _folder, token, proxy) = staged("");
    let (length, coding) = ("Content-Length: 12\r\n", "Transfer-Encoding: chunked\r\n");
    for (number, framings) in [[length, coding], [coding, length]].map(|framings| framings.concat()).iter().enumerate()
    {
        let mut client = Line::to(&proxy.address);
        let request = get(&token, framings).replacen("GET", "POST", 1) + "2\r\n{}\r\n0\r\n\r\n";
        client.send(request + &post(&token, "smuggled"));
        let mut upstream = origin.accept();
        upstream.request();
        assert_eq!((upstream.chunk().as_str(), upstream.end_of_chunks()), ("{}", true));
        upstream.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
        client.answer_head();
        eventually("the record of a stream that goes on", || {
            let opened = proxy.audit_lines().iter().filter(|record| record["event"] == "stream_opened").count();
            (opened > number).then_some(())
        });
        for event in ["data: 1\n\n", "data: 2\n\n"] {
            upstream.send_chunk(event);
            assert_eq!(client.chunk(), event);
        }
        upstream.send_chunk("");
        assert!(client.end_of_chunks(), "a clean end");
        let mut rest = String::new();
        client.reader().read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "", "nothing is answered behind it");
        upstream.socket().set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let is_quiet = upstream.reader().fill_buf().map_or(true, <[u8]>::is_empty) && origin.is_quiet();
        assert!(is_quiet, "nor is it sent on");
    }
    assert_eq!(proxy.last_audit().len(), 2);
}

#[test]
fn a_stream_that_goes_on_breaks_off_where_its_upstream_does() {
    let (origin, _folder, token, proxy) = staged("");
    for request in [get(&token, ""), post(&token, "{}")] {
        let mut client = Line::to(&proxy.address);
        client.send(request);
        let mut upstream = origin.accept();
        upstream.request();
        upstream.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        client.answer_head();
        let before = proxy.audit_so_far().len();
        eventually("the record of a stream that goes on", || {
            let opened = proxy.audit_lines().iter().filter(|record| record["event"] == "stream_opened").count();
            (opened > before).then_some(())
        });
        upstream.send_chunk("data: 1\n\n");
        assert_eq!(client.chunk(), "data: 1\n\n");
        drop(upstream);
        assert!(!client.end_of_chunks(), "no clean end");
        assert_eq!(proxy.audit(before + 1)[before]["ended"], "upstream_failed");
    }
}

#[test]
fn a_request_goes_up_while_the_client_still_holds_the_rest() {
    let (origin, _folder, token, proxy) = staged("");
    let mut client = Line::to(&proxy.address);
    client.send(post_in_chunks(&token));
    let mut upstream = origin.accept();
    upstream.request();
    for part in ["first", "second"] {
        client.send_chunk(part);
        assert_eq!(upstream.chunk(), part);
    }
    // and the answer may begin before the request has ended
    upstream.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    client.answer_head();
    client.send_chunk("third");
    assert_eq!(upstream.chunk(), "third");
    upstream.send_chunk("half");
    assert_eq!(client.chunk(), "half");
    client.send_chunk("");
    assert!(upstream.end_of_chunks());
    upstream.send_chunk("");
    assert!(client.end_of_chunks());
    assert_eq!(proxy.audit(1)[0]["bytes_in"], "firstsecondthird".len());
}

#[test]
fn a_client_that_does_not_read_holds_up_its_upstream_and_fills_no_memory() {
    let (origin, _folder, token, proxy) = staged("");
    let mut client = Line::to(&proxy.address);
    client.send(get(&token, ""));
    let upstream = origin.accept();
    let before = resident(&proxy);
    let mut socket = upstream.socket().try_clone().unwrap();
    socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 209715200\r\n\r\n").unwrap();
    // an upstream counts as held up when it could write nothing for a second
    socket.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let (block, mut written) = (vec![b'x'; 65_536], 0);
    while let Ok(count) = socket.write(&block) {
        written += count;
        assert!(written < 64 << 20, "{written} bytes went into nowhere");
    }
    let grown = resident(&proxy).saturating_sub(before);
    assert!(grown < 16 << 20, "the proxy grew by {grown} bytes");

    // what was held up is not lost
    client.answer_head();
    let mut taken = 0;
    let mut part = vec![0; 65_536];
    while taken < written {
        let count = client.reader().read(&mut part).unwrap();
        assert!(count > 0, "the rest is lost after {taken} of {written} bytes");
        taken += count;
    }
    assert_eq!(taken, written);
}

/// The resident memory of the proxy, in bytes.
fn resident(proxy: &Proxy) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[test]
fn what_came_before_an_upstream_broke_off_arrives_and_the_break_with_it() {
    let (origin, _folder, token, proxy) = staged("");
    let mut client = Line::to(&proxy.address);
    client.send(get(&token, "Connection: close\r\n"));
    let mut upstream = origin.accept();
    upstream.request();
    // all at once, so that the end is known before anything has gone on
    upstream.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nbegun\r\n");
    upstream.socket().shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(client.answer_head().status, 200);
    assert_eq!(client.chunk(), "begun");
    assert!(!client.end_of_chunks(), "a broken answer must not seem whole");
}
