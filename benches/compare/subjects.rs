//! Who is compared: each with its configuration, pinned to one core, and verified before it is timed.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use patgate::token::{Prefix, TokenDigest};
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::http::Reader;
use crate::traffic;

pub const PEERS: [&str; 5] = ["haproxy", "nginx", "envoy", "caddy", "traefik"];

/// The tokens that everybody knows, and their users.
pub struct Tokens {
    pub all: Vec<String>,
}

impl Tokens {
    pub fn mint(count: usize) -> Self {
        let prefix = Prefix::default();
        Self { all: (0..count).map(|_| prefix.mint().unwrap().token.expose().to_owned()).collect() }
    }

    pub fn user(&self, token: &str) -> String {
        format!("user{}", self.all.iter().position(|known| known == token).unwrap() % 100)
    }

    fn lines(&self, line: impl Fn(&str, usize) -> String) -> String {
        self.all.iter().enumerate().map(|(number, token)| line(token, number)).collect()
    }

    /// As patgate reads them.
    pub fn write(&self, folder: &Path) {
        let tokens = self.lines(|token, number| {
            let hash = TokenDigest::of(token);
            format!("[[tokens]]\nid = \"t{number}\"\nhash = \"{hash}\"\nuser = \"user{}\"\n", number % 100)
        });
        fs::write(folder.join("tokens.toml"), tokens).unwrap();
        let map = self.lines(|token, number| {
            format!("{} user{}\n", TokenDigest::of(token).hex().to_string().to_uppercase(), number % 100)
        });
        fs::write(folder.join("tokens.map"), map).unwrap();
        let refused = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"the token is not valid"}}"#;
        fs::write(folder.join("refused.json"), refused).unwrap();
    }
}

/// A running subject.
pub struct Subject {
    pub name: String,
    pub address: SocketAddr,
    /// Those of the tokens that it knows.
    pub tokens: Vec<String>,
    /// From its start to its first answer.
    pub ready: Duration,
    /// Where its records go, if anywhere.
    log: Option<PathBuf>,
    process: Child,
}

impl Drop for Subject {
    fn drop(&mut self) {
        for process in family(self.process.id()) {
            // the workers of a master end with it, if it is asked
            let _ = Command::new("kill").arg(process.to_string()).status();
        }
        let _ = self.process.wait();
    }
}

/// How a subject is started.
pub struct Stage<'s> {
    pub folder: &'s Path,
    pub peers: &'s Path,
    pub origin: SocketAddr,
    pub tokens: &'s Tokens,
    /// How many threads it serves with, and cores it may use.
    pub workers: usize,
}

