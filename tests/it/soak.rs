//! Traffic of every kind while everything around it changes: calls, streams, clients that leave, tokens
//! that die and live again, reloads, signals, and an upstream that restarts. Each request must have its one
//! record, which says what happened, and nothing may be left behind.
//!
//! It lasts ten seconds, or as many as `PATGATE_SOAK_SECONDS` says, and ten more for idle threads to end.

mod clients;
mod levels;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use self::clients::{Door, Way, number_in};
use self::levels::{Levels, open};
use crate::harness::{Folder, Proxy, Received, eventually, read_chunk};
use crate::tls::certificate;

/// How long a change may take until it counts, on a machine that has much else to do.
const LAG: Duration = Duration::from_secs(2);

/// How often something changes.
const ROUND: Duration = Duration::from_millis(500);

const CLIENTS: usize = 6;

/// How much more memory the second half may need than the first, in KiB.
const GROWTH: u64 = 1024;

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

    /// Whether it may have been taken for `value` at some time from `begun`, less the lag, to `ended`.
    fn may_be(&self, value: bool, begun: Instant, ended: Instant) -> bool {
        let (changes, begun) = (self.0.lock().unwrap(), begun.checked_sub(LAG).unwrap());
        let first = changes.iter().rposition(|(at, _)| *at <= begun).unwrap_or(0);
        changes[first..].iter().any(|(at, found)| *found == value && *at <= ended)
    }

    /// How often it came to be `value`.
    fn times(&self, value: bool) -> usize {
        self.0.lock().unwrap().iter().skip(1).filter(|(_, found)| *found == value).count()
    }
}

/// Whose token a request carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// One whose token is always good.
    Alice,
    /// One whose token dies and lives again.
    Bob,
    Nobody,
}

/// A request of which the whole head was sent, as its client knows it.
#[derive(Debug)]
struct Asked {
    way: Way,
    who: Who,
    begun: Instant,
    /// When the client had done with it.
    ended: Instant,
    seen: Seen,
}

