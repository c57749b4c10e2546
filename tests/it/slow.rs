//! Clients that are slow on purpose, by the hundred: each is let go by its deadline, and honest ones are served meanwhile.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::frames::{memory, most_memory};
use crate::harness::{Folder, Keep, Origin, Proxy, connect, eventually, get, post};

/// The deadlines of the proxy, and what a busy machine may need besides.
const DEADLINE: Duration = Duration::from_secs(2);
const MARGIN: Duration = Duration::from_secs(10);

/// What a slow client may cost, in KiB, with the honest ones beside it: more than twice what it does.
const MOST_MEMORY: u64 = 32;

/// Answers at once, but to `/flood` with more than any buffer on the way holds.
fn origin() -> Origin {
    Origin::scripted(|received, stream| {
        if !received.request_line().contains("/flood") {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")?;
            return Ok(Keep::Open);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
        let block = vec![b'x'; 65536];
        for _ in 0..1000 {
            stream.write_all(&block)?;
        }
        Ok(Keep::Close)
    })
}

/// The time of each of many honest requests, ascending.
fn honest(proxy: &Proxy, token: &str) -> Vec<Duration> {
    let ask = |_| {
        let begun = Instant::now();
        assert_eq!(proxy.ask(&post(token, "{}")).status, 200);
        begun.elapsed()
    };
    let mut times: Vec<_> = (0..300).map(ask).collect();
    times.sort_unstable();
    times
}

/// Waits for the end of a connection.
fn await_end(mut stream: TcpStream) {
    let mut bytes = vec![0; 65536];
    // a reset is an end as well; running into the timeout is not
    while match stream.read(&mut bytes) {
        Ok(count) => count > 0,
        Err(error) => panic_unless_reset(&error),
    } {}
}

fn panic_unless_reset(error: &std::io::Error) -> bool {
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    false
}

#[test]
fn a_thousand_slow_clients_are_let_go_in_time_and_honest_ones_do_not_feel_them() {
    let (origin, folder) = (origin(), Folder::new());
    let token = folder.token("alice", &[]);
    let times = ["handshake", "head", "idle", "body", "write"].map(|name| format!("{name} = \"2s\"\n")).concat();
    let proxy = folder.serve(&origin.url(), &format!("[timeouts]\n{times}"));
    let alone = honest(&proxy, &token);
    let before = memory(&proxy);

    let begun = Instant::now();
    let attackers = |count: usize, begin: String| -> Vec<TcpStream> {
        let attacker = |_| {
            let mut stream = connect(&proxy.address);
            stream.write_all(begin.as_bytes()).unwrap();
            stream
        };
        (0..count).map(attacker).collect()
    };
    let mut held = attackers(1000, String::new());
    held.extend(attackers(100, "PRI * HTTP/2.0\r\n".to_owned()));
    held.extend(attackers(100, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()));
    // a body of which one byte is missing, and an answer that nobody reads
    held.extend(attackers(100, post(&token, "{}").trim_end_matches('}').to_owned()));
    let unread = attackers(50, get(&token, "").replace("/mcp", "/flood"));
    // heads that go on and on, a byte at a time: no byte of theirs puts off the end
    let dripping = attackers(100, "GET /mcp HTTP/1.1\r\nHost: localhost\r\nX-Slow: ".to_owned());
    let among = thread::scope(|scope| {
        let dripping = scope.spawn(|| {
            let mut dripping = dripping;
            while !dripping.is_empty() {
                dripping.retain_mut(|stream| stream.write_all(b"x").is_ok());
                assert!(begun.elapsed() < DEADLINE + MARGIN, "{} heads still go on", dripping.len());
                thread::sleep(Duration::from_millis(50));
            }
        });
        let among = honest(&proxy, &token);
        dripping.join().unwrap();
        among
    });
    for stream in held {
        await_end(stream);
    }
    // who does not read is let go before that, and finds the rest cut off
    eventually("the end of answers that nobody reads", || {
        let gone = |record: &serde_json::Value| record["path"] == "/flood" && record["ended"] == "client_gone";
        (proxy.audit_so_far().iter().filter(|record| gone(record)).count() == unread.len()).then_some(())
    });
    for stream in unread {
        stream.shutdown(Shutdown::Write).unwrap();
        await_end(stream);
    }
    assert!(begun.elapsed() < DEADLINE + MARGIN, "{:?}", begun.elapsed());
    let (alone, among) = (alone[296], among[296]);
    assert!(among < alone * 10 + Duration::from_millis(500), "p99 {among:?}, {alone:?} without them");
    let each = (most_memory(&proxy) - before) / 1450;
    assert!(each < MOST_MEMORY, "{each} KiB for each");
    println!("p99 of honest requests {alone:?} alone, {among:?} among 1,450 slow clients, {each} KiB for each of them");
}
