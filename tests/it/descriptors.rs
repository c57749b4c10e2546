//! Descriptors that run short: nobody who is in is let down, nobody who comes is dropped, and lists and logs go on.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use http::Request;

use crate::harness::{Folder, Keep, Origin, Proxy, eventually, get};
use crate::http2::Client;
use crate::stage::{Line, Stage, staged};

/// How many descriptors a proxy has open.
fn open(proxy: &Proxy) -> usize {
    fs::read_dir(format!("/proc/{}/fd", proxy.pid())).unwrap().count()
}

/// Lets a proxy have so many descriptors from now on.
fn limit(proxy: &Proxy, most: usize) {
    let limit = format!("--nofile={most}:1024");
    let done = Command::new("prlimit").arg(format!("--pid={}", proxy.pid())).arg(limit).status();
    assert!(done.unwrap().success());
}

/// Limits a proxy that has `at_rest` open to some more clients than these; a quarter is the reserve.
fn limit_to_clients(proxy: &Proxy, at_rest: usize, clients: usize) {
    limit(proxy, (at_rest + 2 * clients) * 4 / 3);
}

/// An origin that closes each connection behind its answer, and says so, so that the next request needs a new one.
fn forgetful() -> Origin {
    Origin::scripted(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}").map(|()| Keep::Close)
    })
}

/// A client that is in, for it has been answered.
fn with_a_connection(proxy: &Proxy) -> Line {
    let mut client = Line::to(&proxy.address);
    client.send(get("unknown", ""));
    assert_eq!(client.answer().status, 401);
    client
}

/// Takes all connections that are to be had, and waits until there are no more.
fn flood(proxy: &Proxy) -> Vec<TcpStream> {
    let held = (0..200).map(|_| TcpStream::connect(&proxy.address).unwrap()).collect();
    eventually("a complaint", || {
        let told = |entry: &serde_json::Value| {
            entry["message"].as_str().is_some_and(|text| text.contains("cannot be accepted"))
        };
        proxy.log().iter().any(told).then_some(())
    });
    held
}

/// Has a token revoked, and the log rotated, by a client that is in: both have to happen as fast as ever.
fn revoke_and_rotate(proxy: &Proxy, folder: &Folder, client: &mut Line, token: &str) {
    fs::rename(folder.path("audit.jsonl"), folder.path("audit.old")).unwrap();
    proxy.signal("HUP");
    eventually("a new log", || folder.path("audit.jsonl").exists().then_some(()));
    let since = Instant::now();
    // it was made last
    folder.write("tokens.toml", &(folder.read("tokens.toml") + "revoked_at = 2026-01-01T00:00:00Z\n"));
    eventually("the revocation", || {
        client.send(get(token, ""));
        (client.answer().status == 401).then_some(())
    });
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    eventually("its record", || proxy.audit_so_far().iter().any(|record| record["reason"] == "revoked").then_some(()));
}

/// The time that a process has used, in hundredths of a second.
fn cpu(proxy: &Proxy) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", proxy.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    [11, 12].iter().map(|field| fields[*field].parse::<u64>().unwrap()).sum()
}

#[test]
fn without_descriptors_accepting_rests_and_goes_on_when_there_are_some() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "[timeouts]\nhead = \"5m\"");
    assert_eq!(proxy.ask(&get(&token, "")).status, 200);
    limit_to_clients(&proxy, open(&proxy), 3);
    let held = flood(&proxy);
    let before = cpu(&proxy);
    std::thread::sleep(Duration::from_secs(1));
    assert!(cpu(&proxy) - before < 20, "it spins");
    let complaints = proxy.log().iter().filter(|entry| entry["level"] == "ERROR").count();
    assert!(complaints < 10, "{complaints} complaints");
    // who comes now waits and is not dropped
    let mut waiting = Line::to(&proxy.address);
    waiting.send(get(&token, ""));
    drop(held);
    assert_eq!(waiting.answer().status, 200);
}

#[test]
fn a_flood_of_connections_leaves_descriptors_to_those_who_are_in_to_lists_and_to_logs() {
    let (origin, folder) = (forgetful(), Folder::new());
    let (token, revoked) = (folder.token("alice", &[]), folder.token("bob", &[]));
    let proxy = folder.serve(&origin.url(), "[timeouts]\nhead = \"5m\"");
    let at_rest = open(&proxy);
    let mut honest = with_a_connection(&proxy);
    limit_to_clients(&proxy, at_rest, 20);
    let _flood = flood(&proxy);
    for _ in 0..3 {
        honest.send(get(&token, ""));
        assert_eq!(honest.answer().status, 200);
    }
    revoke_and_rotate(&proxy, &folder, &mut honest, &revoked);
    honest.send(get(&token, ""));
    assert_eq!(honest.answer().status, 200);
}

#[test]
fn each_client_that_is_let_in_finds_a_connection_to_the_upstream() {
    let (origin, _folder, token, proxy) = staged("[timeouts]\nhead = \"5m\"");
    let at_rest = open(&proxy);
    limit_to_clients(&proxy, at_rest, 10);
    // all of them come to ask, and whoever is let in is served at the same time as all others
    let mut clients: Vec<Line> = (0..30).map(|_| Line::to(&proxy.address)).collect();
    for client in &mut clients {
        client.send(get(&token, ""));
    }
    let mut upstreams: Vec<Line> = (0..10).map(|_| origin.accept()).collect();
    for upstream in &mut upstreams {
        upstream.request();
    }
    drop((upstreams, clients));
    let records = proxy.last_audit();
    assert!(records.iter().all(|record| record["reason"] != "overloaded"), "{records:?}");
}