impl Stage<'_> {
    /// A build of patgate, with everything on that is on by default.
    pub fn patgate(&self, name: &str, program: &Path) -> Subject {
        self.patgate_with(name, program, &format!("path = \"logs/{name}.jsonl\""))
    }

    /// The same, but for a log on a full disk and no room to wait in: each record is begun, filled and dropped.
    pub fn patgate_without_records(&self, name: &str, program: &Path) -> Subject {
        let mut subject = self.patgate_with(name, program, "path = \"/dev/full\"\nqueue = 1\npatience = \"1h\"");
        subject.log = None;
        subject
    }

    fn patgate_with(&self, name: &str, program: &Path, audit: &str) -> Subject {
        let (port, workers) = (free_port(), self.workers);
        let text = format!(
            "listen = \"127.0.0.1:{port}\"\nupstream = \"http://{}\"\nadmin = \"off\"\nworkers = {workers}\n\
             [tokens]\nfile = \"tokens.toml\"\n[audit]\n{audit}\n",
            self.origin
        );
        fs::write(self.folder.join(format!("{name}.toml")), text).unwrap();
        let mut command = self.command(program);
        command.args(["serve", "--config", &format!("{name}.toml")]);
        self.start(name, port, command, self.tokens.all.clone())
    }

    pub fn peer(&self, name: &str) -> Subject {
        let port = free_port();
        let (mut tokens, workers) = (self.tokens.all.clone(), self.workers.to_string());
        let configuration = |file: &str, text: &str, credentials: &str| {
            let one = &self.tokens.all[0];
            let filled = text
                .replace("@credentials@", credentials)
                .replace("@token@", one)
                .replace("@user@", &self.tokens.user(one))
                .replace("@port@", &port.to_string())
                .replace("@workers@", &workers)
                .replace("@origin@", &self.origin.port().to_string())
                .replace("@folder@", self.folder.to_str().unwrap())
                .replace("@peers@", self.peers.to_str().unwrap());
            fs::write(self.folder.join(file), filled).unwrap();
        };
        let mut command = self.command(&self.peers.join("bin").join(name));
        let libraries = ["lib", "usr/lib"].map(|folder| self.peers.join(format!("debian/{folder}/x86_64-linux-gnu")));
        match name {
            "haproxy" => {
                configuration("haproxy.cfg", include_str!("peers/haproxy.cfg"), "");
                command.args(["-f", "haproxy.cfg"]).env("LD_LIBRARY_PATH", std::env::join_paths(libraries).unwrap());
            }
            "nginx" => {
                configuration("nginx.conf", include_str!("peers/nginx.conf"), "");
                command.arg("-p").arg(self.folder).args(["-e", "nginx.err", "-c"]).arg(self.folder.join("nginx.conf"));
                command.env("LD_LIBRARY_PATH", std::env::join_paths(libraries).unwrap());
            }
            "envoy" => {
                let line = |token: &str, number: usize| {
                    format!("              - {{ key: \"{token}\", client: user{} }}\n", number % 100)
                };
                configuration("envoy.yaml", include_str!("peers/envoy.yaml"), &self.tokens.lines(line));
                command.args(["--concurrency", &workers, "--disable-hot-restart", "-l", "error", "-c", "envoy.yaml"]);
            }
            "caddy" => {
                let line = |token: &str, number: usize| format!("\t\t\"Bearer {token}\" user{}\n", number % 100);
                configuration("Caddyfile", include_str!("peers/Caddyfile"), &self.tokens.lines(line));
                command.args(["run", "--config", "Caddyfile"]).env("GOMAXPROCS", &workers).env("HOME", self.folder);
            }
            "traefik" => {
                tokens.truncate(1);
                configuration("traefik.yaml", include_str!("peers/traefik.yaml"), "");
                configuration("traefik-routes.yaml", include_str!("peers/traefik-routes.yaml"), "");
                command.args(["--configFile=traefik.yaml"]).env("GOMAXPROCS", &workers);
            }
            _ => panic!("{name} is not a peer: {PEERS:?}"),
        }
        self.start(name, port, command, tokens)
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("taskset");
        command.arg("-c").arg(format!("0-{}", self.workers - 1)).arg(program);
        command
    }

    fn start(&self, name: &str, port: u16, mut command: Command, tokens: Vec<String>) -> Subject {
        let logs = self.folder.join("logs");
        fs::create_dir_all(&logs).unwrap();
        let log = logs.join(format!("{name}.jsonl"));
        let output = logs.join(format!("{name}.out"));
        // HAProxy writes its records to standard output, everybody else into the file itself
        let out = File::create(if name == "haproxy" { &log } else { &output }).unwrap();
        let errors = logs.join(format!("{name}.err"));
        let err = File::create(&errors).unwrap();
        let begun = Instant::now();
        let process = command.current_dir(self.folder).stdout(out).stderr(err).spawn().unwrap();
        let (name, address) = (name.to_owned(), (Ipv4Addr::LOCALHOST, port).into());
        let mut subject = Subject { name, address, tokens, ready: Duration::ZERO, log: Some(log), process };
        while !refuses(subject.address) {
            let ended = subject.process.try_wait().unwrap();
            let said = || [&output, &errors].map(|path| fs::read_to_string(path).unwrap_or_default()).concat();
            let waits = ended.is_none() && begun.elapsed() < Duration::from_mins(1);
            assert!(waits, "{} does not start: {}", subject.name, said());
            thread::sleep(Duration::from_millis(1));
        }
        subject.ready = begun.elapsed();
        subject
    }
}