/// What a client saw of its answer.
#[derive(Debug)]
enum Seen {
    Nothing,
    /// The id and the status, and how the body ended; it did not for a client that left.
    Answer(String, u16, Option<End>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Proper,
    Cut,
}

/// What all take part in.
struct World {
    doors: [Door; 2],
    upstream: String,
    tokens: [String; 3],
    /// Whether Bob's token is.
    is_alive: Timeline,
    is_up: Timeline,
    over: AtomicBool,
    /// The number of the next request.
    number: AtomicU64,
    /// How many clients left before they had sent a whole head.
    unasked: AtomicUsize,
    asked: Mutex<HashMap<u64, Asked>>,
    /// The numbers that the upstream has met.
    arrived: Mutex<HashSet<u64>>,
    /// The connections of the upstream that are open.
    connections: Mutex<Vec<TcpStream>>,
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
            assert!(self.arrived.lock().unwrap().insert(number_in(&path)), "{path} came twice");
            if let Some(length) = request.values("content-length").first() {
                std::io::copy(&mut std::io::Read::take(&mut reader, length.parse().unwrap()), &mut std::io::sink())?;
            } else {
                while read_chunk(&mut reader)?.is_some() {}
            }
            let events = match path.split('/').nth(1) {
                Some("stream") => 20,
                Some("long") => 300,
                _ => 0,
            };
            if events > 0 {
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
                writer.write_all(head.as_bytes())?;
                for _ in 0..events {
                    writer.write_all(b"8\r\ndata: 1\n\r\n")?;
                    thread::sleep(Duration::from_millis(10));
                }
                writer.write_all(b"0\r\n\r\n")?;
            } else {
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{user}", user.len());
                writer.write_all(answer.as_bytes())?;
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

// --- The verdict ----------------------------------------------------------------------------

/// What there was in a log that holds.
#[derive(Debug, Default)]
struct Judged {
    /// Requests by how they ended.
    ends: BTreeMap<String, usize>,
    /// And by how they came.
    ways: BTreeMap<Way, usize>,
    /// Those that became streams, and those of them that were told of while they went on.
    streams: usize,
    opened: usize,
}

impl World {
    /// Holds the record of a request to what can have happened, and to what its client saw.
    fn judge(&self, number: u64, asked: &Asked, record: &Value) {
        let Asked { who, begun, ended, seen, .. } = asked;
        // who left does not know how long its request went on
        let until = if matches!(seen, Seen::Answer(.., Some(_))) { *ended } else { *ended + LAG };
        let may_live = *who == Who::Alice || *who == Who::Bob && self.is_alive.may_be(true, *begun, until);
        let may_be_dead = *who == Who::Bob && self.is_alive.may_be(false, *begun, until);
        let may_be_down = self.is_up.may_be(false, *begun, until);
        let (status, has_arrived) = (record["status"].as_u64(), self.arrived.lock().unwrap().contains(&number));
        let user = [Some("alice"), Some("bob"), None][*who as usize];
        let is_possible = record["user"].as_str() == user
            && match (record["reason"].as_str().unwrap(), record["outcome"].as_str().unwrap(), status) {
                ("ok", "allowed", Some(200)) => may_live && has_arrived,
                // its client left before there was an answer
                ("ok", "allowed", None) => may_live && matches!(seen, Seen::Nothing),
                ("revoked", "denied", Some(401)) => may_be_dead,
                ("unknown_token", "denied", Some(401)) => *who == Who::Nobody && !has_arrived,
                ("revoked", "denied", None) => may_be_dead && matches!(seen, Seen::Nothing),
                ("unknown_token", "denied", None) => *who == Who::Nobody && matches!(seen, Seen::Nothing),
                ("upstream_unreachable" | "upstream_invalid", "error", Some(502)) => may_live && may_be_down,
                _ => false,
            };
        assert!(is_possible, "{asked:?}: {record}");
        let was_seen = match seen {
            Seen::Nothing => None,
            Seen::Answer(id, status, end) => {
                assert_eq!(record["request_id"], *id, "{asked:?}: {record}");
                assert_eq!(record["status"], *status, "{asked:?}: {record}");
                *end
            }
        };
        let is_true = match record["ended"].as_str().unwrap() {
            "complete" => was_seen != Some(End::Cut),
            "client_gone" => was_seen.is_none(),
            "revoked" => may_be_dead && was_seen != Some(End::Proper),
            "upstream_failed" => may_be_down && was_seen != Some(End::Proper),
            _ => false,
        };
        assert!(is_true, "{asked:?}: {record}");
    }

    /// Holds the whole logs to what was asked: one record for each request, and one more for each stream that
    /// was told of while it went on.
    fn judge_logs(&self, folders: [&Folder; 2]) -> Judged {
        let (mut asked, mut announced) = (self.asked.lock().unwrap(), HashMap::new());
        let mut judged = Judged::default();
        let logs = folders.map(|folder| BufReader::new(fs::File::open(folder.path("audit.jsonl")).unwrap()).lines());
        for line in logs.into_iter().flatten() {
            let record: Value = serde_json::from_str(&line.unwrap()).unwrap();
            let path = record["path"].as_str().unwrap().to_owned();
            if record["event"] == "stream_opened" {
                judged.opened += 1;
                assert!(announced.insert(path, record["request_id"].clone()).is_none(), "told of twice: {record}");
                continue;
            }
            assert_eq!(record["event"], "request");
            // each is taken out, so a second record of it, or one of a request that nobody made, finds none
            let number = number_in(&path);
            let request = asked.remove(&number).unwrap_or_else(|| panic!("nobody asked for this: {record}"));
            self.judge(number, &request, &record);
            if let Some(id) = announced.remove(&path) {
                assert_eq!(record["request_id"], id);
            }
            judged.streams += usize::from(!path.starts_with("/call/") && record["status"] == 200);
            *judged.ends.entry(record["ended"].as_str().unwrap().to_owned()).or_default() += 1;
            *judged.ways.entry(request.way).or_default() += 1;
        }
        assert!(asked.is_empty(), "requests without a record: {asked:?}");
        assert!(announced.is_empty(), "streams without an end: {announced:?}");
        judged
    }
}

// --- The test -------------------------------------------------------------------------------

/// A proxy with TLS, with a token file elsewhere, and its door.
fn with_tls(folder: &Folder, upstream: &str, tokens: &str) -> (Proxy, Door) {
    let own = certificate();
    folder.write("cert.pem", &own.cert.pem());
    folder.write("key.pem", &own.signing_key.serialize_pem());
    let proxy = folder.serve_tokens(upstream, &format!("{tokens}[tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n"));
    let door = Door::with_tls(&proxy, &own.cert.pem());
    (proxy, door)
}

#[test]
fn mixed_traffic_under_constant_change_leaves_nothing_behind_and_nothing_out() {
    let seconds = std::env::var("PATGATE_SOAK_SECONDS").map_or(10, |text| text.parse().unwrap());
    let lasting = Duration::from_secs(seconds);
    let (folder, tls_folder) = (Folder::new(), Folder::new());
    let tokens = [folder.token("alice", &[]), folder.token("bob", &[]), "nobodys".to_owned()];
    let alive = folder.read("tokens.toml");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = listener.local_addr().unwrap().to_string();
    // once nothing changes any more, nothing is read any more
    let quiet = format!("file = {:?}\npoll = \"1h\"\nlast_used = \"off\"\n", folder.path("tokens.toml"));
    let plain = folder.serve_tokens(&format!("http://{upstream}"), &quiet);
    let (tls, tls_door) = with_tls(&tls_folder, &format!("http://{upstream}"), &quiet);
    let world = World {
        doors: [Door::plain(&plain), tls_door],
        upstream,
        tokens,
        is_alive: Timeline::new(true),
        is_up: Timeline::new(true),
        over: AtomicBool::new(false),
        number: AtomicU64::new(0),
        unasked: AtomicUsize::new(0),
        asked: Mutex::default(),
        arrived: Mutex::default(),
        connections: Mutex::default(),
    };
    let proxies = [plain, tls];
    let at_rest = proxies.each_ref().map(Levels::at_rest);
    let mut halves = [at_rest.clone(), at_rest.clone()];
    thread::scope(|scope| {
        let world = &world;
        world.serve_upstream(scope, listener);
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| world.be_a_client())).collect();
        clients.push(scope.spawn(|| world.hold_streams()));
        let begun = Instant::now();
        for round in 1.. {
            thread::sleep(ROUND);
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
                for proxy in &proxies {
                    proxy.signal("HUP");
                }
            }
            if round % 11 == 0 {
                world.restart_upstream(scope);
            }
            let half = &mut halves[usize::from(begun.elapsed() > lasting / 2)];
            for (highest, proxy) in half.iter_mut().zip(&proxies) {
                *highest = highest.clone().max(Levels::of(proxy));
            }
            if begun.elapsed() >= lasting || clients.iter().any(thread::ScopedJoinHandle::is_finished) {
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
    });
    let [first, second] = halves;
    let mut pages = Vec::new();
    for (at, mut proxy) in proxies.into_iter().enumerate() {
        let (at_rest, first, second) = (&at_rest[at], &first[at], &second[at]);
        assert!(second.memory < first.memory + GROWTH, "{second:?} after {first:?}");
        let (page, end) = await_rest(&proxy, at_rest);
        println!("at rest {at_rest:?}\nfirst half {first:?}\nsecond half {second:?}\nat the end {end:?}");
        pages.push(page);
        proxy.end();
    }

    let asked = world.asked.lock().unwrap().len();
    let Judged { ends, ways, streams, opened } = world.judge_logs([&folder, &tls_folder]);
    let counted = |name: &str| -> usize {
        let lines = pages.iter().flat_map(|page| page.lines());
        let values = lines.filter(|line| line.starts_with(name)).filter_map(|line| line.rsplit(' ').next());
        values.map(|value| value.parse::<usize>().unwrap()).sum()
    };
    assert_eq!(counted("patgate_requests_total{"), asked);
    assert_eq!(counted("patgate_audit_records_total "), asked + opened);
    assert_eq!(counted("patgate_audit_records_lost_total "), 0);
    let (revocations, restarts) = (world.is_alive.times(false), world.is_up.times(true));
    assert!(ends["complete"] > 100 && ends["client_gone"] > 10 && 2 * ends["revoked"] >= revocations, "{ends:?}");
    assert!(ways.len() == 4 && ways.values().all(|count| *count > 20), "{ways:?}");
    println!(
        "{seconds} s: {asked} requests came by {ways:?} and ended {ends:?}, {} heads were left unfinished; {streams} streams, \
         {opened} of them told of; {revocations} revocations, {restarts} restarts, {} reloads",
        world.unasked.into_inner(),
        counted("patgate_reloads_total{list=\"tokens\",result=\"success\"}"),
    );
}

/// Waits until all that was open is closed, and what was started has ended: also the runtime's threads, after ten
/// idle seconds. Gives the metrics and the levels of that moment.
fn await_rest(proxy: &Proxy, at_rest: &Levels) -> (String, Levels) {
    let page = eventually("the end of all that was open", || {
        let page = proxy.health("/metrics").body;
        (open(&page) == ["0"; 3]).then_some(page)
    });
    let end = eventually("the levels of the start", || {
        let now = Levels::of(proxy);
        let is_as_before = now.descriptors == at_rest.descriptors && now.threads == at_rest.threads;
        (is_as_before && now.readers == 0).then_some(now)
    });
    (page, end)
}
