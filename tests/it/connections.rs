//! Many requests on one connection, towards the client and towards the upstream: each is judged alone,
//! each gets its own answer, and what is left of one never reaches the next.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use crate::endings::stop;
use crate::harness::{Folder, Keep, Origin, eventually, get, post, post_in_chunks};
use crate::stage::{Line, Stage, staged};

/// An origin that answers with the user that it was told.
fn telling_who() -> Origin {
    Origin::scripted(|received, stream| {
        let user = received.values("x-auth-user").concat();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{user}", user.len());
        stream.write_all(answer.as_bytes()).map(|()| Keep::Open)
    })
}

const WITHOUT_TOKEN: &str = "GET /mcp HTTP/1.1\r\nHost: localhost\r\n\r\n";

// --- From the client ------------------------------------------------------------------------

#[test]
fn every_request_on_a_connection_gets_a_verdict_of_its_own() {
    let origin = telling_who();
    let folder = Folder::new();
    let (alice, bob) = (folder.token("alice", &[]), folder.token("bob", &[]));
    let proxy = folder.serve(&origin.url(), "");
    let mut client = Line::to(&proxy.address);
    for _ in 0..5 {
        for (request, status, who) in [
            (get(&alice, ""), 200, Some("alice")),
            (WITHOUT_TOKEN.to_owned(), 401, None),
            (post(&bob, "{}"), 200, Some("bob")),
            (get("unknown", ""), 401, None),
            (get(&alice, ""), 200, Some("alice")),
            (get(&bob, ""), 200, Some("bob")),
            (get(&bob, "Authorization: Bearer x\r\n"), 400, None),
        ] {
            client.send(&request);
            let answer = client.answer();
            assert_eq!(answer.status, status, "{request}");
            assert!(who.is_none_or(|who| answer.body == who), "{request} was answered with {}", answer.body);
        }
    }
    assert_eq!(origin.received().len(), 5 * 4);
}

#[test]
fn requests_that_do_not_wait_for_their_turn_are_judged_and_answered_in_order() {
    let origin = telling_who();
    let folder = Folder::new();
    let (alice, bob) = (folder.token("alice", &[]), folder.token("bob", &[]));
    let proxy = folder.serve(&origin.url(), "");
    let mut client = Line::to(&proxy.address);
    client.send(post(&alice, "{}") + WITHOUT_TOKEN + &get(&bob, "") + &get("unknown", "") + &get(&alice, ""));
    let answers: Vec<_> = (0..5).map(|_| client.answer()).collect();
    assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200, 401, 200, 401, 200]);
    assert_eq!([0, 2, 4].map(|index| answers[index].body.as_str()), ["alice", "bob", "alice"]);
    assert_eq!(origin.received().len(), 3);
}

#[test]
fn a_refusal_is_read_by_a_client_that_has_a_megabyte_to_send_first() {
    let origin = Origin::plain();
    let folder = Folder::new();
    folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "");
    let body = "x".repeat(1 << 20);
    for _ in 0..10 {
        let mut client = Line::to(&proxy.address);
        // a client that looks for an answer only when all is sent
        client.send(post("unknown", &body));
        assert_eq!(client.answer().status, 401);
    }
    assert!(origin.received().is_empty());
}

#[test]
fn a_refused_body_may_come_in_parts() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "");
    // a small one is read to its end, and its connection goes on; of a larger one a part is read, and
    // the end of the connection waits for the client
    for (parts, goes_on) in [([20, 20, 20], true), ([80, 20, 4], false)] {
        let parts = parts.map(|kilobytes| "x".repeat(kilobytes * 1024));
        let length = parts.concat().len();
        let mut client = Line::to(&proxy.address);
        client.send(post("unknown", "").replace("Content-Length: 0", &format!("Content-Length: {length}")));
        for part in parts {
            client.send(part);
            // time enough for a hasty server to reset the connection
            thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(client.answer().status, 401);
        if goes_on {
            client.send(get(&token, ""));
            assert_eq!(client.answer().status, 200);
        } else {
            client.await_end();
        }
    }
}

#[test]
fn a_refused_client_that_stops_in_its_body_is_answered_all_the_same() {
    let (_origin, _folder, _token, proxy) = staged("");
    let mut client = Line::to(&proxy.address);
    let since = Instant::now();
    client.send(post("unknown", "1234567890").replace("67890", ""));
    assert_eq!(client.answer().status, 401);
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    client.await_end();
}

