//! Honest clients: they ask at a fixed rate, whether or not answers come in time, and look at what they get.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use patgate::token::Prefix;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{sleep_until, timeout};

use crate::http::Reader;
use crate::proxy::{HONEST, Tokens};

/// Requests a second of all clients together.
pub const RATE: u32 = 200;

/// Every so many requests of a client carry a token that nobody has.
const UNKNOWN_EVERY: u32 = 8;

/// By how much a timer may be late by itself: that is nobody's fault.
const TIMER: Duration = Duration::from_millis(2);

/// How long one waits for an answer: longer than two attacks take.
const PATIENCE: Duration = Duration::from_secs(90);

/// The address of their own that honest clients come from.
const HOME: &str = "127.0.0.2:0";

/// What honest clients met in some time.
#[derive(Debug, Default)]
pub struct Experience {
    /// Milliseconds from when each request was due to its answer.
    pub taken: Vec<f64>,
    /// How many were let in.
    pub allowed: u64,
    /// What went wrong, and how often.
    pub failed: BTreeMap<String, u64>,
}

impl Experience {
    /// With what went wrong, and right, in a time before whose waits do not count.
    pub fn after(self, earlier: Self) -> Self {
        self.with(Self { taken: Vec::new(), ..earlier })
    }

    /// Both together.
    pub fn with(mut self, other: Self) -> Self {
        self.taken.extend(other.taken);
        self.allowed += other.allowed;
        for (what, count) in other.failed {
            *self.failed.entry(what).or_default() += count;
        }
        self
    }

    pub fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.taken.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        // nothing is known where nobody was answered
        sorted.get((last as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
    }
}

/// Clients at work until they are stopped.
pub struct Honest {
    clients: Vec<JoinHandle<()>>,
    experience: Rc<RefCell<Experience>>,
    over: Rc<RefCell<bool>>,
}

impl Honest {
    /// One client for each token. Half of them keep their connections, the others make one for each request.
    pub fn start(address: SocketAddr, tokens: &Tokens) -> Self {
        assert_eq!(tokens.len(), HONEST);
        let (experience, over) = (Rc::<RefCell<Experience>>::default(), Rc::<RefCell<bool>>::default());
        let gap = Duration::from_secs(1) * u32::try_from(HONEST).unwrap() / RATE;
        let clients = tokens.iter().enumerate().map(|(number, (user, token))| {
            let client =
                Client { address, user: user.clone(), token: token.clone(), keeps: number % 2 == 0, line: None };
            let due = Instant::now() + gap * u32::try_from(number).unwrap() / u32::try_from(HONEST).unwrap();
            spawn_local(client.work(due, gap, Rc::clone(&experience), Rc::clone(&over)))
        });
        Self { clients: clients.collect(), experience, over }
    }

    /// What they have met since the last time.
    pub fn experience(&self) -> Experience {
        self.experience.take()
    }

    /// Has them finish what they have begun.
    pub async fn stop(self) -> Experience {
        self.over.replace(true);
        for client in self.clients {
            client.await.unwrap();
        }
        self.experience.take()
    }
}

struct Client {
    address: SocketAddr,
    user: String,
    token: String,
    keeps: bool,
    line: Option<Reader<TcpStream>>,
}

impl Client {
    async fn work(
        mut self,
        mut due: Instant,
        gap: Duration,
        experience: Rc<RefCell<Experience>>,
        over: Rc<RefCell<bool>>,
    ) {
        for number in 1.. {
            sleep_until(due.into()).await;
            if *over.borrow() {
                return;
            }
            let begun = Instant::now().min(due + TIMER);
            let is_known = number % UNKNOWN_EVERY != 0;
            let met = match timeout(PATIENCE, self.ask(is_known)).await {
                Ok(met) => met,
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")),
            };
            let mut experience = experience.borrow_mut();
            match met {
                Ok(()) => {
                    experience.taken.push(begun.elapsed().as_secs_f64() * 1e3);
                    experience.allowed += u64::from(is_known);
                }
                Err(error) => {
                    self.line = None;
                    *experience.failed.entry(error.to_string()).or_default() += 1;
                }
            }
            due += gap;
        }
    }

    /// One request; anything but the right verdict and the right user's answer is an error.
    async fn ask(&mut self, is_known: bool) -> io::Result<()> {
        let stranger = Prefix::default().mint().map_err(io::Error::other)?.token;
        let token = if is_known { &self.token } else { stranger.expose() };
        let mut line = match self.line.take() {
            Some(line) => line,
            None => {
                let socket = TcpSocket::new_v4()?;
                socket.bind(HOME.parse().map_err(io::Error::other)?)?;
                let stream = socket.connect(self.address).await?;
                stream.set_nodelay(true)?;
                Reader::new(stream)
            }
        };
        line.stream().write_all(request(token, "/mcp").as_bytes()).await?;
        let answer = line.message().await?;
        let is_right = match answer.subject() {
            "200" => is_known && answer.body == self.user.as_bytes(),
            "401" => !is_known,
            _ => false,
        };
        if !is_right {
            return Err(io::Error::other(answer.head.lines().next().unwrap_or_default().to_owned()));
        }
        if self.keeps {
            self.line = Some(line);
        }
        Ok(())
    }
}

/// A small call.
pub fn request(token: &str, path: &str) -> String {
    let body =
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"text":"hello"}}}"#;
    format!(
        "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
