//! The moment of revocation is the moment of refusal: for the next request, for an open stream, and
//! for a stream that opens in that very moment. Nobody else feels anything.

use std::fs;
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Folder, Keep, Origin, Proxy, Received, connect, eventually, get, post, read_chunk, read_head};
use crate::stage::{Line, Stage, staged};

/// An origin whose every answer is a stream with one event, and then silence.
pub fn streaming() -> Origin {
    Origin::scripted(|_, stream| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(format!("{head}7\r\ndata: 0\r\n").as_bytes())?;
        Ok(Keep::Open)
    })
}

/// Opens a stream and reads its first event.
pub fn open(proxy: &Proxy, token: &str) -> BufReader<TcpStream> {
    let mut stream = connect(&proxy.address);
    let request = format!("GET /mcp HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n\r\n", proxy.address);
    stream.write_all(request.as_bytes()).unwrap();
    let mut reader = BufReader::new(stream);
    assert_eq!(read_head(&mut reader).status, 200);
    assert_eq!(read_chunk(&mut reader).unwrap().unwrap(), b"data: 0");
    reader
}

/// Reads on until the stream ends, which must not look like a proper end; tells how long that took.
pub fn time_to_cut(mut stream: BufReader<TcpStream>) -> Duration {
    let started = Instant::now();
    let end = read_chunk(&mut stream);
    assert!(end.is_err(), "a cut stream must not end cleanly: {end:?}");
    started.elapsed()
}

fn ask(proxy: &Proxy, token: &str) -> u16 {
    let host = &proxy.address;
    proxy.ask(&format!("GET /mcp HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n")).status
}

/// Adds a line to the record of the token that was made last.
fn amend(folder: &Folder, line: &str) {
    let text = folder.read("tokens.toml");
    folder.write("tokens.toml", &format!("{text}{line}\n"));
}

#[test]
fn an_open_stream_ends_within_a_second_of_its_tokens_revocation_and_no_other_does() {
    let origin = streaming();
    let folder = Folder::new();
    let bobs = folder.token("bob", &[]);
    let alices = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "");
    let (alice, mut bob) = (open(&proxy, &alices), open(&proxy, &bobs));

    amend(&folder, "revoked_at = 2026-01-01T00:00:00Z");
    assert!(time_to_cut(alice) < Duration::from_secs(1));
    assert_eq!(ask(&proxy, &alices), 401);
    eventually("the end of the upstream's connection", || (!origin.closed().is_empty()).then_some(()));

    bob.get_ref().set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let nothing = read_chunk(&mut bob).unwrap_err();
    assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock, "bob's stream must still be open");

    let audit = proxy.audit(2);
    let record = audit.iter().find(|record| record["user"] == "alice" && record["status"] == 200).unwrap();
    assert_eq!((&record["ended"], &record["outcome"]), (&"revoked".into(), &"allowed".into()));
    assert_eq!(record["bytes_out"], 7);
}

#[test]
fn a_stream_ends_when_its_user_is_suspended_removed_or_loses_a_right() {
    let users = |alice: &str, scopes: &str| {
        format!("[[users]]\nid = \"bob\"\n{alice}\n[roles.developer]\nscopes = [{scopes}]\n")
    };
    let listed = "[[users]]\nid = \"alice\"\nroles = [\"developer\"]\n";
    for (change, expected) in [
        (users(&format!("{listed}status = \"suspended\""), "\"a\", \"b\""), "suspended"),
        (users("", "\"a\", \"b\""), "removed"),
        (users(listed, "\"a\""), "downgraded"),
        (users(&format!("{listed}org = \"another\""), "\"a\", \"b\""), "of another organisation"),
    ] {
        let origin = streaming();
        let folder = Folder::new();
        let token = folder.token("alice", &[]);
        let tokens = folder.read("tokens.toml");
        folder.write("tokens.toml", &format!("{tokens}{}", users(listed, "\"a\", \"b\"")));
        let proxy = folder.serve(&origin.url(), "");
        let stream = open(&proxy, &token);
        folder.write("tokens.toml", &format!("{tokens}{change}"));
        assert!(time_to_cut(stream) < Duration::from_secs(1), "{expected}");
        assert_eq!(proxy.audit(1)[0]["ended"], "revoked", "{expected}");
    }
}

