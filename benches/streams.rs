//! What many open streams cost: memory for each, and a reload that kills the token of one of them.
//!
//! `cargo bench --bench streams [-- STREAMS [TOKENS]]`, 10,000 streams and 100,000 tokens by default. Each
//! stream has a token of its own. A stream takes two descriptors here and two in the proxy: as many are opened as
//! that allows.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::cast_precision_loss)]

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Runs its arguments with as many descriptors as the system allows.
const WITH_DESCRIPTORS: [&str; 2] = ["-c", "ulimit -n $(ulimit -Hn) && exec \"$0\" \"$@\""];

/// How often the token of one stream is revoked, with and without many streams beside it.
const ROUNDS: usize = 10;

fn main() {
    let arguments: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    if std::env::var_os("PATGATE_BENCH").is_none() {
        // once more, with more descriptors
        let me = std::env::current_exe().unwrap();
        let mut again = Command::new("sh");
        again.args(WITH_DESCRIPTORS).arg(me).args(arguments.iter().map(usize::to_string)).env("PATGATE_BENCH", "1");
        assert!(again.status().unwrap().success());
        return;
    }
    let most = (descriptors() - 200) / 2;
    let streams = arguments.first().copied().unwrap_or(10_000).min(most);
    let tokens = arguments.get(1).copied().unwrap_or(100_000);

    let folder = tempfile::tempdir().unwrap();
    let (list, origin) = (List::new(tokens), start_origin());
    println!("{tokens} tokens in a file, {ROUNDS} revocations each; milliseconds");
    println!("streams   to the end of the revoked stream   slowest other request   the same at rest");
    list.write(folder.path(), None);
    let (proxy, address) = start_proxy(folder.path(), &origin);
    row(&list, folder.path(), &address, 0);
    stop(proxy);

    // at first no more tokens than streams: what reading a long list leaves behind would be taken by the streams
    List::new(streams).write(folder.path(), None);
    let (proxy, address) = start_proxy(folder.path(), &origin);
    let before = resident(&proxy);
    let open: Vec<_> = (0..streams).map(|number| open_stream(&address, number)).collect();
    // until all of them have been told of in the audit log
    thread::sleep(Duration::from_secs(2));
    let with = resident(&proxy);
    list.write(folder.path(), None);
    wait_for(&address, list.count - 1);
    row(&list, folder.path(), &address, open.len());
    let each = (with - before) * 1024.0 / open.len() as f64;
    println!("memory: {before:.1} MiB, with the streams {with:.1} MiB: {each:.1} KiB for each");
    // nobody else lost anything
    for stream in &open {
        stream.get_ref().set_nonblocking(true).unwrap();
        let quiet = stream.get_ref().peek(&mut [0]).unwrap_err();
        assert_eq!(quiet.kind(), std::io::ErrorKind::WouldBlock);
    }
    stop(proxy);
}

/// How many descriptors this process may have.
fn descriptors() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    line.split_whitespace().nth(3).unwrap().parse().unwrap()
}

/// Revokes the last token of the list again and again, with these many streams beside its own.
fn row(list: &List, folder: &Path, address: &str, beside: usize) {
    let victim = list.count - 1;
    let rest = slowest_request(address, || thread::sleep(Duration::from_secs(1)));
    let mut ends = Vec::new();
    let busy = slowest_request(address, || {
        for _ in 0..ROUNDS {
            let mut stream = open_stream(address, victim);
            list.write(folder, Some(victim));
            let revoked = Instant::now();
            let _ = stream.read_to_end(&mut Vec::new());
            ends.push(revoked.elapsed());
            list.write(folder, None);
            wait_for(address, victim);
        }
    });
    ends.sort();
    let (median, worst) = (ends[ends.len() / 2], ends[ends.len() - 1]);
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    println!("{beside:7}   median {:7.1}   worst {:7.1} {:23.1} {:18.1}", ms(median), ms(worst), ms(busy), ms(rest));
}

/// Waits until a token is let in.
fn wait_for(address: &str, token: usize) {
    while status(&mut connect(address), token) != 200 {
        thread::sleep(Duration::from_millis(20));
    }
}

/// The slowest of the requests that a client sends one after the other while something happens.
fn slowest_request(address: &str, meanwhile: impl FnOnce()) -> Duration {
    let over = Arc::new(AtomicBool::new(false));
    let (ending, mut client) = (Arc::clone(&over), connect(address));
    let asking = thread::spawn(move || {
        let mut slowest = Duration::ZERO;
        while !ending.load(Ordering::Relaxed) {
            let sent = Instant::now();
            assert_eq!(status(&mut client, 0), 200);
            slowest = slowest.max(sent.elapsed());
            thread::sleep(Duration::from_micros(500));
        }
        slowest
    });
    meanwhile();
    over.store(true, Ordering::Relaxed);
    asking.join().unwrap()
}

