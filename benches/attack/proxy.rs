//! The program under attack: a process of its own, with the settings that it has by default.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use patgate::token::{Prefix, TokenDigest};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use serde_json::Value;
use tempfile::TempDir;

use crate::origin::MALLORY;

/// Honest users, each with a token.
pub const HONEST: usize = 8;

/// Users and their tokens.
pub type Tokens = Vec<(String, String)>;

pub struct Proxy {
    process: Child,
    folder: TempDir,
    pub address: SocketAddr,
    pub honest: Tokens,
    /// The token of an attacker who has one.
    pub mallorys: String,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Proxy {
    /// Starts it on a core of its own, if there are several, with one worker and a list of so many tokens.
    pub fn start(origin: SocketAddr, tokens: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let users = (0..tokens).map(|number| match number {
            0 => MALLORY.to_owned(),
            _ if number <= HONEST => format!("honest{number}"),
            _ => format!("user{number}"),
        });
        let mut list = String::new();
        let mut known: Tokens = Vec::new();
        for (number, user) in users.enumerate() {
            let token = Prefix::default().mint().unwrap().token.expose().to_owned();
            let hash = TokenDigest::of(&token);
            writeln!(list, "[[tokens]]\nid = \"t{number}\"\nhash = \"{hash}\"\nuser = \"{user}\"").unwrap();
            if number <= HONEST {
                known.push((user, token));
            }
        }
        fs::write(folder.path().join("tokens.toml"), list).unwrap();
        let settings = format!(
            "listen = \"127.0.0.1:0\"\nupstream = \"http://{origin}\"\nadmin = \"off\"\nworkers = 1\n\
             [tokens]\nfile = \"tokens.toml\"\n[audit]\npath = \"audit.jsonl\"\n"
        );
        fs::write(folder.path().join("patgate.toml"), settings).unwrap();
        let mut command = crate::on_core(0, env!("CARGO_BIN_EXE_patgate"));
        command.args(["serve", "--config", "patgate.toml"]).current_dir(folder.path());
        let log = File::create(folder.path().join("log")).unwrap();
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let (_, mallorys) = known.remove(0);
        let address = SocketAddr::from(([0; 4], 0));
        let mut proxy = Self { process, folder, address, honest: known, mallorys };
        proxy.address = proxy.await_address();
        proxy
    }

    fn await_address(&mut self) -> SocketAddr {
        let begun = Instant::now();
        loop {
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap();
            let mut entries = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            if let Some(entry) = entries.find(|entry| entry["message"] == "listening") {
                return entry["address"].as_str().unwrap().parse().unwrap();
            }
            let waits = self.process.try_wait().unwrap().is_none() && begun.elapsed() < Duration::from_mins(1);
            assert!(waits, "the proxy does not start: {log}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn id(&self) -> u32 {
        self.process.id()
    }

    fn kib(&self, field: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Resident memory, in MiB.
    pub fn memory(&self) -> f64 {
        self.kib("VmRSS:") / 1024.0
    }

    /// The most that it was since `forget_most_memory`.
    pub fn most_memory(&self) -> f64 {
        self.kib("VmHWM:") / 1024.0
    }

    /// As proc_pid_clear_refs(5) says.
    pub fn forget_most_memory(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.id()), "5").unwrap();
    }

    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.id())).unwrap().count()
    }

    /// Lets it have so many descriptors from now on.
    pub fn limit_descriptors(&self, most: usize) {
        let process = Pid::from_raw(self.id().try_into().unwrap());
        let limits = Rlimit { current: Some(most as u64), ..getrlimit(Resource::Nofile) };
        prlimit(process, Resource::Nofile, limits).unwrap();
    }

    /// Tells it to stop, which it must do well, and returns its audit log.
    pub fn stop(mut self) -> Audit {
        let id = self.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        let ended = self.process.wait().unwrap();
        let mut log = String::new();
        File::open(self.folder.path().join("log")).unwrap().read_to_string(&mut log).unwrap();
        assert!(ended.success(), "{ended}: {log}");
        let whole = log.contains("\"audit_records_lost\":0,") && !log.contains("panicked");
        assert!(whole, "{log}");
        Audit::read(File::open(self.folder.path().join("audit.jsonl")).unwrap())
    }
}

/// What the audit log says about either side. They come from different addresses.
pub struct Audit {
    /// How many requests of honest clients were allowed.
    pub honest: u64,
    /// What attackers were told, and how often.
    pub attackers: BTreeMap<String, u64>,
}

impl Audit {
    fn read(file: File) -> Self {
        let mut audit = Self { honest: 0, attackers: BTreeMap::new() };
        for line in BufReader::new(file).lines() {
            let line = line.unwrap();
            // there may be a million of them
            let value = |key: &str| {
                let rest = line.split_once(&format!("\"{key}\":"))?.1;
                rest.split([',', '}']).next().map(|value| value.trim_matches('"'))
            };
            let is_request = value("event") == Some("request");
            if !is_request {
                continue;
            }
            if value("client_ip") == Some("127.0.0.1") {
                let told = value("status").map_or_else(|| "nothing".to_owned(), str::to_owned);
                let told = if value("outcome") == Some("allowed") {
                    told
                } else {
                    format!("{told} {}", value("reason").unwrap())
                };
                *audit.attackers.entry(told).or_default() += 1;
            } else if value("outcome") == Some("allowed") {
                audit.honest += 1;
            }
        }
        audit
    }
}

/// Lets this process, and all that it starts, have as many descriptors as the system allows.
pub fn raise_descriptors() {
    let limits = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limits.maximum, ..limits }).unwrap();
}