#[test]
fn nobody_is_told_to_go_on_before_the_credential_is_accepted() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "");
    let waiting =
        |token: &str| post(token, "").replace("Content-Length: 0", "Content-Length: 2\r\nExpect: 100-continue");
    let mut client = Line::to(&proxy.address);
    client.send(waiting("unknown"));
    assert_eq!(client.answer().status, 401);

    let mut client = Line::to(&proxy.address);
    client.send(waiting(&token));
    assert_eq!(client.answer_head().status, 100);
    client.send("{}");
    assert_eq!(client.answer().status, 200);
    let [received] = &origin.received()[..] else { panic!() };
    assert!(received.values("expect").is_empty());
}

#[test]
fn slow_and_silent_clients_are_let_go_in_time() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "[timeouts]\nhead = \"300ms\"");
    let whole = get(&token, "");
    for begun in ["", "G", "PRI * HTTP/2.0\r\n", &whole[..whole.len() - 2]] {
        let mut client = Line::to(&proxy.address);
        let since = Instant::now();
        client.send(begun);
        client.await_end();
        let took = since.elapsed();
        assert!((250..3000).contains(&took.as_millis()), "{begun:?} took {took:?}");
    }
    // a drop at a time does not move the deadline
    let mut client = Line::to(&proxy.address);
    let since = Instant::now();
    client.socket().set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    for byte in whole[..whole.len() - 2].bytes() {
        let ended = client.socket().write_all(&[byte]).is_err() || matches!(client.reader().read(&mut [0; 512]), Ok(0));
        if ended {
            break;
        }
    }
    assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
    assert!(origin.received().is_empty());
}

// --- Towards the upstream -------------------------------------------------------------------

#[test]
fn one_connection_to_the_upstream_serves_many_clients() {
    let origin = telling_who();
    let folder = Folder::new();
    let (alice, bob) = (folder.token("alice", &[]), folder.token("bob", &[]));
    let proxy = folder.serve(&origin.url(), "workers = 1");
    for (request, who) in [(get(&alice, ""), "alice"), (post(&bob, "{}"), "bob")].iter().cycle().take(20) {
        assert_eq!(proxy.ask(request).body, *who);
    }
    let connections: HashSet<_> = origin.received().iter().map(|received| received.connection).collect();
    assert_eq!(connections.len(), 1, "{connections:?}");
}

#[test]
fn a_connection_whose_upstream_answered_early_is_not_used_again() {
    let (origin, _folder, token, proxy) = staged("workers = 1");
    for request in [post(&token, "").replace("Content-Length: 0", "Content-Length: 1000"), post_in_chunks(&token)] {
        let mut client = Line::to(&proxy.address);
        client.send(request + "5\r\nbegun\r\n");
        let mut upstream = origin.accept();
        upstream.request();
        upstream.send("HTTP/1.1 413 Content Too Large\r\ncontent-length: 4\r\n\r\nmuch");
        let answer = client.answer();
        assert_eq!((answer.status, answer.body.as_str()), (413, "much"));
        upstream.await_end();
        // the rest of the body is nobody's request
        client.await_end();
    }
    let mut client = Line::to(&proxy.address);
    client.send(get(&token, ""));
    let mut upstream = origin.accept();
    assert!(upstream.request().request_line().starts_with("GET /mcp"));
}

#[test]
fn a_connection_with_bytes_behind_its_answer_is_not_used_again() {
    let (origin, _folder, token, proxy) = staged("workers = 1");
    let mut client = Line::to(&proxy.address);
    for _ in 0..3 {
        client.send(post(&token, "{}"));
        // what is behind the answer would begin the next one
        let mut upstream = origin.accept();
        upstream.request();
        upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\n");
        assert_eq!(client.answer().body, "{}");
        upstream.await_end();
    }
}