#[test]
fn more_rights_end_no_stream() {
    let origin = streaming();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let tokens = folder.read("tokens.toml");
    let with =
        |scopes: &str| format!("{tokens}[[users]]\nid = \"alice\"\nroles = [\"r\"]\n[roles.r]\nscopes = [{scopes}]\n");
    folder.write("tokens.toml", &with("\"a\""));
    let mut proxy = folder.serve(&origin.url(), "");
    let mut stream = open(&proxy, &token);
    folder.write("tokens.toml", &with("\"a\", \"b\""));
    eventually("the new list", || proxy.log().iter().any(|entry| entry["generation"] == 2).then_some(()));
    stream.get_ref().set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert_eq!(read_chunk(&mut stream).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    proxy.signal("TERM");
    drop(stream);
    assert!(proxy.wait().success());
}

#[test]
fn an_answer_that_comes_after_the_revocation_of_its_token_is_a_401() {
    let (origin, folder, token, proxy) = staged("");
    let mut client = Line::to(&proxy.address);
    client.send(post(&token, "{}"));
    let mut upstream = origin.accept();
    upstream.request();
    let list = folder.read("tokens.toml");
    folder.write("tokens.toml", &format!("{list}revoked_at = 2026-01-01T00:00:00Z\n"));
    let in_force = "patgate_tokens{status=\"revoked\"} 1\n";
    eventually("the revocation", || proxy.health("/metrics").body.contains(in_force).then_some(()));
    // whole and small, so that there is no stream to be cut
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecret");
    let answer = client.answer();
    assert_eq!((answer.status, answer.body.contains("secret")), (401, false));
    assert_eq!(proxy.record_of(&answer)["reason"], "revoked");
}

#[test]
fn a_stream_ends_when_its_token_expires() {
    let origin = streaming();
    let folder = Folder::new();
    let token = folder.token("alice", &["--expires", "3s"]);
    let proxy = folder.serve(&origin.url(), "");
    let stream = open(&proxy, &token);
    assert!(time_to_cut(stream) < Duration::from_secs(4));
    assert_eq!(ask(&proxy, &token), 401);
    let audit = proxy.audit(2);
    assert_eq!((&audit[0]["ended"], &audit[1]["reason"]), (&"expired".into(), &"expired".into()));
}

#[test]
fn a_stream_ends_at_the_moment_for_which_its_tokens_revocation_was_planned() {
    let origin = streaming();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let soon = jiff::Timestamp::now() + Duration::from_secs(3);
    amend(&folder, &format!("revoked_at = {soon:.0}"));
    let proxy = folder.serve(&origin.url(), "");
    let stream = open(&proxy, &token);
    assert!(time_to_cut(stream) < Duration::from_secs(5));
    let audit = proxy.audit(1);
    assert_eq!((&audit[0]["user"], &audit[0]["ended"]), (&"alice".into(), &"revoked".into()));
}

#[test]
fn a_stream_ends_when_its_token_becomes_somebody_elses() {
    let origin = streaming();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "");
    let stream = open(&proxy, &token);
    let tokens = folder.read("tokens.toml");
    folder.write("tokens.toml", &tokens.replace("\"alice\"", "\"bob\""));
    assert!(time_to_cut(stream) < Duration::from_secs(1));
    assert_eq!(proxy.audit(1)[0]["ended"], "revoked");
}

#[test]
fn an_answer_that_comes_after_the_end_of_its_token_is_a_401() {
    let (origin, folder) = (Stage::new(), Folder::new());
    let token = folder.token("alice", &["--expires", "2s"]);
    let proxy = folder.serve(&origin.url(), "");
    let mut client = Line::to(&proxy.address);
    client.send(post(&token, "{}"));
    let mut upstream = origin.accept();
    upstream.request();
    let ended = "patgate_tokens{status=\"expired\"} 1\n";
    eventually("the end of the token", || proxy.health("/metrics").body.contains(ended).then_some(()));
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecret");
    let answer = client.answer();
    assert_eq!((answer.status, answer.body.contains("secret")), (401, false));
    assert_eq!(proxy.record_of(&answer)["reason"], "expired");
}

#[test]
fn a_stream_ends_when_its_token_comes_to_an_end_that_was_put_forward() {
    let origin = streaming();
    let folder = Folder::new();
    let token = folder.token("alice", &["--expires", "never"]);
    let proxy = folder.serve(&origin.url(), "");
    let stream = open(&proxy, &token);
    let id = &token["mcp_pat_".len()..][..10];
    assert!(folder.run(&["token", "rotate", id, "--grace", "2s", "--tokens", "tokens.toml"]).status.success());
    let took = time_to_cut(stream);
    assert_eq!(proxy.audit(1)[0]["ended"], "expired");
    assert!(took < Duration::from_secs(3), "{took:?}");
}

