//! Clients of every kind, each of which keeps to one way of speaking on a connection: HTTP/1.1 or HTTP/2, plain or
//! over TLS.

use std::io::{BufReader, Read, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::{Asked, End, Seen, Who, World};
use crate::floods::{DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, RST_STREAM, SETTINGS, frame, head_to};
use crate::harness::{Answer, Proxy, connect, read_answer, read_body, read_chunk, read_head};
use crate::http2::{Answering, Client};
use crate::tls::{client_config, tls_client};

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Http {
    One,
    Two,
}

/// How a request comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    Plain(Http),
    Tls(Http),
}

impl Way {
    fn any() -> Self {
        let http = if fastrand::bool() { Http::One } else { Http::Two };
        if fastrand::bool() { Self::Plain(http) } else { Self::Tls(http) }
    }

    fn http(self) -> Http {
        let (Self::Plain(http) | Self::Tls(http)) = self;
        http
    }
}

/// Where clients come in.
pub struct Door {
    address: String,
    /// What clients trust, for each HTTP that they can agree on.
    tls: Option<[Arc<ClientConfig>; 2]>,
}

impl Door {
    pub fn plain(proxy: &Proxy) -> Self {
        Self { address: proxy.address.clone(), tls: None }
    }

    pub fn with_tls(proxy: &Proxy, trusted: &str) -> Self {
        let tls = ["http/1.1", "h2"].map(|protocol| client_config(trusted, &[protocol]));
        Self { address: proxy.address.clone(), tls: Some(tls) }
    }

    fn socket(&self, http: Http) -> Box<dyn Socket> {
        match &self.tls {
            None => Box::new(connect(&self.address)),
            Some(tls) => Box::new(tls_client(&self.address, Arc::clone(&tls[http as usize]))),
        }
    }

    /// A socket for who may leave at any time: its handshake is over at both ends. Before that, nothing of a request
    /// is heard, whatever has been sent.
    fn shaken_socket(&self, http: Http) -> Box<dyn Socket> {
        let Some(tls) = &self.tls else { return self.socket(http) };
        let mut client = tls_client(&self.address, Arc::clone(&tls[http as usize]));
        client.conn.complete_io(&mut client.sock).unwrap();
        // the tickets come last; unread, they turn the end into a reset
        client.sock.peek(&mut [0]).unwrap();
        if fastrand::bool() {
            client.conn.read_tls(&mut client.sock).unwrap();
        }
        Box::new(client)
    }

    fn http2(&self) -> Client {
        let connecting = tokio::net::TcpStream::connect(self.address.clone());
        match &self.tls {
            None => Client::over(async { connecting.await.unwrap() }),
            Some(tls) => {
                let (connector, name) = (TlsConnector::from(Arc::clone(&tls[1])), ServerName::try_from("localhost"));
                Client::over(async { connector.connect(name.unwrap(), connecting.await.unwrap()).await.unwrap() })
            }
        }
    }
}

trait Socket: Read + Write {}

impl<S: Read + Write> Socket for S {}

/// The body of a stream that is being read.
enum Streaming {
    One(BufReader<Box<dyn Socket>>, Answer),
    Two(Client, Incoming),
}

impl Streaming {
    /// Reads on by one event; tells whether that was the end.
    fn next(&mut self) -> Option<End> {
        let read = match self {
            Self::One(client, _) => read_chunk(client).map(|chunk| chunk.is_none()).ok(),
            Self::Two(client, body) => client.part(body).map(|part| part.is_empty()).ok(),
        };
        match read {
            Some(false) => None,
            Some(true) => Some(End::Proper),
            None => Some(End::Cut),
        }
    }

    /// Reads the whole of a body that is no stream.
    fn read_to_end(&mut self) {
        match self {
            Self::One(client, head) => drop(read_body(client, head).unwrap()),
            Self::Two(client, body) => while !client.part(body).unwrap().is_empty() {},
        }
    }
}

/// The number that a path ends in.
pub fn number_in(path: &str) -> u64 {
    path.rsplit('/').next().unwrap().parse().unwrap()
}

/// Sends a request with its body.
fn begin(client: &mut Client, request: http::request::Builder) -> Answering {
    let (body, answering) = client.begin(request);
    // one that has been refused already has no more need of it
    let _ = body.send("{}".into());
    answering
}

fn id_of(answer: &Response<Incoming>) -> String {
    answer.headers()["x-request-id"].to_str().unwrap().to_owned()
}

/// A request that is about to be sent.
struct Due {
    number: u64,
    kind: &'static str,
    who: Who,
    way: Way,
    begun: Instant,
}

impl World {
    fn due(&self, kind: &'static str, who: Who, way: Way) -> Due {
        Due { number: self.number.fetch_add(1, Ordering::Relaxed), kind, who, way, begun: Instant::now() }
    }

    fn note(&self, due: &Due, seen: Seen) {
        let Due { number, who, way, begun, .. } = *due;
        self.asked.lock().unwrap().insert(number, Asked { way, who, begun, ended: Instant::now(), seen });
    }

    fn door(&self, way: Way) -> &Door {
        &self.doors[usize::from(matches!(way, Way::Tls(_)))]
    }

    fn http1(&self, Due { number, kind, who, .. }: &Due) -> String {
        let token = &self.tokens[*who as usize];
        format!(
            "POST /{kind}/{number} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
        )
    }

    fn http2(&self, Due { number, kind, who, way, .. }: &Due) -> http::request::Builder {
        let scheme = if matches!(way, Way::Tls(_)) { "https" } else { "http" };
        Request::post(format!("{scheme}://localhost/{kind}/{number}"))
            .header("authorization", format!("Bearer {}", self.tokens[*who as usize]))
            .header("content-type", "application/json")
    }