/// Whether somebody is there and knows already that nobody may pass.
fn refuses(address: SocketAddr) -> bool {
    let mut answer = [0; 12];
    TcpStream::connect(address).is_ok_and(|mut stream| {
        let request = "GET /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).and_then(|()| stream.read_exact(&mut answer)).is_ok()
    }) && answer == *b"HTTP/1.1 401"
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// A process and those that it started.
fn family(process: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|child| child.parse().ok());
    children.flat_map(family).chain([process]).collect()
}

impl Subject {
    /// The time of processors that it has used, of users and of the system together, in seconds.
    pub fn cpu(&self) -> f64 {
        let mut nanoseconds = 0;
        for process in family(self.process.id()) {
            // the same time as in `stat`, but to the nanosecond and by thread
            for task in fs::read_dir(format!("/proc/{process}/task")).unwrap().map_while(Result::ok) {
                let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
                nanoseconds += text.split(' ').next().and_then(|time| time.parse::<u64>().ok()).unwrap_or_default();
            }
        }
        nanoseconds as f64 / 1e9
    }

    /// Resident memory, in MiB.
    pub fn memory(&self) -> f64 {
        let of = |process| {
            let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
            line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or_default() / 1024.0
        };
        family(self.process.id()).into_iter().map(of).sum()
    }

    /// Whether it does the work that is to be timed.
    pub async fn verify(&self, tokens: &Tokens) {
        let good = &self.tokens[self.tokens.len() / 2];
        let (name, user) = (&self.name, tokens.user(good));
        let echoed = self.answer("/echo", good, 200, 1000).await;
        let (head, length) = echoed.rsplit_once("\r\n\r\n").unwrap();
        assert_eq!(length, "1000", "{name} does not pass the body on");
        let values = |name: &str| {
            let fields = head.lines().filter_map(|line| line.split_once(": "));
            fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect::<Vec<_>>()
        };
        assert_eq!(values("x-auth-user"), [user.as_str()], "{name} does not tell who calls: {head}");
        assert!(values("authorization").is_empty(), "{name} passes the token on");
        assert_eq!(self.answer("/16k", good, 200, 150).await.len(), 16 * 1024, "{name}");
        assert_eq!(self.answer("/256k", good, 200, 150).await.len(), 256 * 1024, "{name}");
        assert!(self.answer("/sse", good, 200, 150).await.contains("event: message\ndata: {"), "{name}");
        self.answer("/json", "nobody-has-this-token", 401, 150).await;
        self.answer("/json", &good[..good.len() - 1], 401, 150).await;
    }

    /// Whether it has written down what it was made to do by `verify`, sooner or later.
    pub fn verify_log(&self) {
        let Some(log) = &self.log else { return };
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let text = fs::read_to_string(log).unwrap_or_default();
            // the last line may be half-way
            let records = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let statuses: Vec<_> = records
                .filter_map(|record| record.get("status").or(record.get("DownstreamStatus")).and_then(Value::as_i64))
                .collect();
            if statuses.contains(&200) && statuses.contains(&401) {
                return;
            }
            assert!(Instant::now() < deadline, "{} has not logged what it did: {text}", self.name);
            thread::sleep(Duration::from_millis(50));
        }
    }

    async fn answer(&self, path: &str, token: &str, status: u16, length: usize) -> String {
        let stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let mut reader = Reader::new(stream);
        reader.stream().write_all(&traffic::request(path, token, "", length)).await.unwrap();
        let answer = reader.message().await.unwrap();
        assert_eq!(answer.subject(), status.to_string(), "{} at {path}: {}", self.name, answer.head);
        String::from_utf8(answer.body.to_vec()).unwrap()
    }
}