/// An origin that writes as much as it is let, and how much that was so far.
pub fn flooding() -> (Origin, Arc<AtomicUsize>) {
    let written = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&written);
    let origin = Origin::scripted(move |_, stream| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")?;
        let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
        loop {
            stream.write_all(chunk.as_bytes())?;
            counting.fetch_add(0x4000, Ordering::Relaxed);
        }
    });
    (origin, written)
}

/// Waits until nothing is taken any more.
pub fn await_standstill(written: &AtomicUsize) {
    let mut before = (0, Instant::now());
    eventually("a standstill", || {
        let now = written.load(Ordering::Relaxed);
        if now != before.0 {
            before = (now, Instant::now());
        }
        (now > 0 && before.1.elapsed() > Duration::from_millis(300)).then_some(())
    });
}

#[test]
fn a_client_that_does_not_read_loses_its_stream_just_as_soon() {
    for (lifetime, expected) in [("90d", "revoked"), ("4s", "expired")] {
        let (origin, written) = flooding();
        let folder = Folder::new();
        let token = folder.token("alice", &["--expires", lifetime]);
        let expiry = Instant::now() + Duration::from_secs(4);
        let proxy = folder.serve(&origin.url(), "");
        let mut client = connect(&proxy.address);
        client.write_all(get(&token, "").as_bytes()).unwrap();
        await_standstill(&written);
        assert!(proxy.audit_so_far().is_empty() && origin.closed().is_empty());
        if expected == "revoked" {
            amend(&folder, "revoked_at = 2026-01-01T00:00:00Z");
        }
        let due = if expected == "revoked" { Instant::now() } else { expiry };
        eventually("the end of the upstream's connection", || (!origin.closed().is_empty()).then_some(()));
        assert!(due.elapsed() < Duration::from_secs(1), "{expected}: {:?}", due.elapsed());
        // what was on the way may still arrive, but no proper end
        let mut reader = BufReader::new(client);
        read_head(&mut reader);
        let end = loop {
            match read_chunk(&mut reader) {
                Ok(Some(_)) => {}
                end => break end,
            }
        };
        assert!(end.is_err(), "{expected}: {end:?}");
        let audit = proxy.last_audit();
        let ends: Vec<_> = audit.iter().map(|record| record["ended"].as_str().unwrap()).collect();
        assert_eq!(ends, [expected]);
    }
}

#[test]
fn the_deny_list_stops_a_token_by_id_and_by_digest_whatever_the_list_says() {
    let origin = streaming();
    let folder = Folder::new();
    let (first, second) = (folder.token("alice", &[]), folder.token("alice", &[]));
    let id = &first["mcp_pat_".len()..][..10];
    folder.write("revoked.txt", "# nobody yet\n");
    let proxy = folder.serve_tokens(&origin.url(), "file = \"tokens.toml\"\ndeny_list = \"revoked.txt\"\n");
    let (one, two) = (open(&proxy, &first), open(&proxy, &second));
    folder.write("revoked.txt", &format!("{id} # laptop lost\n"));
    assert!(time_to_cut(one) < Duration::from_secs(1));
    assert_eq!(ask(&proxy, &first), 401);

    let digest = patgate::token::TokenDigest::of(&second);
    // the list itself may be broken meanwhile
    folder.write("tokens.toml", "not a list");
    folder.write("revoked.txt", &format!("{id}\n{digest}\n"));
    assert!(time_to_cut(two) < Duration::from_secs(1));
    assert_eq!(ask(&proxy, &second), 401);
    assert_eq!(proxy.audit(4).last().unwrap()["reason"], "revoked");
}

