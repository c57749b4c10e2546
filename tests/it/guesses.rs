//! Floods of invented tokens: they are refused without work, in bounded memory, and nobody who has a
//! token that was good before notices.

use std::collections::BTreeMap;
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use patgate::token::TokenDigest;
use socket2::{Domain, Socket, Type};

use crate::harness::{Answer, Folder, Keep, Origin, PATIENCE, Proxy, connect, eventually, get, read_answer};

/// How many guesses a minute an address has by default.
const GUESSES: u64 = 60;

/// A look-up source that knows these tokens and nobody else.
fn source(known: &'static [&'static str]) -> Origin {
    Origin::scripted(move |received, stream| {
        let digest = |token: &&&str| received.request_line().contains(&*TokenDigest::of(token).hex().to_string());
        let answer = match known.iter().find(digest) {
            Some(token) => {
                let hash = TokenDigest::of(token);
                let list = format!(r#"{{"tokens":[{{"id":"{token}","hash":"{hash}","user":"{token}"}}]}}"#);
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{list}", list.len())
            }
            None => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
        };
        stream.write_all(answer.as_bytes()).map(|()| Keep::Open)
    })
}

/// Starts the proxy with this key in place of the token file, and with a short queue of audit records: what
/// waits there is memory, too.
fn serve(folder: &Folder, upstream: &Origin, tokens: &str, more: &str) -> Proxy {
    folder.configure(&upstream.url(), more);
    let config = folder.read("patgate.toml").replace("[tokens]", "queue = 1000\n[tokens]");
    folder.write("patgate.toml", &config.replace("file = \"tokens.toml\"", tokens));
    folder.serve_with(&[], &[])
}

fn look_up(source: &Origin, more: &str) -> String {
    format!("lookup = {{ url = \"{}/{{sha256}}\"{more} }}", source.url())
}

/// A client that has another address than all others, on this machine all the same.
fn ask_from(address: &str, proxy: &Proxy, token: &str) -> Answer {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&format!("{address}:0").parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.connect(&proxy.address.parse::<SocketAddr>().unwrap().into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(get(token, "").as_bytes()).unwrap();
    read_answer(&mut BufReader::new(stream))
}

/// Sends so many tokens that nobody has by two connections, without waiting for each answer; counts
/// the answers by their status.
fn flood(proxy: &Proxy, prefix: &str, count: usize) -> BTreeMap<u16, u64> {
    let mut statuses = BTreeMap::new();
    thread::scope(|scope| {
        let halves = [0, 1].map(|half| {
            scope.spawn(move || {
                let mut stream = BufReader::new(connect(&proxy.address));
                let mut answered = Vec::new();
                for batch in 0..count / 2 / 50 {
                    let guess = |guess| get(&format!("{prefix}{half}-{batch}-{guess}"), "");
                    stream.get_mut().write_all((0..50).map(guess).collect::<String>().as_bytes()).unwrap();
                    answered.extend((0..50).map(|_| {
                        let answer = read_answer(&mut stream);
                        assert_eq!(answer.header("retry-after").is_some(), answer.status != 401, "{answer:?}");
                        answer.status
                    }));
                }
                answered
            })
        });
        for status in halves.into_iter().flat_map(|half| half.join().unwrap()) {
            *statuses.entry(status).or_default() += 1;
        }
    });
    statuses
}

/// Floods, and asks with a good token all the while.
fn flood_beside(proxy: &Proxy, good: &str, prefix: &str, count: usize) -> BTreeMap<u16, u64> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let neighbour = scope.spawn(|| {
            let mut asked = 0;
            while !over.load(Ordering::Relaxed) {
                assert_eq!(proxy.ask(&get(good, "")).status, 200, "a good token during the flood");
                asked += 1;
            }
            asked
        });
        let statuses = flood(proxy, prefix, count);
        over.store(true, Ordering::Relaxed);
        assert!(neighbour.join().unwrap() > 10);
        statuses
    })
}

/// Resident memory, in KiB.
fn memory(proxy: &Proxy) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_hundred_thousand_random_tokens_take_neither_memory_nor_the_places_of_good_ones() {
    let (upstream, folder) = (Origin::plain(), Folder::new());
    let token = folder.token("alice", &[]);
    let proxy = serve(&folder, &upstream, "file = \"tokens.toml\"", "");
    assert_eq!(flood(&proxy, "warm-up-", 20_000), [(401, 20_000)].into());
    let before = memory(&proxy);
    // a list knows by itself who is nobody, so there is nothing to be spared
    assert_eq!(flood_beside(&proxy, &token, "guess-", 100_000), [(401, 100_000)].into());
    let grown = memory(&proxy).saturating_sub(before);
    assert!(grown < 4096, "{grown} KiB");
}

