//! The attacks: each is a process of its own, by a tool or by this program, with the lowest priority, so that it takes
//! the processor from nobody but itself.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use patgate::token::Prefix;
use tokio::io::AsyncWriteExt;

use crate::floods::{self, Frames};
use crate::honest::request;
use crate::http::Reader;
use crate::origin::LARGE;
use crate::proxy::Proxy;

/// How much of it.
#[derive(Clone, Copy)]
pub struct Scale {
    pub connections: usize,
    pub seconds: u64,
    pub tokens: usize,
    pub requests: usize,
}

/// An attack.
pub struct Attack {
    pub name: &'static str,
    pub about: &'static str,
    by: By,
    /// How many descriptors it leaves to the proxy, where it is about that.
    pub descriptors: Option<usize>,
}

enum By {
    SlowHttpTest { mode: &'static str, known: bool, options: &'static [&'static str] },
    H2Load { known: bool },
    Ourselves,
}

const fn ours(name: &'static str, about: &'static str) -> Attack {
    Attack { name, about, by: By::Ourselves, descriptors: None }
}

const fn slow(
    name: &'static str,
    about: &'static str,
    mode: &'static str,
    known: bool,
    options: &'static [&'static str],
) -> Attack {
    Attack { name, about, by: By::SlowHttpTest { mode, known, options }, descriptors: None }
}

pub const ATTACKS: [Attack; 15] = [
    slow("slow-headers", "slow heads", "-H", false, &["-r", "500", "-i", "3", "-x", "24"]),
    slow("slow-body", "slow bodies", "-B", false, &["-r", "500", "-i", "3", "-x", "10", "-s", "8192"]),
    slow(
        "slow-body-known",
        "slow bodies, with a token",
        "-B",
        true,
        &["-r", "500", "-i", "3", "-x", "10", "-s", "8192"],
    ),
    slow(
        "slow-read-known",
        "slow readers, with a token",
        "-X",
        true,
        &["-r", "100", "-n", "3", "-z", "32", "-w", "512", "-y", "1024"],
    ),
    ours("idle", "idle connections"),
    Attack { descriptors: Some(100), ..ours("descriptors", "no descriptors left") },
    ours("tokens", "random tokens"),
    Attack { by: By::H2Load { known: false }, ..ours("h2load", "h2load") },
    Attack { by: By::H2Load { known: true }, ..ours("h2load-known", "h2load, with a token") },
    ours("rapid-reset", "HTTP/2 rapid reset"),
    ours("continuation", "HTTP/2 head without end"),
    ours("made-you-reset", "HTTP/2 MadeYouReset"),
    ours("empty-data", "HTTP/2 empty DATA"),
    ours("settings", "HTTP/2 SETTINGS"),
    ours("ping", "HTTP/2 PING"),
];

/// How many connections flood at once, and how long one waits for the proxy.
const FLOODS: usize = 16;
const PATIENCE: Duration = Duration::from_secs(5);

impl Attack {
    pub fn is_ours(&self) -> bool {
        matches!(self.by, By::Ourselves)
    }

    /// Whether the attacker has a token, and may be let in.
    pub fn is_known(&self) -> bool {
        matches!(self.by, By::SlowHttpTest { known: true, .. } | By::H2Load { known: true })
    }

    /// The process that attacks.
    pub fn command(&self, proxy: &Proxy, scale: &Scale, installed: &Path) -> Command {
        let Scale { connections, seconds, tokens, requests } = scale;
        let program = match self.by {
            By::Ourselves => std::env::current_exe().unwrap(),
            By::SlowHttpTest { .. } => installed.join("usr/bin/slowhttptest"),
            By::H2Load { .. } => installed.join("usr/bin/h2load"),
        };
        let mut command = crate::on_core(1, "nice");
        command.args(["-n", "19"]).arg(program).env("LD_LIBRARY_PATH", installed.join("usr/lib/x86_64-linux-gnu"));
        match self.by {
            By::Ourselves => {
                command.args(["attacker", self.name, &proxy.address.to_string()]);
                command.args([connections.to_string(), seconds.to_string(), tokens.to_string()]);
            }
            By::SlowHttpTest { mode, known, options } => {
                let url = format!("http://{}{LARGE}", proxy.address);
                command.args([mode, "-c", &connections.to_string(), "-l", &seconds.to_string()]);
                command.args(options).args(["-u", &url, "-v", "0"]);
                if known {
                    // it has no option for that, but does not look at what a value contains
                    command.args(["-j", &format!("attack=1\r\nAuthorization: Bearer {}", proxy.mallorys)]);
                }
            }
            By::H2Load { known } => {
                let url = format!("http://{}/mcp", proxy.address);
                let token = if known { &proxy.mallorys } else { "nobody-has-this-token" };
                command.args(["-n", &requests.to_string(), "-c", "20", "-m", "100", &url]);
                command.args(["-H", &format!("authorization: Bearer {token}")]);
            }
        }
        command
    }
}

// --- The attacker's process -----------------------------------------------------------------

/// Carries out an attack of our own, and prints what came of it.
pub fn carry_out(arguments: &[String]) {
    let [name, address, connections, seconds, tokens] = arguments else { panic!("{arguments:?}") };
    let address: SocketAddr = address.parse().unwrap();
    let (connections, seconds) = (connections.parse().unwrap(), seconds.parse::<u64>().unwrap());
    // a flood shows soon what it does
    let after = |seconds| Instant::now() + Duration::from_secs(seconds);
    let (late, end) = (after(seconds), after(seconds.div_ceil(4)));
    let came = match &**name {
        "idle" | "descriptors" => idle(address, connections, late),
        "tokens" => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(tokio::task::LocalSet::new().run_until(guess(address, tokens.parse().unwrap())))
        }
        "rapid-reset" => flood(address, end, |client, _| {
            floods::rapid_resets(client);
            0
        }),
        "continuation" => flood(address, end, |client, _| {
            floods::head_without_end(client);
            0
        }),
        "made-you-reset" => flood(address, end, |client, _| {
            floods::made_you_reset(client);
            0
        }),
        "empty-data" => flood(address, end, |client, _| {
            floods::empty_data(client);
            0
        }),
        "settings" => flood(address, end, |client, end| ask_for_answers(client, floods::SETTINGS, &[], end)),
        "ping" => flood(address, end, |client, end| ask_for_answers(client, floods::PING, &[0; 8], end)),
        other => panic!("{other} is no attack"),
    };
    let came: Vec<_> = came.into_iter().map(|(what, count)| format!("{what} × {count}")).collect();
    println!("{}", came.join(", "));
}

