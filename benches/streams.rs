//! What many open streams cost: memory for each, and a reload that kills the token of one of them.
//!
//! `cargo bench --bench streams [-- STREAMS [TOKENS] [tls] [http2=SHARING]]`, 10,000 streams and 100,000 tokens by default. Each
//! stream has a token of its own. A stream takes two descriptors here and two in the proxy: as many are opened as
//! that allows. With `tls`, all clients come over TLS; with `http2=100`, a hundred streams share a connection.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::cast_precision_loss)]

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rcgen::generate_simple_self_signed;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use floods::{DATA, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, SETTINGS, WINDOW_UPDATE, frame, head};

// the tests use the rest of it
#[allow(dead_code, unreachable_pub)]
#[path = "../tests/it/floods.rs"]
mod floods;

/// Runs its arguments with as many descriptors as the system allows.
const WITH_DESCRIPTORS: [&str; 2] = ["-c", "ulimit -n $(ulimit -Hn) && exec \"$0\" \"$@\""];

/// How often the token of one stream is revoked, with and without many streams beside it.
const ROUNDS: usize = 10;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<usize> = words.iter().filter_map(|word| word.parse().ok()).collect();
    let tls = words.iter().any(|word| word == "tls");
    let sharing: Option<usize> = words.iter().find_map(|word| word.strip_prefix("http2=")?.parse().ok());
    if std::env::var_os("PATGATE_BENCH").is_none() {
        // once more, with more descriptors
        let me = std::env::current_exe().unwrap();
        let mut again = Command::new("sh");
        again.args(WITH_DESCRIPTORS).arg(me).args(words).env("PATGATE_BENCH", "1");
        assert!(again.status().unwrap().success());
        return;
    }
    let most = (descriptors() - 200) / 2;
    let streams = arguments.first().copied().unwrap_or(10_000).min(most);
    let tokens = arguments.get(1).copied().unwrap_or(100_000);

    let folder = tempfile::tempdir().unwrap();
    let (list, origin) = (List::new(tokens), start_origin());
    let trust = tls.then(|| certify(folder.path()));
    println!("{tokens} tokens in a file, {ROUNDS} revocations each; milliseconds");
    println!("streams   to the end of the revoked stream   slowest other request   the same at rest");
    list.write(folder.path(), None);
    let (proxy, door) = start_proxy(folder.path(), &origin, trust.as_ref());
    row(&list, folder.path(), &door, 0);
    stop(proxy);

    // at first no more tokens than streams: what reading a long list leaves behind would be taken by the streams
    List::new(streams).write(folder.path(), None);
    let (proxy, door) = start_proxy(folder.path(), &origin, trust.as_ref());
    let before = resident(&proxy);
    let mut open: Vec<_> = match sharing {
        Some(sharing) => {
            let firsts = (0..streams).step_by(sharing);
            firsts.map(|first| open_shared(&door, first..streams.min(first + sharing))).collect()
        }
        None => (0..streams).map(|number| open_stream(&door, number)).collect(),
    };
    // until all of them have been told of in the audit log
    thread::sleep(Duration::from_secs(2));
    let with = resident(&proxy);
    list.write(folder.path(), None);
    wait_for(&door, list.count - 1);
    row(&list, folder.path(), &door, streams);
    let each = (with - before) * 1024.0 / streams as f64;
    println!("memory: {before:.1} MiB, with the streams {with:.1} MiB: {each:.1} KiB for each");
    // nobody else lost anything
    for connection in &mut open {
        connection.get_ref().tcp().set_nonblocking(true).unwrap();
        let silent = if sharing.is_some() {
            std::iter::repeat_with(|| read_frame(connection)).find_map(|frame| match frame {
                Ok(kind) => {
                    (![PING, SETTINGS, WINDOW_UPDATE].contains(&kind)).then(|| panic!("a frame of kind {kind}"))
                }
                Err(silent) => Some(silent),
            })
        } else {
            connection.read(&mut [0]).err()
        };
        assert_eq!(silent.unwrap().kind(), std::io::ErrorKind::WouldBlock);
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
fn row(list: &List, folder: &Path, door: &Door, beside: usize) {
    let victim = list.count - 1;
    let rest = slowest_request(door, || thread::sleep(Duration::from_secs(1)));
    let mut ends = Vec::new();
    let busy = slowest_request(door, || {
        for _ in 0..ROUNDS {
            let mut stream = open_stream(door, victim);
            list.write(folder, Some(victim));
            let revoked = Instant::now();
            let _ = stream.read_to_end(&mut Vec::new());
            ends.push(revoked.elapsed());
            list.write(folder, None);
            wait_for(door, victim);
        }
    });
    ends.sort();
    let (median, worst) = (ends[ends.len() / 2], ends[ends.len() - 1]);
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    println!("{beside:7}   median {:7.1}   worst {:7.1} {:23.1} {:18.1}", ms(median), ms(worst), ms(busy), ms(rest));
}

/// Waits until a token is let in.
fn wait_for(door: &Door, token: usize) {
    while status(&mut connect(door), token) != 200 {
        thread::sleep(Duration::from_millis(20));
    }
}

/// The slowest of the requests that a client sends one after the other while something happens.
fn slowest_request(door: &Door, meanwhile: impl FnOnce()) -> Duration {
    let over = Arc::new(AtomicBool::new(false));
    let (ending, mut client) = (Arc::clone(&over), connect(door));
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

/// Makes a certificate for the proxy, and what its clients need to trust it.
fn certify(folder: &Path) -> Arc<ClientConfig> {
    let own = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(folder.join("cert.pem"), own.cert.pem()).unwrap();
    fs::write(folder.join("key.pem"), own.signing_key.serialize_pem()).unwrap();
    let mut config = patgate::tls::client(Some(&folder.join("cert.pem")), None).unwrap();
    // each is another client, which has not been there before
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

fn start_proxy(folder: &Path, origin: &str, trust: Option<&Arc<ClientConfig>>) -> (Child, Door) {
    // all clients come from one address here, and nobody answers a ping
    let tls = if trust.is_some() { "[tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n" } else { "" };
    let limits = "[limits]\nconnections = 100000\nconnections_per_address = 100000\n[timeouts]\nkeep_alive = \"1h\"\n";
    fs::write(folder.join("patgate.toml"), format!("{limits}{tls}")).unwrap();
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
    (proxy, Door { address, trust: trust.cloned() })
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

/// Where clients come in, and what they trust there, if they need to.
#[derive(Clone)]
struct Door {
    address: String,
    trust: Option<Arc<ClientConfig>>,
}

/// One end of a connection.
enum Socket {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Socket {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => &stream.sock,
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

fn connect(door: &Door) -> BufReader<Socket> {
    connect_for(door, "http/1.1")
}

fn connect_for(door: &Door, protocol: &str) -> BufReader<Socket> {
    let stream = TcpStream::connect(&door.address).unwrap();
    stream.set_nodelay(true).unwrap();
    let socket = match &door.trust {
        None => Socket::Plain(stream),
        Some(trust) => {
            let mut config = ClientConfig::clone(trust);
            config.alpn_protocols = vec![protocol.into()];
            let name = ServerName::try_from("localhost").unwrap();
            Socket::Tls(Box::new(StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream)))
        }
    };
    // little room, for there are many of them
    BufReader::with_capacity(256, socket)
}

fn send(connection: &mut BufReader<Socket>, method: &str, number: usize) {
    let head = format!("{method} /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n", token(number));
    connection.get_mut().write_all(format!("{head}Content-Length: 0\r\n\r\n").as_bytes()).unwrap();
}

/// Sends one request and reads its answer to the end.
fn status(connection: &mut BufReader<Socket>, number: usize) -> u16 {
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

fn open_stream(door: &Door, number: usize) -> BufReader<Socket> {
    let mut stream = connect(door);
    send(&mut stream, "GET", number);
    let mut line = String::new();
    while line != "data: 0\r\n" {
        line.clear();
        assert!(stream.read_line(&mut line).unwrap() > 0, "the stream did not open");
    }
    stream
}

/// Opens a stream for each of these tokens on one connection of HTTP/2.
fn open_shared(door: &Door, numbers: Range<usize>) -> BufReader<Socket> {
    let mut connection = connect_for(door, "h2");
    let mut begin = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    for (number, stream) in numbers.clone().zip((1..).step_by(2)) {
        begin.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &head("GET", &token(number))));
    }
    connection.get_mut().write_all(&begin).unwrap();
    let mut open = 0;
    while open < numbers.len() {
        open += usize::from(read_frame(&mut connection).unwrap() == DATA);
    }
    connection
}

/// Reads one frame; its kind.
fn read_frame(connection: &mut BufReader<Socket>) -> std::io::Result<u8> {
    let mut head = [0; 9];
    connection.read_exact(&mut head)?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    connection.read_exact(&mut vec![0; length as usize])?;
    Ok(head[3])
}
