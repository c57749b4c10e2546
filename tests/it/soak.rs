//! Traffic of every kind while everything around it changes: calls, streams, clients that leave, tokens
//! that die and live again, reloads, signals, and an upstream that restarts. Nothing may be left behind.
//!
//! It lasts ten seconds, or as many as `PATGATE_SOAK_SECONDS` says.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Folder, Proxy, Received, connect, eventually, read_answer, read_body, read_chunk, read_head};

/// How long a change may take until it counts, on a machine that has much else to do.
const LAG: Duration = Duration::from_secs(2);

const CLIENTS: usize = 6;

/// How many threads the runtime may keep for files that are read now and then; they are used again, and not ended.
const SPARE: u64 = 8;

/// Something that changes, and when it did.
struct Timeline(Mutex<Vec<(Instant, bool)>>);

impl Timeline {
    fn new(value: bool) -> Self {
        Self(Mutex::new(vec![(Instant::now(), value)]))
    }

    fn set(&self, value: bool) {
        self.0.lock().unwrap().push((Instant::now(), value));
    }

    fn now(&self) -> bool {
        self.0.lock().unwrap().last().unwrap().1
    }

    /// Every value that it may have been taken for between a moment, less the lag, and now.
    fn since(&self, from: Instant) -> HashSet<bool> {
        let (changes, from) = (self.0.lock().unwrap(), from.checked_sub(LAG).unwrap());
        let begun = changes.iter().rposition(|(at, _)| *at <= from).unwrap_or(0);
        changes[begun..].iter().map(|(_, value)| *value).collect()
    }
}

/// What all take part in.
struct World {
    proxy: String,
    upstream: String,
    always: String,
    sometimes: String,
    is_alive: Timeline,
    is_up: Timeline,
    over: AtomicBool,
    /// The number of the next request.
    number: AtomicU64,
    /// The numbers that the upstream has met.
    arrived: Mutex<HashSet<u64>>,
    /// The connections of the upstream that are open.
    connections: Mutex<Vec<TcpStream>>,
    /// The ids and statuses of all answers that began.
    answers: Mutex<HashMap<String, u16>>,
    /// How many requests were begun whose answer nobody waited for.
    left: AtomicUsize,
}

// --- The upstream ---------------------------------------------------------------------------

impl World {
    /// Serves until the upstream is stopped. It answers with the user, or with a stream of events.
    fn serve_upstream<'s>(&'s self, scope: &'s thread::Scope<'s, '_>, listener: TcpListener) {
        scope.spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if !self.is_up.now() {
                    return;
                }
                self.connections.lock().unwrap().push(stream.try_clone().unwrap());
                scope.spawn(move || {
                    // whoever leaves ends it
                    let _ = self.talk(stream);
                });
            }
        });
    }

    fn talk(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut writer = stream;
        while let Some(request) = Received::read_head(&mut reader)? {
            let [user] = request.values("x-auth-user")[..] else {
                panic!("no identity, or more than one: {request:?}")
            };
            assert!(["alice", "bob"].contains(&user) && request.values("authorization").is_empty());
            let path = request.request_line().split(' ').nth(1).unwrap().to_owned();
            let number = path.rsplit('/').next().unwrap().parse().unwrap();
            assert!(self.arrived.lock().unwrap().insert(number), "{path} came twice");
            if let Some(length) = request.values("content-length").first() {
                std::io::copy(&mut std::io::Read::take(&mut reader, length.parse().unwrap()), &mut std::io::sink())?;
            }
            if path.starts_with("/stream") {
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
                writer.write_all(head.as_bytes())?;
                for _ in 0..20 {
                    writer.write_all(b"8\r\ndata: 1\n\r\n")?;
                    thread::sleep(Duration::from_millis(10));
                }
                writer.write_all(b"0\r\n\r\n")?;
            } else {
                write!(writer, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{user}", user.len())?;
            }
        }
        Ok(())
    }

    /// Away for a moment, with everything that was open.
    fn restart_upstream<'s>(&'s self, scope: &'s thread::Scope<'s, '_>) {
        self.is_up.set(false);
        // the listener hears of it by a connection
        drop(TcpStream::connect(&self.upstream));
        for stream in self.connections.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        thread::sleep(Duration::from_millis(200));
        let listener = eventually("the upstream's address", || TcpListener::bind(&self.upstream).ok());
        self.is_up.set(true);
        self.serve_upstream(scope, listener);
    }
}