type Came = BTreeMap<String, u64>;

/// Connections of which nothing comes; every other one has been refused once before.
fn idle(address: SocketAddr, connections: usize, end: Instant) -> Came {
    let mut held = Vec::new();
    for number in 0..connections {
        let mut stream = TcpStream::connect(address).unwrap();
        if number % 2 == 0 {
            stream.write_all(request("nobody-has-this-token", "/mcp").as_bytes()).unwrap();
        }
        held.push(stream);
    }
    thread::sleep(end.saturating_duration_since(Instant::now()));
    let is_closed = |stream: &mut TcpStream| {
        stream.set_nonblocking(true).unwrap();
        let mut bytes = [0; 4096];
        loop {
            match stream.read(&mut bytes) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
            }
        }
    };
    let closed = held.iter_mut().filter_map(|stream| is_closed(stream).then_some(())).count();
    Came::from([("closed".to_owned(), closed as u64), ("still open".to_owned(), (connections - closed) as u64)])
}

/// Tokens that are well-formed down to the checksum, each tried once.
async fn guess(address: SocketAddr, tokens: usize) -> Came {
    const CONNECTIONS: usize = 64;
    let clients = (0..CONNECTIONS).map(|number| {
        let share = tokens / CONNECTIONS + usize::from(number < tokens % CONNECTIONS);
        tokio::task::spawn_local(async move {
            let stream = tokio::net::TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let (mut reader, mut came) = (Reader::new(stream), Came::new());
            for _ in 0..share {
                let guessed = Prefix::default().mint().map_err(io::Error::other)?.token;
                reader.stream().write_all(request(guessed.expose(), "/mcp").as_bytes()).await?;
                let answer = reader.message().await?;
                match came.get_mut(answer.subject()) {
                    Some(count) => *count += 1,
                    None => drop(came.insert(answer.subject().to_owned(), 1)),
                }
            }
            io::Result::Ok(came)
        })
    });
    let mut all = Came::new();
    for client in clients.collect::<Vec<_>>() {
        for (status, count) in client.await.unwrap().unwrap() {
            *all.entry(status).or_default() += count;
        }
    }
    all
}

/// The same attack on many connections at once, and again as soon as one has ended. It tells how many
/// answers it got.
fn flood(
    address: SocketAddr,
    end: Instant,
    attack: impl Fn(&mut Frames, Instant) -> u64 + Copy + Send + 'static,
) -> Came {
    let attacker = move || {
        let mut came = Came::new();
        while Instant::now() < end {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
            let socket = stream.try_clone().unwrap();
            let Ok(mut client) = Frames::over(stream, &[]) else { continue };
            let answers = attack(&mut client, end);
            if answers > 0 {
                *came.entry("answers".to_owned()).or_default() += answers;
            }
            if Instant::now() > end {
                // it goes by itself, if it is still there
                let _ = socket.shutdown(Shutdown::Both);
            }
            let ended = client.goaway().map_or_else(|| "ends".to_owned(), |code| format!("GOAWAY {code}"));
            *came.entry(ended).or_default() += 1;
        }
        came
    };
    let threads: Vec<_> = (0..FLOODS).map(|_| thread::spawn(attacker)).collect();
    let mut all = Came::new();
    for thread in threads {
        for (what, count) in thread.join().unwrap() {
            *all.entry(what).or_default() += count;
        }
    }
    all
}

/// Sends what has to be answered, and takes the answers, so that it can go on.
fn ask_for_answers(client: &mut Frames, kind: u8, payload: &[u8], end: Instant) -> u64 {
    let mut answers = 0;
    while Instant::now() < end && client.send_often(kind, 0, payload, 100).is_ok() {
        for _ in 0..100 {
            if client.frame().is_none() {
                return answers;
            }
            answers += 1;
        }
    }
    answers
}
