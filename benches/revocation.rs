//! From the change of the token file to the first refusal, and to the end of an open stream.
//!
//! `cargo bench --bench revocation [-- CHANGES]`, 1,000 changes by default.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss, clippy::similar_names)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const TOKEN: &str = "an-opaque-token";

fn main() {
    let changes = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(1000);
    let folder = tempfile::tempdir().unwrap();
    write_list(folder.path(), false);
    let mut proxy = Command::new(env!("CARGO_BIN_EXE_patgate"))
        .current_dir(folder.path())
        .args(["serve", "--listen", "127.0.0.1:0", "--admin", "off", "--tokens", "tokens.toml"])
        .arg("--upstream")
        .arg(format!("http://{}", start_origin()))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
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

    let mut refusals = Vec::new();
    let mut ends = Vec::new();
    for _ in 0..changes {
        let mut stream = open_stream(&address);
        write_list(folder.path(), true);
        let changed = Instant::now();
        let end = thread::spawn(move || {
            let _ = stream.read_to_end(&mut Vec::new());
            changed.elapsed()
        });
        while status(&address) != 401 {}
        refusals.push(changed.elapsed());
        ends.push(end.join().unwrap());
        write_list(folder.path(), false);
        while status(&address) != 200 {}
    }
    proxy.kill().unwrap();
    proxy.wait().unwrap();
    println!("{changes} changes of the token file, each by a rename; milliseconds");
    println!("                        median      p99      max");
    report("to the first refusal", &mut refusals);
    report("to the end of a stream", &mut ends);
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
    println!("{what:22} {:8.1} {:8.1} {:8.1}", at(0.5), at(0.99), at(1.0));
}

fn write_list(folder: &Path, revoked: bool) {
    let hash = patgate::token::TokenDigest::of(TOKEN);
    let revocation = if revoked { "revoked_at = 2026-01-01T00:00:00Z\n" } else { "" };
    let text = format!("[[tokens]]\nid = \"t\"\nhash = \"{hash}\"\nuser = \"alice\"\n{revocation}");
    fs::write(folder.join("next"), text).unwrap();
    fs::rename(folder.join("next"), folder.join("tokens.toml")).unwrap();
}

/// A GET is answered with a stream that never ends, anything else at once.
fn start_origin() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || answer(stream));
        }
    });
    address
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let answer = if head.starts_with("GET") {
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n7\r\ndata: 0\r\n"
        } else {
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
        };
        stream.write_all(answer.as_bytes())?;
    }
}

fn send(address: &str, method: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!("{method} /mcp HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {TOKEN}\r\n");
    stream.write_all(format!("{head}Content-Length: 0\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    BufReader::new(stream)
}

fn status(address: &str) -> u16 {
    let mut line = String::new();
    send(address, "POST").read_line(&mut line).unwrap();
    line.split(' ').nth(1).unwrap().parse().unwrap()
}

fn open_stream(address: &str) -> BufReader<TcpStream> {
    let mut stream = send(address, "GET");
    let mut line = String::new();
    while line != "data: 0\r\n" {
        line.clear();
        assert!(stream.read_line(&mut line).unwrap() > 0, "the stream did not open");
    }
    stream
}