#[test]
fn a_flood_of_early_answers_leaves_no_descriptors_behind() {
    let (origin, _folder, token, proxy) = staged("");
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", proxy.pid())).unwrap().count();
    let mut few = usize::MAX;
    for round in 0..1010 {
        let mut client = Line::to(&proxy.address);
        client.send(post(&token, "").replace("Content-Length: 0", "Content-Length: 10485760") + "first bytes");
        let mut upstream = origin.accept();
        upstream.request();
        upstream.send("HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(client.answer().status, 413);
        if round == 9 {
            few = descriptors();
        }
    }
    eventually("the descriptors to be given back", || (descriptors() <= few).then_some(()));
}

#[test]
fn what_an_upstream_says_too_much_never_answers_somebody_else() {
    let smuggled = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nstolen";
    let origin = Origin::scripted(move |received, stream| {
        let user = received.values("x-auth-user").concat();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{user}", user.len());
        let extra = if user == "mallory" { smuggled } else { "" };
        stream.write_all((answer + extra).as_bytes()).map(|()| Keep::Open)
    });
    let folder = Folder::new();
    let (alice, mallory) = (folder.token("alice", &[]), folder.token("mallory", &[]));
    let proxy = folder.serve(&origin.url(), "workers = 1");
    for _ in 0..50 {
        assert_eq!(proxy.ask(&post(&mallory, "{}")).body, "mallory");
        assert_eq!(proxy.ask(&get(&alice, "")).body, "alice");
    }
    assert_eq!(origin.received().len(), 100, "each request arrives once");
}

#[test]
fn what_an_upstream_says_unasked_is_no_answer_to_the_next_request() {
    let (origin, folder) = (Stage::new(), Folder::new());
    let (alice, mallory) = (folder.token("alice", &[]), folder.token("mallory", &[]));
    let proxy = folder.serve(&origin.url(), "workers = 1\n[timeouts]\nupstream_idle = \"1h\"");
    let mut client = Line::to(&proxy.address);
    for _ in 0..5 {
        let mut first = Line::to(&proxy.address);
        first.send(post(&mallory, "{}"));
        let mut unused = origin.accept();
        unused.request();
        unused.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
        assert_eq!(first.answer().body, "{}");
        // they are found together, and the request first: nobody has had a turn to close that connection
        stop(&proxy);
        client.send(get(&alice, ""));
        unused.send("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nstolen");
        proxy.signal("CONT");
        let mut upstream = origin.accept();
        assert_eq!(upstream.request().values("x-auth-user"), ["alice"]);
        upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nhonest");
        assert_eq!(client.answer().body, "honest");
        unused.await_end();
    }
}

#[test]
fn a_connection_that_the_upstream_closed_meanwhile_is_replaced_without_a_second_sending() {
    // it says nothing of closing, and closes
    let origin = Origin::scripted(|received, stream| {
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", received.body.len());
        stream.write_all(answer.as_bytes())?;
        stream.write_all(&received.body).map(|()| Keep::Close)
    });
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "workers = 1");
    for round in 0..20 {
        let body = format!("round {round}");
        assert_eq!(proxy.ask(&post(&token, &body)).body, body);
        eventually("the upstream to close", || origin.closed().contains(&(2 * round)).then_some(()));
        assert_eq!(proxy.ask(&get(&token, "")).status, 200);
        eventually("the upstream to close", || origin.closed().contains(&(2 * round + 1)).then_some(()));
    }
    let bodies: Vec<_> =
        origin.received().into_iter().map(|received| received.body).filter(|body| !body.is_empty()).collect();
    assert_eq!(bodies, (0..20).map(|round| format!("round {round}").into_bytes()).collect::<Vec<_>>());
}

#[test]
fn an_unused_connection_to_the_upstream_is_closed_in_its_time() {
    let (origin, _folder, token, proxy) = staged("[timeouts]\nupstream_idle = \"500ms\"");
    let mut client = Line::to(&proxy.address);
    client.send(get(&token, ""));
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
    assert_eq!(client.answer().status, 200);
    // nobody asks for anything more, and the upstream keeps it open
    let since = Instant::now();
    upstream.await_end();
    assert!((450..2000).contains(&since.elapsed().as_millis()), "{:?}", since.elapsed());
}

#[test]
fn an_upstream_that_says_it_closes_is_believed() {
    let origin = Origin::scripted(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\ncontent-length: 2\r\n\r\n{}")?;
        Ok(Keep::Open)
    });
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "workers = 1");
    let mut client = Line::to(&proxy.address);
    for _ in 0..10 {
        client.send(get(&token, ""));
        assert_eq!(client.answer().status, 200);
    }
    let connections: HashSet<_> = origin.received().iter().map(|received| received.connection).collect();
    assert_eq!(connections.len(), 10);
}