// --- The clients ----------------------------------------------------------------------------

impl World {
    fn request(&self, kind: &str, token: &str) -> String {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        format!(
            "POST /{kind}/{number} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
        )
    }

    /// Judges the head of an answer, and keeps its id.
    fn judge(&self, token: &str, begun: Instant, status: u16, id: &str) {
        let twice = self.answers.lock().unwrap().insert(id.to_owned(), status);
        assert!(twice.is_none(), "the id {id} was given twice");
        let lives = if token == self.always {
            HashSet::from([true])
        } else if token == self.sometimes {
            self.is_alive.since(begun)
        } else {
            HashSet::from([false])
        };
        match status {
            200 => assert!(lives.contains(&true), "a dead token was let in"),
            401 => assert!(lives.contains(&false), "a good token was refused"),
            502 => assert!(lives.contains(&true) && self.is_up.since(begun).contains(&false), "the upstream was there"),
            other => panic!("nobody asked for a {other}"),
        }
    }

    /// A few calls on one connection.
    fn call(&self, token: &str) {
        let mut client = BufReader::new(connect(&self.proxy));
        for _ in 0..fastrand::usize(1..6) {
            let begun = Instant::now();
            client.get_mut().write_all(self.request("call", token).as_bytes()).unwrap();
            let answer = read_answer(&mut client);
            self.judge(token, begun, answer.status, answer.header("x-request-id").unwrap());
            let user = if token == self.always { "alice" } else { "bob" };
            assert!(answer.status != 200 || answer.body == user, "{token} got {}", answer.body);
            if answer.header("connection") == Some("close") {
                return;
            }
        }
    }

    /// A stream that is read to its end, or left before.
    fn stream(&self, token: &str) {
        let mut client = BufReader::new(connect(&self.proxy));
        let begun = Instant::now();
        client.get_mut().write_all(self.request("stream", token).as_bytes()).unwrap();
        let head = read_head(&mut client);
        self.judge(token, begun, head.status, head.header("x-request-id").unwrap());
        if head.status != 200 {
            read_body(&mut client, &head).unwrap();
            return;
        }
        for _ in 0..fastrand::usize(1..30) {
            match read_chunk(&mut client) {
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(_) => {
                    let was_revoked = token == self.sometimes && self.is_alive.since(begun).contains(&false);
                    assert!(was_revoked || self.is_up.since(begun).contains(&false), "a stream was cut for no reason");
                    return;
                }
            }
        }
    }

    /// A request that its client leaves, wherever it is.
    fn leave(&self, token: &str) {
        let mut client = connect(&self.proxy);
        let request = self.request(["call", "stream"][fastrand::usize(..2)], token);
        self.left.fetch_add(1, Ordering::Relaxed);
        client.write_all(&request.as_bytes()[..fastrand::usize(1..=request.len())]).unwrap();
        thread::sleep(Duration::from_millis(fastrand::u64(..5)));
    }