// --- The list -------------------------------------------------------------------------------

fn token(number: usize) -> String {
    format!("wick_pat_{number:032x}")
}

struct List {
    count: usize,
    text: String,
}

impl List {
    fn new(count: usize) -> Self {
        let mut text = String::new();
        for number in 0..count {
            let hash = patgate::token::TokenDigest::of(&token(number));
            writeln!(
                text,
                "[[tokens]]\nid = \"id{number}\"\nhash = \"{hash}\"\nuser = \"user{}\"\nname = \"Claude Code on laptop\"\n\
                 scopes = [\"mcp:read\"]\ncreated_at = 2026-11-22T08:00:00Z\nexpires_at = 2099-02-20T08:00:00Z\n",
                number % 100
            )
            .unwrap();
        }
        Self { count, text }
    }

    /// Writes the list; the token `revoked` must be its last one.
    fn write(&self, folder: &Path, revoked: Option<usize>) {
        let mut text = self.text.trim_end().to_owned();
        if revoked.is_some() {
            text.push_str("\nrevoked_at = 2026-01-01T00:00:00Z\n");
        }
        fs::write(folder.join("next"), text).unwrap();
        fs::rename(folder.join("next"), folder.join("tokens.toml")).unwrap();
    }
}

// --- The proxy, and both of its sides -------------------------------------------------------

fn start_proxy(folder: &Path, origin: &str) -> (Child, String) {
    // all clients come from one address here
    fs::write(folder.join("patgate.toml"), "[limits]\nconnections = 100000\nconnections_per_address = 100000\n")
        .unwrap();
    let mut command = Command::new("sh");
    command.args(WITH_DESCRIPTORS).arg(env!("CARGO_BIN_EXE_patgate")).current_dir(folder);
    command.args(["serve", "--config", "patgate.toml", "--listen", "127.0.0.1:0", "--admin", "off"]);
    command.args(["--tokens", "tokens.toml"]);
    command.arg("--upstream").arg(format!("http://{origin}")).env_remove("PATGATE_BENCH");
    let mut proxy = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(proxy.stderr.take().unwrap());
    let address = loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).unwrap() > 0, "the proxy did not start");
        let entry: serde_json::Value = serde_json::from_str(&line).unwrap();
        if entry["message"] == "listening" {
            break entry["address"].as_str().unwrap().to_owned();
        }
    };
    thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    (proxy, address)
}

fn stop(mut proxy: Child) {
    proxy.kill().unwrap();
    proxy.wait().unwrap();
}

/// Resident memory in MiB.
fn resident(proxy: &Child) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", proxy.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// A GET is answered with a stream that never ends; its connection costs no thread from then on.
fn start_origin() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut connection = BufReader::with_capacity(256, stream);
            match answer(&mut connection) {
                // open for as long as this process lives
                Ok(true) => std::mem::forget(connection),
                Ok(false) => {
                    thread::spawn(move || {
                        while let Ok(streams) = answer(&mut connection) {
                            if streams {
                                return std::mem::forget(connection);
                            }
                        }
                    });
                }
                Err(_) => {}
            }
        }
    });
    address
}

/// Answers one request; tells whether the answer is a stream.
fn answer(connection: &mut BufReader<TcpStream>) -> std::io::Result<bool> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if connection.read_line(&mut head)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    let streams = head.starts_with("GET");
    let answer = if streams {
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n7\r\ndata: 0\r\n"
    } else {
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
    };
    connection.get_mut().write_all(answer.as_bytes())?;
    Ok(streams)
}

fn connect(address: &str) -> BufReader<TcpStream> {
    // little room, for there are many of them
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    BufReader::with_capacity(256, stream)
}

fn send(connection: &mut BufReader<TcpStream>, method: &str, number: usize) {
    let head = format!("{method} /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n", token(number));
    connection.get_mut().write_all(format!("{head}Content-Length: 0\r\n\r\n").as_bytes()).unwrap();
}

/// Sends one request and reads its answer to the end.
fn status(connection: &mut BufReader<TcpStream>, number: usize) -> u16 {
    send(connection, "POST", number);
    let (mut status, mut length) = (0, 0);
    loop {
        let mut line = String::new();
        assert!(connection.read_line(&mut line).unwrap() > 0, "no answer");
        if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
            status = rest[..3].parse().unwrap();
        } else if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        } else if line == "\r\n" {
            break;
        }
    }
    connection.read_exact(&mut vec![0; length]).unwrap();
    status
}

fn open_stream(address: &str, number: usize) -> BufReader<TcpStream> {
    let mut stream = connect(address);
    send(&mut stream, "GET", number);
    let mut line = String::new();
    while line != "data: 0\r\n" {
        line.clear();
        assert!(stream.read_line(&mut line).unwrap() > 0, "the stream did not open");
    }
    stream
}