#[test]
fn a_session_belongs_to_its_user_whatever_token_she_uses() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nmcp-session-id: s-1\r\ncontent-length: 2\r\n\r\n{}",
    );
    let folder = Folder::new();
    let (old, new) = (folder.token("alice", &[]), folder.token("alice", &[]));
    let bobs = folder.token("bob", &[]);
    let proxy = folder.serve(&origin.url(), "");
    let ask = |method: &str, target: &str, session: &str, token: &str| {
        let host = &proxy.address;
        proxy.ask(&format!(
            "{method} {target} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n{session}Content-Length: 0\r\n\r\n"
        ))
    };
    let header = "Mcp-Session-Id: s-1\r\n";
    assert_eq!(ask("POST", "/mcp", "", &old).status, 200);
    for method in ["POST", "GET", "DELETE"] {
        assert_eq!(ask(method, "/mcp", header, &new).status, 200, "a rotated token keeps its user's session");
        let refused = ask(method, "/mcp", header, &bobs);
        assert_eq!(refused.status, 404);
        assert!(refused.json()["error"]["message"].as_str().unwrap().contains("session not found"));
    }
    assert_eq!(ask("POST", "/message?sessionId=legacy", "", &old).status, 200);
    assert_eq!(ask("POST", "/message?%73ession_id=legacy", "", &bobs).status, 404);
    let received = origin.received().len();
    assert_eq!(received, 5, "what is refused never reaches the origin");
    let audit = proxy.audit(9);
    assert_eq!(audit.iter().filter(|record| record["reason"] == "session_mismatch").count(), 4);
    // `printf s-1 | sha256sum`: told by the answer that made it as well as by the requests that name it
    assert!(audit[..7].iter().all(|record| record["mcp_session"] == "6a840baf5d8c3ff2"), "{audit:?}");
    assert!(!fs::read_to_string(folder.path("audit.jsonl")).unwrap().contains("legacy"));
}

/// The older transport tells of its session in the first event of a stream and in no header.
#[test]
fn a_session_belongs_to_the_user_whose_stream_names_it() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 61\r\n\r\n\
         event: endpoint\r\ndata: /messages?sessionId=made-for-alice\r\n\r\n",
    );
    let folder = Folder::new();
    let [alices, bobs] = ["alice", "bob"].map(|user| folder.token(user, &[]));
    let proxy = folder.serve(&origin.url(), "");
    let ask = |method: &str, target: &str, token: &str| {
        let host = &proxy.address;
        proxy.ask(&format!(
            "{method} {target} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nContent-Length: 0\r\n\r\n"
        ))
    };
    assert_eq!(ask("GET", "/sse", &alices).status, 200);
    assert_eq!(ask("POST", "/messages?sessionId=made-for-alice", &bobs).status, 404);
    assert_eq!(ask("POST", "/messages?session_id=made-for-alice", &alices).status, 200);
    assert_eq!(origin.received().len(), 2);
    let audit = proxy.audit(3);
    assert_eq!(audit[1]["reason"], "session_mismatch");
    assert!(audit.iter().all(|record| record["mcp_session"] == audit[1]["mcp_session"]), "{audit:?}");
}

#[test]
fn a_stream_that_may_name_its_session_is_asked_for_without_compression() {
    let (origin, folder) = (Origin::plain(), Folder::new());
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "");
    let (events, both) = ("Accept: text/event-stream", "Accept: application/json, Text/Event-Stream;q=0.5");
    let cases = [
        ("GET", events, "identity"),
        ("GET", both, "identity"),
        ("GET", "Accept: text/html", "gzip"),
        ("GET", "Accept: text/event-stream\r\nMcp-Session-Id: s1", "gzip"),
        ("POST", both, "gzip"),
    ];
    for (method, fields, _) in cases {
        let request = get(&token, &format!("{fields}\r\nAccept-Encoding: gzip\r\nContent-Length: 0\r\n"));
        assert_eq!(proxy.ask(&request.replacen("GET", method, 1)).status, 200);
    }
    for (received, case) in origin.received().iter().zip(cases) {
        assert_eq!(received.values("accept-encoding"), [case.2], "{case:?}");
    }
}