    /// The frames of a request: those before its head, its head, and the others.
    fn frames(&self, Due { number, kind, who, .. }: &Due) -> [Vec<u8>; 3] {
        let head = head_to(&format!("/{kind}/{number}"), "POST", &self.tokens[*who as usize]);
        let mut rest = frame(DATA, END_STREAM, 1, b"{}");
        if fastrand::bool() {
            rest.extend(frame(RST_STREAM, 0, 1, &8u32.to_be_bytes()));
        }
        [[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat(), frame(HEADERS, END_HEADERS, 1, &head), rest]
    }

    /// A few calls on one connection: one after the other, or at once and each with another token.
    fn call(&self, who: Who, way: Way) {
        let calls = fastrand::usize(1..6);
        if way.http() == Http::Two {
            let mut client = self.door(way).http2();
            let calls: Vec<_> = (0..calls)
                .map(|_| {
                    let due = self.due("call", Who::any(), way);
                    (begin(&mut client, self.http2(&due)), due)
                })
                .collect();
            for (answering, due) in calls {
                let answer = client.answer(answering);
                let (id, status, mut body) = (id_of(&answer), answer.status().as_u16(), answer.into_body());
                let said = client.part(&mut body).unwrap();
                assert!(client.part(&mut body).unwrap().is_empty());
                due.who.assert_served(status, &said);
                self.note(&due, Seen::Answer(id, status, Some(End::Proper)));
            }
            return;
        }
        let mut client = BufReader::new(self.door(way).socket(way.http()));
        for _ in 0..calls {
            let due = self.due("call", who, way);
            client.get_mut().write_all(self.http1(&due).as_bytes()).unwrap();
            let answer = read_answer(&mut client);
            let id = answer.header("x-request-id").unwrap().to_owned();
            who.assert_served(answer.status, &answer.body);
            self.note(&due, Seen::Answer(id, answer.status, Some(End::Proper)));
            if answer.header("connection") == Some("close") {
                return;
            }
        }
    }

    /// A stream of which so many events are read, if it has them.
    fn stream(&self, kind: &'static str, who: Who, way: Way, events: usize) {
        let due = self.due(kind, who, way);
        let (id, status, mut streaming) = self.open(&due);
        let mut end = None;
        if status == 200 {
            for _ in 0..events {
                end = streaming.next();
                if end.is_some() {
                    break;
                }
                let now = Instant::now();
                assert!(who == Who::Alice || self.is_alive.may_be(true, now, now), "a stream outlives its token");
            }
        } else {
            streaming.read_to_end();
            end = Some(End::Proper);
        }
        self.note(&due, Seen::Answer(id, status, end));
    }

    /// Sends a request and takes the head of its answer: its id and its status.
    fn open(&self, due: &Due) -> (String, u16, Streaming) {
        let door = self.door(due.way);
        match due.way.http() {
            Http::One => {
                let mut client = BufReader::new(door.socket(Http::One));
                client.get_mut().write_all(self.http1(due).as_bytes()).unwrap();
                let head = read_head(&mut client);
                (head.header("x-request-id").unwrap().to_owned(), head.status, Streaming::One(client, head))
            }
            Http::Two => {
                let mut client = door.http2();
                let answering = begin(&mut client, self.http2(due));
                let answer = client.answer(answering);
                (id_of(&answer), answer.status().as_u16(), Streaming::Two(client, answer.into_body()))
            }
        }
    }

    /// A request that its client leaves, wherever it is.
    fn leave(&self, who: Who, way: Way) {
        let due = self.due(["call", "stream"][fastrand::usize(..2)], who, way);
        let [before, head, rest] = match way.http() {
            Http::One => {
                let request = self.http1(&due);
                let (head, body) = request.split_at(request.len() - 2);
                [vec![], head.into(), body.into()]
            }
            Http::Two => self.frames(&due),
        };
        let (headless, asked) = (before.len() + head.len(), [before, head, rest].concat());
        // behind everything or a little before that, or anywhere
        let length =
            asked.len() - if fastrand::bool() { fastrand::usize(..3) } else { fastrand::usize(3..asked.len()) };
        let mut client = self.door(way).shaken_socket(way.http());
        client.write_all(&asked[..length]).unwrap();
        client.flush().unwrap();
        if fastrand::bool() {
            thread::sleep(Duration::from_millis(fastrand::u64(..5)));
        }
        drop(client);
        if length >= headless {
            self.note(&due, Seen::Nothing);
        } else {
            self.unasked.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn be_a_client(&self) {
        while !self.over.load(Ordering::Relaxed) {
            let (who, way) = (Who::any(), Way::any());
            match fastrand::usize(..10) {
                0..6 => self.call(who, way),
                6..8 => self.stream("stream", who, way, fastrand::usize(1..30)),
                _ => self.leave(who, way),
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Bob keeps a stream open all the time, so that there is one to be cut.
    pub fn hold_streams(&self) {
        while !self.over.load(Ordering::Relaxed) {
            self.stream("long", Who::Bob, Way::any(), usize::MAX);
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Who {
    fn any() -> Self {
        match fastrand::usize(..10) {
            0..5 => Self::Alice,
            5..8 => Self::Bob,
            _ => Self::Nobody,
        }
    }

    /// Whoever is let in is taken for who she is.
    fn assert_served(self, status: u16, said: &str) {
        let user = if self == Self::Alice { "alice" } else { "bob" };
        assert!(status != 200 || said == user, "{self:?} got {said}");
    }
}
