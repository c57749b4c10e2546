//! Hostile requests, and four things that hold whatever is sent:
//!
//! - O1: no request without a valid credential reaches the origin;
//! - O2: each identity header arrives exactly once, with our value;
//! - O3: the origin sees no more requests than authenticated ones were sent;
//! - O4: a neighbour on the same pool of connections gets its own answers.
//!
//! The tables say what is sent. Each request is sent with a token and without one, alone and while
//! neighbours and other hostile requests are at work.

mod fields;
mod frames;
mod framing;
mod origin;
mod pipelines;
mod targets;
mod upstream;

use std::collections::HashMap;
use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use origin::{Arrived, Log};

use crate::harness::{Folder, PATIENCE, Proxy, connect, read_answer};

/// Which of the requests in the bytes of an attack may arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum May {
    /// None: it is refused as a whole, and what follows on its connection is never read as a request.
    Nothing,
    /// At most the first, if it has a token; what follows is its body, or is never read.
    First,
    /// Each request that has a token: it is in order, however odd.
    Each,
}

/// One attack: bytes for one connection.
#[derive(Clone, Debug)]
struct Attack {
    what: String,
    /// Texts of one byte a character, with `AUTH` for a line that has a token, and `ROW` for the attack's number.
    text: String,
    may: May,
}

impl Attack {
    fn new(what: impl Into<String>, text: impl Into<String>, may: May) -> Self {
        Self { what: what.into(), text: text.into(), may }
    }
}

/// A further request, which must never be read as one where it is a part of something else. It has a token, so
/// nothing but its place keeps it from the origin.
const FURTHER: &str = "GET /further/ROW HTTP/1.1\r\nHost: localhost\r\nAUTH\r\nX-Auth-User: root\r\n\r\n";

/// A POST with these header lines, each with its line break.
fn post(lines: &str, rest: &str) -> String {
    format!("POST /mcp/ROW HTTP/1.1\r\nHost: localhost\r\nAUTH\r\n{lines}\r\n{rest}")
}

/// A GET of a target with these header lines.
fn get(target: &str, lines: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nAUTH\r\n{lines}\r\n")
}

const IDENTITY: [(&str, &str); 8] = [
    ("X-Auth-User", ""),
    ("X-Auth-Email", "@example.com"),
    ("X-Auth-Name", " Doe"),
    ("X-Auth-Org", "-acme"),
    ("X-Auth-Roles", "-role"),
    ("X-Auth-Scopes", ":mcp"),
    ("X-Auth-Token-Id", "-token"),
    ("X-Auth-Source", "pat"),
];

/// The value of an identity header of `user`.
fn identity(user: &str, name: &str) -> String {
    let (_, ending) = IDENTITY.iter().find(|(header, _)| *header == name).unwrap();
    if name == "X-Auth-Source" { (*ending).to_owned() } else { format!("{user}{ending}") }
}

/// A user about whom everything is known, in the words of the token file; the token itself is `<user>-token-secret`.
fn user(name: &str) -> String {
    let value = |header| identity(name, header);
    format!(
        "[[tokens]]\nid = \"{}\"\nhash = \"{}\"\nuser = \"{name}\"\n[[users]]\nid = \"{name}\"\nemail = \"{}\"\n\
         name = \"{}\"\norg = \"{}\"\nroles = [\"{role}\"]\n[roles.{role}]\nscopes = [\"{}\"]\n",
        value("X-Auth-Token-Id"),
        patgate::token::TokenDigest::of(&token(name)),
        value("X-Auth-Email"),
        value("X-Auth-Name"),
        value("X-Auth-Org"),
        value("X-Auth-Scopes"),
        role = value("X-Auth-Roles"),
    )
}

fn token(user: &str) -> String {
    format!("{user}-token-secret")
}

// --- The play -------------------------------------------------------------------------------

struct Play {
    proxy: Proxy,
    log: Log,
    _folder: Folder,
    asked: AtomicUsize,
}

impl Play {
    /// One worker, so that everybody shares one pool.
    fn new() -> Self {
        let (url, log) = origin::start();
        let folder = Folder::new();
        folder.write("tokens.toml", &(user("alice") + &user("bob")));
        let proxy = folder.serve(&url, "workers = 1");
        Self { proxy, log, _folder: folder, asked: AtomicUsize::new(0) }
    }