#[test]
fn a_flood_is_looked_up_at_a_steady_pace_and_good_tokens_are_at_any_time() {
    let (upstream, source, folder) = (Origin::plain(), source(&["alices", "bobs", "carols"]), Folder::new());
    let proxy = serve(&folder, &upstream, &look_up(&source, ", ttl = \"1s\""), "");
    assert_eq!(proxy.ask(&get("alices", "")).status, 200);
    let (before, started) = (memory(&proxy), Instant::now());
    // longer than what is known of alice's token holds: it is looked up again while guesses are not
    let (mut tried, mut spared) = (0, 0);
    for round in 0.. {
        let statuses = flood_beside(&proxy, "alices", &format!("guess-{round}-"), 10_000);
        tried += statuses.get(&401).unwrap_or(&0);
        spared += statuses[&429];
        assert_eq!(tried + spared, 10_000 * (round + 1), "{statuses:?}");
        if tried + spared >= 50_000 && started.elapsed() > Duration::from_secs(3) {
            break;
        }
    }
    let allowed = GUESSES + started.elapsed().as_secs() + 1;
    assert!((GUESSES..=allowed).contains(&tried), "{tried} were tried, {allowed} allowed");
    let grown = memory(&proxy).saturating_sub(before);
    assert!(grown < 8192, "{grown} KiB");
    let asked = source.received().len() as u64;
    let for_alice = started.elapsed().as_secs() + 2;
    assert!(asked <= allowed + for_alice, "the source was asked {asked} times");

    // whom nobody has met is not judged here, whoever he is, and is at another address
    let stranger = proxy.ask(&get("bobs", ""));
    assert_eq!(stranger.status, 429);
    assert!(stranger.json()["error"]["message"].as_str().unwrap().contains("was not judged"));
    assert_eq!(ask_from("127.0.0.2", &proxy, "bobs").status, 200);
    // and met once, at any
    assert_eq!(proxy.ask(&get("bobs", "")).status, 200);
    // the flood is over: there is room again for one
    eventually("a turn", || (proxy.ask(&get("carols", "")).status == 200).then_some(()));
}

#[test]
fn a_flood_is_tried_with_bcrypt_at_a_steady_pace_and_known_tokens_do_not_wait() {
    let (upstream, folder) = (Origin::plain(), Folder::new());
    let record = |token: &str| {
        let hash = bcrypt::hash(token, 4).unwrap();
        format!("[[tokens]]\nid = \"{token}\"\nhash = \"{hash}\"\nprefix = \"legacy_pat\"\nuser = \"{token}\"\n")
    };
    folder.write("tokens.toml", &["legacy_pat_a", "legacy_pat_b"].map(record).concat());
    let proxy = folder.serve(&upstream.url(), "");
    assert_eq!(proxy.ask(&get("legacy_pat_a", "")).status, 200);
    let started = Instant::now();
    let statuses = flood_beside(&proxy, "legacy_pat_a", "legacy_pat_guess-", 5_000);
    let allowed = GUESSES + started.elapsed().as_secs() + 1;
    // one address never fills the queue of trials: nobody was turned away there
    assert!((GUESSES..=allowed).contains(&statuses[&401]), "{statuses:?}");
    assert_eq!(statuses[&401] + statuses[&429], 5_000);
    assert_eq!(proxy.ask(&get("legacy_pat_b", "")).status, 429);
    assert_eq!(ask_from("127.0.0.2", &proxy, "legacy_pat_b").status, 200);
    assert_eq!(proxy.ask(&get("legacy_pat_b", "")).status, 200);
    // a prefix that no hash has costs nothing to refuse
    assert_eq!(flood(&proxy, "other_pat_", 1000), [(401, 1000)].into());
}

#[test]
fn only_guesses_that_took_work_and_were_nobodys_count() {
    const KNOWN: &[&str] = &["t0", "t1", "t2", "t3", "t4", "last"];
    let (upstream, source, folder) = (Origin::plain(), source(KNOWN), Folder::new());
    let lookup = look_up(&source, ", negative_ttl = \"1h\"");
    let proxy = serve(&folder, &upstream, &lookup, "[rate]\nguesses = 3");
    let status = |token: &str| proxy.ask(&get(token, "")).status;
    // tokens that are somebody's, the same guess again and again, and what is no token of ours at all
    assert!(KNOWN[..5].iter().all(|token| status(token) == 200));
    assert!((0..20).all(|_| status("guess-1") == 401));
    assert!((0..20).all(|_| status("mcp_pat_k3V9mQ2xTa_0123456789ABCDEFGHIJKLMNOPQRSTUV000000") == 401));
    assert!((0..20).all(|_| status("a b") == 400));
    assert_eq!(["guess-2", "guess-3", "guess-4"].map(status), [401, 401, 429]);
    // what was judged already costs nothing
    assert_eq!(["guess-1", "guess-2", "guess-3", "t0", "t4"].map(status), [401, 401, 401, 200, 200]);
    let refused = proxy.ask(&get("last", ""));
    let record = proxy.record_of(&refused);
    assert_eq!((refused.status, &record["reason"], record.get("user")), (429, &"rate_limited".into(), None));
}

#[test]
fn an_outage_of_the_source_is_held_against_nobody() {
    let (upstream, folder) = (Origin::plain(), Folder::new());
    let source = Origin::answering("HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n");
    let proxy = serve(&folder, &upstream, &look_up(&source, ""), "");
    assert_eq!(flood(&proxy, "guess-", 500), [(503, 500)].into());
}

#[test]
fn an_address_is_what_a_trusted_proxy_says_and_not_what_a_client_says() {
    let (upstream, folder) = (Origin::plain(), Folder::new());
    let guesses = |trusted: &str| {
        let source = source(&[]);
        let more = format!("{trusted}\n[rate]\nguesses = 2");
        let proxy = serve(&folder, &upstream, &look_up(&source, ""), &more);
        let guess =
            |client: &str, token: &str| proxy.ask(&get(token, &format!("X-Forwarded-For: {client}\r\n"))).status;
        [("192.0.2.1", "a"), ("192.0.2.1", "b"), ("192.0.2.1", "c"), ("192.0.2.2", "d"), ("2001:db8::1", "e")]
            .map(|(client, token)| guess(client, token))
    };
    assert_eq!(guesses("trusted_proxies = [\"127.0.0.1\"]"), [401, 401, 429, 401, 401]);
    assert_eq!(guesses(""), [401, 401, 429, 429, 429]);
}