#[test]
fn a_session_of_somebody_else_that_the_upstream_gives_out_is_not_passed_on() {
    // one event before the other, and the end of the stream with it or later
    const STREAM: &str = "event: endpoint\r\ndata: /messages?sessionId=s-1\r\n\r\n";
    let origin = Origin::scripted(|request: &Received, stream: &mut TcpStream| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";
        match request.request_line() {
            line if line.contains("/whole") => {
                write!(stream, "{head}content-length: {}\r\n\r\n{STREAM}", STREAM.len())?;
            }
            line if line.contains("/open") => {
                write!(stream, "{head}transfer-encoding: chunked\r\n\r\n8\r\n: ping\n\n\r\n")?;
                thread::sleep(Duration::from_millis(300));
                write!(stream, "{:x}\r\n{STREAM}\r\n0\r\n\r\n", STREAM.len())?;
            }
            _ => write!(stream, "HTTP/1.1 200 OK\r\nmcp-session-id: s-1\r\ncontent-length: 2\r\n\r\n{{}}")?,
        }
        Ok(Keep::Open)
    });
    let folder = Folder::new();
    let [alices, bobs] = ["alice", "bob"].map(|user| folder.token(user, &[]));
    let proxy = folder.serve(&origin.url(), "");
    let ask = |method: &str, target: &str, token: &str| {
        let mut line = Line::to(&proxy.address);
        let host = &proxy.address;
        line.send(format!(
            "{method} {target} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nContent-Length: 0\r\n\
             Connection: close\r\n\r\n"
        ));
        let mut all = Vec::new();
        // it may end in the middle
        let _ = line.reader().read_to_end(&mut all);
        String::from_utf8(all).unwrap()
    };
    for (method, target) in [("GET", "/whole"), ("GET", "/open"), ("POST", "/mcp"), ("GET", "/mcp")] {
        assert!(ask(method, target, &alices).contains("s-1"), "{method} {target}");
        let bobs = ask(method, target, &bobs);
        assert!(!bobs.contains("s-1"), "{bobs}");
        assert_eq!(bobs.starts_with("HTTP/1.1 502"), target == "/mcp", "{bobs}");
    }
    let audit = proxy.audit(8);
    for (record, (reason, ended)) in audit.iter().skip(1).step_by(2).zip([
        ("ok", "upstream_failed"),
        ("ok", "upstream_failed"),
        ("upstream_invalid", "complete"),
        ("upstream_invalid", "complete"),
    ]) {
        assert_eq!((&record["reason"], &record["ended"]), (&reason.into(), &ended.into()), "{record}");
        // `printf s-1 | sha256sum`
        assert_eq!(record["mcp_session"], "6a840baf5d8c3ff2");
    }
    let log = proxy.log();
    let told = log.iter().filter(|entry| entry["error"].to_string().contains("session that is somebody else's"));
    assert_eq!(told.count(), 4, "{log:?}");
}

#[test]
fn a_session_that_the_upstream_does_not_accept_is_not_its_users() {
    let (origin, folder) = (Stage::new(), Folder::new());
    let (alice, bob) = (folder.token("alice", &[]), folder.token("bob", &[]));
    let proxy = folder.serve(&origin.url(), "workers = 1");
    for (token, answer) in [(&alice, "404 Not Found"), (&bob, "200 OK"), (&bob, "200 OK")] {
        let mut client = Line::to(&proxy.address);
        client.send(get(token, "mcp-session-id: s1\r\n"));
        let mut upstream = origin.accept();
        upstream.request();
        upstream.send(format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"));
        assert_eq!(client.answer().status.to_string(), answer[..3]);
    }
}

#[test]
fn a_session_is_in_use_as_long_as_a_stream_of_it_is_open() {
    let (origin, folder) = (Stage::new(), Folder::new());
    let (alice, bob) = (folder.token("alice", &[]), folder.token("bob", &[]));
    let proxy = folder.serve(&origin.url(), "[timeouts]\nsession_idle = \"2s\"");
    let request = |token| get(token, "mcp-session-id: s1\r\n");
    let mut stream = Line::to(&proxy.address);
    stream.send(request(&alice));
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
    assert_eq!(stream.answer_head().status, 200);
    thread::sleep(Duration::from_secs(4));
    assert_eq!(proxy.ask(&request(&bob)).status, 404, "it is alice's, who has said nothing since");
    drop((stream, upstream));
    thread::sleep(Duration::from_secs(4));
    let mut client = Line::to(&proxy.address);
    client.send(request(&bob));
    // nobody uses it any more
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(client.answer().status, 200);
}

#[test]
fn the_last_use_of_a_token_outlives_reloads_and_restarts() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let id = &token["mcp_pat_".len()..][..10];
    let mut proxy = folder.serve(&origin.url(), "");
    assert_eq!(ask(&proxy, &token), 200);
    folder.token("bob", &[]);
    eventually("the new list", || proxy.log().iter().any(|entry| entry["generation"] == 2).then_some(()));
    proxy.signal("TERM");
    assert!(proxy.wait().success());
    let written = folder.read("tokens.toml.last-used.json");
    let first: serde_json::Value = serde_json::from_str(&written).unwrap();
    assert!(first[id].is_string() && first.as_object().unwrap().len() == 1, "{written}");

    let mut proxy = folder.serve(&origin.url(), "");
    proxy.signal("TERM");
    assert!(proxy.wait().success());
    assert_eq!(folder.read("tokens.toml.last-used.json"), written);
}