#[test]
fn what_one_token_takes_of_the_upstream_leaves_descriptors_to_lists_and_to_logs() {
    let (origin, folder) = (Stage::new(), Folder::new());
    let (token, revoked) = (folder.token("alice", &[]), folder.token("bob", &[]));
    let proxy = folder.serve(&origin.url(), "");
    let at_rest = open(&proxy);
    let mut honest = with_a_connection(&proxy);
    limit_to_clients(&proxy, at_rest, 20);
    let mut greedy = Client::to(&proxy);
    let all: Vec<_> = (0..120)
        .map(|_| {
            let request = Request::get(proxy.url("/mcp")).header("authorization", format!("Bearer {token}"));
            greedy.begin(request).1
        })
        .collect();
    let refused = eventually("what is too much to be refused", || {
        let refused = proxy.audit_so_far().into_iter().filter(|record| record["reason"] == "overloaded").count();
        (refused >= 60).then_some(refused)
    });
    assert!(all.len() > refused, "nothing at all was sent on");
    revoke_and_rotate(&proxy, &folder, &mut honest, &revoked);
    assert!(all.iter().filter(|answer| !answer.is_finished()).count() >= 20, "what was sent on goes on");
}

#[test]
fn without_a_descriptor_for_the_upstream_the_trouble_is_our_own() {
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    for system_says_no in [false, true] {
        let origin = forgetful();
        let proxy = folder.serve(&origin.url(), "");
        let mut client = with_a_connection(&proxy);
        // what is not counted beforehand is refused by the system
        let admins: Vec<Line> = if system_says_no { (0..60).map(|_| Line::to(&proxy.admin)).collect() } else { vec![] };
        eventually("all of them to be in", || (open(&proxy) > admins.len() + 20).then_some(()));
        let is_free = |number: &usize| fs::symlink_metadata(format!("/proc/{}/fd/{number}", proxy.pid())).is_err();
        limit(&proxy, (0..1024).find(is_free).unwrap());
        client.send(get(&token, ""));
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
        assert!(answer.json()["error"]["message"].as_str().unwrap().contains("nothing was sent on"));
        let record = proxy.record_of(&answer);
        assert_eq!((&record["outcome"], &record["reason"]), (&"error".into(), &"overloaded".into()));
        assert_eq!(record["user"], "alice");
        assert!(origin.received().is_empty());
        limit(&proxy, 1024);
        drop(admins);
        let page = proxy.health("/metrics").body;
        let failures: Vec<_> =
            page.lines().filter(|line| line.starts_with("patgate_upstream_failures_total{")).collect();
        assert!(failures.len() >= 4 && failures.iter().all(|line| line.ends_with(" 0")), "{failures:?}");
        assert!(page.contains("patgate_requests_total{outcome=\"error\",reason=\"overloaded\"} 1\n"), "{page}");
        client.send(get(&token, ""));
        assert_eq!(client.answer().status, 200);
    }
}

#[test]
fn a_limit_that_is_too_low_for_the_configuration_is_told_at_the_start() {
    let (origin, folder) = (Origin::plain(), Folder::new());
    folder.token("alice", &[]);
    let program = env!("CARGO_BIN_EXE_patgate");
    for (limits, level) in [("connections = 200", Some("WARN")), ("connections = 50", None), ("", Some("INFO"))] {
        folder.configure(&origin.url(), &format!("[limits]\n{limits}"));
        let proxy = Proxy::start_by("prlimit", &["--nofile=400:400", program], folder.path("").as_path());
        let log = proxy.log();
        let about = |limit: &str| log.iter().find(|entry| entry["message"].as_str().unwrap().starts_with(limit));
        let told = about("limits.connections is");
        assert_eq!(told.map(|entry| entry["level"].as_str().unwrap()), level, "{log:?}");
        let most = told.map_or(100, |entry| entry["clients_at_most"].as_u64().unwrap());
        assert!((100..150).contains(&most), "{log:?}");
        // as many as one address may have by itself
        let alone = about("limits.connections_per_address is");
        assert_eq!(alone.map(|entry| entry["level"].as_str().unwrap()), level.and(Some("WARN")), "{log:?}");
    }
}

#[test]
fn health_does_not_blame_the_upstream_for_what_we_lack() {
    let (origin, folder) = (Origin::plain(), Folder::new());
    folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "[health]\ninterval = \"50ms\"");
    // later there is no descriptor for it
    let mut admin = Line::to(&proxy.admin);
    let mut told = |status| {
        eventually("another readiness", || {
            admin.send("GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n");
            Some(admin.answer()).filter(|answer| answer.status == status).map(|answer| answer.body)
        })
    };
    assert_eq!(told(200), "ready\n");
    limit(&proxy, 3);
    let why = "not ready: the MCP server cannot be asked: no descriptor is left for a connection to the upstream\n";
    assert_eq!(told(503), why);
    limit(&proxy, 1024);
    told(200);
}

#[test]
fn few_descriptors_are_not_all_for_the_admin_address() {
    let (origin, folder) = (Origin::plain(), Folder::new());
    folder.token("alice", &[]);
    folder.configure(&origin.url(), "");
    let program = env!("CARGO_BIN_EXE_patgate");
    let proxy = Proxy::start_by("prlimit", &["--nofile=200:200", program], folder.path("").as_path());
    let at_rest = open(&proxy);
    let admins: Vec<Line> = (0..60).map(|_| Line::to(&proxy.admin)).collect();
    // 50 are the reserve; a client that is answered comes after all of them
    eventually("half of the reserve to be taken", || (open(&proxy) >= at_rest + 25).then_some(()));
    drop(with_a_connection(&proxy));
    assert!(open(&proxy) < at_rest + 40, "{} and at rest {at_rest}", open(&proxy));
    drop(admins);
}
