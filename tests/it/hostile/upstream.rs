//! An upstream that is hostile itself, or is made to say what somebody wants: its answer reaches the one who
//! asked, as it is, or is a 502, or breaks off; and nothing of it answers anybody else.

use std::io::{BufReader, Read, Write};
use std::time::Duration;

use crate::harness::{Folder, Keep, Origin, connect, get, read_answer};
use crate::stage::{Line, staged};

/// An answer that nobody asked for.
const FURTHER: &str = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nstolen";

/// What an upstream says, each followed by `FURTHER`.
const ANSWERS: [&str; 52] = [
    "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\ncontent-length: 0\r\ncontent-length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\ncontent-length: 0x5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\ncontent-length: \r\n\r\nhello",
    "HTTP/1.1 200 OK\r\ncontent-length: 5x\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\ncontent-length : 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: xchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, gzip\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhelloxx0\r\n\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhello\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;x\ny\r\nhello\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-request-id: evil\r\nset-cookie: evil\r\n\r\n",
    "HTTP/1.1 204 No Content\r\n\r\n",
    "HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\nhello",
    "HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\nhello",
    "HTTP/1.1 205 Reset Content\r\ncontent-length: 5\r\n\r\nhello",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    "HTTP/1.1 103 Early Hints\r\nx-auth-user: evil\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    "HTTP/1.1 101 Switching Protocols\r\nupgrade: evil\r\nconnection: upgrade\r\n\r\n",
    "HTTP/1.1 199 Odd\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer resource_metadata=\"http://evil/\"\r\ncontent-length: 5\r\n\r\nhello",
    "HTTP/1.1 099 Low\r\ncontent-length: 5\r\n\r\nhello",
    "HTTP/1.1 999 High\r\ncontent-length: 5\r\n\r\nhello",
    "HTTP/1.1 20 Short\r\ncontent-length: 5\r\n\r\nhello",
    "HTTP/1.1 200\r\ncontent-length: 5\r\n\r\nhello",
    "HTTP/2.0 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    "HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "ICY 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    "hello",
    "\r\n\r\n",
    "HTTP/1.1 200 OK\r\nx: a\r\n set-cookie: evil\r\ncontent-length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nx: a\rset-cookie: evil\r\ncontent-length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nx: a\0\r\ncontent-length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nconnection: content-length\r\ncontent-length: 5\r\n\r\nhello",
];

#[test]
fn nothing_that_an_upstream_says_answers_somebody_else() {
    let origin = Origin::scripted(|received, stream| {
        let target = received.request_line().split(' ').nth(1).unwrap().to_owned();
        let evil = target.strip_prefix("/evil/").and_then(|row| ANSWERS.get(row.parse::<usize>().ok()?));
        match evil {
            Some(answer) => stream.write_all(format!("{answer}{FURTHER}").as_bytes())?,
            None => write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{target}", target.len())?,
        }
        Ok(Keep::Open)
    });
    let folder = Folder::new();
    let (alice, bob) = (folder.token("alice", &[]), folder.token("bob", &[]));
    let proxy = folder.serve(&origin.url(), "workers = 1");
    let mut neighbour = BufReader::new(connect(&proxy.address));
    let mut asked = 0;
    for (row, answer) in ANSWERS.iter().enumerate() {
        for method in ["GET", "HEAD", "POST"] {
            let mut client = connect(&proxy.address);
            let head = get(&alice, "Connection: close\r\n").replacen("GET /mcp", &format!("{method} /evil/{row}"), 1);
            client.write_all(head.as_bytes()).unwrap();
            // neighbours come while that is being answered, and after it
            for _ in 0..3 {
                asked += 1;
                let target = format!("/honest/{asked}");
                neighbour.get_mut().write_all(get(&bob, "").replacen("/mcp", &target, 1).as_bytes()).unwrap();
                let heard = read_answer(&mut neighbour);
                assert_eq!((heard.status, heard.body.as_str()), (200, &*target), "after {method} {answer:?}");
            }
            client.set_read_timeout(Some(Duration::from_millis(30))).unwrap();
            let mut heard = Vec::new();
            // a reset is a way to break off, and what promises more than it says may be waited for
            let _ = client.read_to_end(&mut heard);
            let heard = String::from_utf8_lossy(&heard).into_owned();
            assert!(!heard.contains("evil"), "{method} {answer:?}: {heard}");
            // a body without a length may hold anything; one that has a length holds what it says
            let further = heard.contains("stolen") && heard.to_ascii_lowercase().contains("content-length: 5\r\n");
            assert!(!further, "{method} {answer:?}: {heard}");
        }
    }
    assert_eq!(origin.received().len(), asked + 3 * ANSWERS.len(), "each request arrives once");
}

/// Our own answers take the place of those that the HTTP library writes by itself; what only looks like one
/// is somebody's content.
#[test]
fn the_end_of_a_body_is_not_taken_for_an_answer_whatever_it_looks_like() {
    let (origin, _folder, token, proxy) = staged("");
    let mut client = Line::to(&proxy.address);
    for tail in
        ["HTTP/1.1 404 Not Found\r\n\r\n", "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"]
    {
        client.send(get(&token, ""));
        let mut upstream = origin.accept();
        upstream.request();
        upstream
            .send(format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\nfirst", 5 + tail.len()));
        client.answer_head();
        assert_eq!(client.bytes(5), b"first");
        upstream.send(tail);
        assert_eq!(String::from_utf8(client.bytes(tail.len())).unwrap(), tail);
    }
    client.send("not HTTP\r\n\r\n");
    assert_eq!(client.answer().header("x-request-id").map(str::len), Some(32));
}