    fn be_a_client(&self) {
        while !self.over.load(Ordering::Relaxed) {
            let token = match fastrand::usize(..10) {
                0..5 => &self.always,
                5..8 => &self.sometimes,
                _ => "nobodys",
            };
            match fastrand::usize(..10) {
                0..6 => self.call(token),
                6..8 => self.stream(token),
                _ => self.leave(token),
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

// --- The levels -----------------------------------------------------------------------------

/// What a process holds: descriptors, threads, and memory in KiB.
fn levels(proxy: &Proxy) -> (usize, u64, u64) {
    let status = fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let value = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let descriptors = fs::read_dir(format!("/proc/{}/fd", proxy.pid())).unwrap().count();
    (descriptors, value("Threads:"), value("VmRSS:"))
}

#[test]
fn mixed_traffic_under_constant_change_leaves_nothing_behind_and_nothing_out() {
    let seconds = std::env::var("PATGATE_SOAK_SECONDS").map_or(10, |text| text.parse().unwrap());
    let folder = Folder::new();
    let always = folder.token("alice", &[]);
    let sometimes = folder.token("bob", &[]);
    let alive = folder.read("tokens.toml");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = listener.local_addr().unwrap().to_string();
    let mut proxy = folder.serve(&format!("http://{upstream}"), "");
    let world = World {
        proxy: proxy.address.clone(),
        upstream,
        always,
        sometimes,
        is_alive: Timeline::new(true),
        is_up: Timeline::new(true),
        over: AtomicBool::new(false),
        number: AtomicU64::new(0),
        arrived: Mutex::default(),
        connections: Mutex::default(),
        answers: Mutex::default(),
        left: AtomicUsize::new(0),
    };
    let at_rest = levels(&proxy);
    let settled = thread::scope(|scope| {
        let world = &world;
        world.serve_upstream(scope, listener);
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| world.be_a_client())).collect();
        let (begun, mut settled) = (Instant::now(), at_rest);
        for round in 1.. {
            thread::sleep(LAG / 4);
            // a new version of the file each time, and now and then a token dies or lives again
            let lives = world.is_alive.now();
            let will_live = if round % 8 == 0 { !lives } else { lives };
            let revoked = if will_live { "" } else { "revoked_at = 2026-01-01T00:00:00Z\n" };
            if will_live != lives {
                world.is_alive.set(will_live);
            }
            folder.write("new.toml", &format!("{alive}{revoked}# {round}\n"));
            fs::rename(folder.path("new.toml"), folder.path("tokens.toml")).unwrap();
            if round % 3 == 0 {
                proxy.signal("HUP");
            }
            if round % 7 == 0 {
                world.restart_upstream(scope);
            }
            if settled == at_rest && begun.elapsed() >= Duration::from_secs(seconds) / 3 {
                settled = levels(&proxy);
            }
            if begun.elapsed() >= Duration::from_secs(seconds)
                || clients.iter().any(thread::ScopedJoinHandle::is_finished)
            {
                break;
            }
        }
        world.over.store(true, Ordering::Relaxed);
        // the upstream ends in any case, or nobody would see what went wrong
        let clients: Vec<_> = clients.into_iter().map(thread::ScopedJoinHandle::join).collect();
        world.is_up.set(false);
        drop(TcpStream::connect(&world.upstream));
        for stream in world.connections.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        assert!(clients.iter().all(Result::is_ok), "a client met what it must not");
        settled
    });
    // what was open is closed, and what was started has ended
    let (descriptors, threads, _) = at_rest;
    let end = eventually("the levels of the start", || {
        let now = levels(&proxy);
        (now.0 <= descriptors && now.1 <= threads + SPARE).then_some(now)
    });
    assert!(end.2 < settled.2 + 16 * 1024, "{} KiB after {} KiB", end.2, settled.2);

    proxy.end();
    let mut recorded = HashMap::new();
    let log = BufReader::new(fs::File::open(folder.path("audit.jsonl")).unwrap());
    for line in log.lines() {
        let record: Value = serde_json::from_str(&line.unwrap()).unwrap();
        if record["event"] == "request" {
            let id = record["request_id"].as_str().unwrap().to_owned();
            assert!(recorded.insert(id, record["status"].as_u64()).is_none(), "two records of one request: {record}");
        }
    }
    let (answers, left) = (world.answers.into_inner().unwrap(), world.left.into_inner());
    for (id, status) in &answers {
        assert_eq!(recorded.get(id), Some(&Some(u64::from(*status))), "the record of {id}");
    }
    let count = |status| answers.values().filter(|found| **found == status).count();
    let statuses = [200, 401, 502].map(count);
    assert!(recorded.len() <= answers.len() + left, "records of requests that nobody made");
    assert!(statuses[0] > 50 && statuses[1] > 10, "there was hardly any traffic: {statuses:?}");
    println!(
        "{seconds} s: {} answers (200, 401, 502: {statuses:?}), {left} left, {} records; descriptors, threads and KiB \
         at rest {at_rest:?}, after a third {settled:?}, at the end {end:?}",
        answers.len(),
        recorded.len(),
    );
}