    /// Sends the bytes of an attack; returns all that was answered until the connection ended. Whoever says
    /// nothing for `quiet` waits for more, which does not come.
    fn attack(&self, bytes: &[u8], quiet: Duration) -> Vec<u8> {
        let mut stream = connect(&self.proxy.address);
        // a proxy that has heard enough may close before all is sent
        let _ = stream.write_all(bytes);
        stream.set_read_timeout(Some(quiet)).unwrap();
        let (mut answered, mut part, mut ended) = (Vec::new(), [0; 4096], false);
        loop {
            match stream.read(&mut part) {
                Ok(0) => return answered,
                Ok(length) => answered.extend_from_slice(&part[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock && !ended => {
                    ended = true;
                    let _ = stream.shutdown(Shutdown::Write);
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                }
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return answered,
                Err(error) => panic!("the connection does not end: {error}"),
            }
        }
    }

    /// A neighbour: an honest client with a connection of its own, who knows what he must hear.
    fn neighbour(&self) -> impl FnMut() {
        let mut stream = BufReader::new(connect(&self.proxy.address));
        move || {
            let number = self.asked.fetch_add(1, Ordering::Relaxed);
            let (target, body) = (format!("/honest/{number}"), format!("honest body {number}"));
            let head = format!(
                "POST {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n",
                token("bob"),
                body.len()
            );
            stream.get_mut().write_all((head + &body).as_bytes()).unwrap();
            let answer = read_answer(&mut stream);
            assert_eq!((answer.status, answer.body), (200, format!("bob\n{target}\n{body}")), "O4");
        }
    }
}

/// The bytes of an attack under this number, with a token or without one.
fn bytes(attack: &Attack, row: usize, authenticated: bool) -> Vec<u8> {
    let line = if authenticated { format!("authorization: Bearer {}", token("alice")) } else { "x-no-token: 1".into() };
    let mut text = attack.text.replace("ROW", &row.to_string()).replace("AUTH", &line);
    if let Some(frames) = text.strip_prefix(frames::MARK) {
        return frames::encode(frames);
    }
    // lengths can be told only now
    if let Some((before, rest)) = text.split_once("CHUNK(")
        && let Some((chunk, rest)) = rest.split_once(")CHUNK")
    {
        text = format!("{before}{:x}\r\n{chunk}\r\n0\r\n\r\n{rest}", chunk.len());
    }
    let length = text.split_once("\r\n\r\n").map_or(0, |(_, body)| body.len());
    let text = text.replace("LENGTH", &length.to_string());
    text.chars().map(|c| u8::try_from(c).expect("one byte a character")).collect()
}

/// How many requests of an attack may arrive: on its own target, and on that of what follows.
fn allowed(attack: &Attack, authenticated: bool) -> (usize, usize) {
    let further = attack.text.matches(FURTHER).count();
    let first = attack.text.matches("AUTH").count() - further;
    match attack.may {
        _ if !authenticated => (0, 0),
        May::Nothing => (0, 0),
        May::First => (first.min(1), 0),
        May::Each => (first, further),
    }
}

/// How many requests of each attack arrived, by the beginning of their target and the attack's number.
fn counts(arrived: &[Arrived]) -> HashMap<(&str, usize), usize> {
    let mut counts = HashMap::new();
    for request in arrived {
        *counts.entry(request.place()).or_default() += 1;
    }
    counts
}

/// Every way in which the oracles were broken.
fn broken(attacks: &[(Attack, bool)], arrived: &[Arrived], log: &Log) -> Vec<String> {
    let faults = log.faults().into_iter().map(|fault| format!("O3: the origin was sent {fault}"));
    let mut broken: Vec<String> = faults.collect();
    for request in arrived {
        let Arrived { target, fields } = request;
        let user = if request.place().0 == "honest" { "bob" } else { "alice" };
        for (name, _) in IDENTITY {
            let values = request.values(name);
            if values != [identity(user, name)] {
                broken.push(format!("O2: {target} arrives with {name}: {values:?}"));
            }
        }
        if fields.iter().any(|(name, value)| format!("{name}{value}").contains("root")) {
            broken.push(format!("O2: {target} arrives with {fields:?}"));
        }
        if !request.values("authorization").is_empty() {
            broken.push(format!("the token is passed on: {fields:?}"));
        }
        if !["honest", "mcp", "further"].contains(&request.place().0) {
            broken.push(format!("O3: {target} arrives, which nobody asked for"));
        }
    }
    let counts = counts(arrived);
    for (row, (attack, authenticated)) in attacks.iter().enumerate() {
        let (first, further) = allowed(attack, *authenticated);
        for (kind, allowed) in [("mcp", first), ("further", further)] {
            let count = counts.get(&(kind, row)).copied().unwrap_or_default();
            if count > allowed {
                let oracle = if *authenticated { "O3" } else { "O1" };
                broken.push(format!("{oracle}: {count} of /{kind} arrive, {allowed} may: {}", attack.what));
            }
        }
    }
    broken
}

/// Every attack, with a token and without.
fn attacks() -> Vec<(Attack, bool)> {
    let tables = [framing::attacks(), fields::attacks(), targets::attacks(), pipelines::attacks(), frames::attacks()];
    tables.into_iter().flatten().flat_map(|attack| [(attack.clone(), true), (attack, false)]).collect()
}

/// Checks all that is known at the end.
fn assert_held(play: &Play, attacks: &[(Attack, bool)]) {
    let arrived = play.log.arrived();
    let broken = broken(attacks, &arrived, &play.log);
    assert!(broken.is_empty(), "{}: {broken:#?}", broken.len());
    let honest = arrived.iter().filter(|request| request.target.starts_with("/honest/")).count();
    assert_eq!(honest, play.asked.load(Ordering::Relaxed), "O3, O4");
    // so that nothing is proved by attacks that were not understood at all: what is in order comes through,
    // unless a busy machine cuts it off
    let counts = counts(&arrived);
    let in_order = attacks.iter().enumerate().filter(|(_, (attack, token))| attack.may == May::Each && *token);
    let (all, whole) = in_order.fold((0, 0), |(all, whole), (row, (attack, _))| {
        let count = |kind| counts.get(&(kind, row)).copied().unwrap_or_default();
        (all + 1, whole + usize::from((count("mcp"), count("further")) == allowed(attack, true)))
    });
    assert!(all > 100 && whole * 10 >= all * 9, "{whole} of {all} came through");
}

#[test]
fn nothing_hostile_gets_past_by_itself() {
    let (play, attacks) = (Play::new(), attacks());
    assert!(attacks.len() >= 1900, "{}", attacks.len());
    let mut neighbour = play.neighbour();
    for (row, (attack, authenticated)) in attacks.iter().enumerate() {
        judge(attack, &play.attack(&bytes(attack, row, *authenticated), Duration::from_millis(20)));
        neighbour();
    }
    assert_held(&play, &attacks);
}

#[test]
fn nothing_hostile_gets_past_among_others() {
    let (play, attacks) = (Play::new(), attacks());
    let (next, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut neighbour = play.neighbour();
                while !over.load(Ordering::Relaxed) {
                    neighbour();
                }
            });
        }
        let attackers = [(); 8].map(|()| {
            scope.spawn(|| {
                while let Some((row, (attack, authenticated))) = next_of(&attacks, &next) {
                    judge(attack, &play.attack(&bytes(attack, row, *authenticated), Duration::from_millis(100)));
                }
            })
        });
        // the neighbours are let go whatever became of these
        let ended = attackers.map(thread::ScopedJoinHandle::join);
        over.store(true, Ordering::Relaxed);
        for attacker in ended {
            attacker.unwrap();
        }
    });
    assert_held(&play, &attacks);
}

fn next_of<'a, T>(all: &'a [T], next: &AtomicUsize) -> Option<(usize, &'a T)> {
    let row = next.fetch_add(1, Ordering::Relaxed);
    all.get(row).map(|one| (row, one))
}

/// No answer is somebody else's, or takes what was sent for our own trouble.
fn judge(attack: &Attack, answered: &[u8]) {
    let text = String::from_utf8_lossy(answered);
    assert!(!text.starts_with("HTTP/1.1 5"), "taken for our own trouble: {} was answered with {text}", attack.what);
    assert!(!text.contains("bob\n"), "O4: {} was answered with {text}", attack.what);
}
