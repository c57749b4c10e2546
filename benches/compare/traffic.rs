//! The clients: so many connections at once, each with one request after the other.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::sleep;

use crate::http::Reader;
use crate::origin::Events;

pub const CONNECTIONS: usize = 64;

/// One kind of work.
pub struct Shape {
    pub name: &'static str,
    pub about: &'static str,
    path: &'static str,
    /// Whether the client says all that one with the TypeScript SDK in Node says, its session among it.
    in_session: bool,
    body: usize,
    status: u16,
    /// How many requests a connection carries.
    requests: usize,
}

const JSON: Shape = Shape {
    name: "json",
    about: "JSON answer",
    path: "/json",
    in_session: false,
    body: 150,
    status: 200,
    requests: usize::MAX,
};

pub const SHAPES: [Shape; 9] = [
    JSON,
    Shape { name: "sse", about: "one SSE event", path: "/sse", ..JSON },
    Shape { name: "session", about: "the same in a session", path: "/session", in_session: true, ..JSON },
    Shape { name: "refused", about: "refused", status: 401, ..JSON },
    Shape { name: "16k-request", about: "16 KiB request", body: 16 * 1024, ..JSON },
    Shape { name: "16k-answer", about: "16 KiB answer", path: "/16k", ..JSON },
    Shape { name: "256k-answer", about: "256 KiB answer", path: "/256k", ..JSON },
    Shape { name: "connections", about: "10 requests a connection", requests: 10, ..JSON },
    Shape { name: "events", about: "an event of a stream", path: "/events/", ..JSON },
];

impl Shape {
    /// What client number `client` sends.
    fn request(&self, client: usize, path: &str, tokens: &[String]) -> Vec<u8> {
        let known = &tokens[client * tokens.len() / CONNECTIONS];
        let fields = if self.in_session {
            format!(
                "mcp-session-id: 5f0f2f2e-9d9c-4f62-8a2b-{client:012}\r\nConnection: keep-alive\r\n\
                 accept-language: *\r\nsec-fetch-mode: cors\r\nuser-agent: node\r\naccept-encoding: gzip, deflate\r\n"
            )
        } else {
            "User-Agent: compare/1\r\n".to_owned()
        };
        request(path, if self.status == 401 { "nobody-has-this-token" } else { known }, &fields, self.body)
    }
}

/// A call of a tool as MCP clients send it, with what else they say of themselves and a claim that nobody should
/// believe.
pub fn request(path: &str, token: &str, fields: &str, length: usize) -> Vec<u8> {
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"text":""#;
    let body = format!("{call}{}\"}}}}}}", "x".repeat(length - call.len() - 4));
    format!(
        "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{fields}Authorization: Bearer {token}\r\n\
         Accept: application/json, text/event-stream\r\nContent-Type: application/json\r\n\
         MCP-Protocol-Version: 2025-11-25\r\nX-Auth-User: root\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into()
}

/// Clients at work, until they are dropped.
pub struct Clients {
    tasks: Vec<JoinHandle<()>>,
    answers: Rc<Cell<u64>>,
}

impl Clients {
    /// Clients that send as fast as they get answers.
    pub fn start(target: SocketAddr, shape: &'static Shape, tokens: &[String], events: &Events) -> Self {
        let answers = Rc::new(Cell::new(0));
        let tasks = (0..CONNECTIONS).map(|client| {
            let (answers, tokens) = (Rc::clone(&answers), tokens.to_vec());
            let stream = (shape.path == "/events/").then(|| events.another());
            spawn_local(async move {
                let done = match stream {
                    Some((path, next)) => {
                        read_events(target, &shape.request(client, &path, &tokens), &next, &answers).await
                    }
                    None => send(target, &shape.request(client, shape.path, &tokens), shape, &answers).await,
                };
                let _: () = done.unwrap_or_else(|error| panic!("{}, client {client}: {error}", shape.name));
            })
        });
        Self { tasks: tasks.collect(), answers }
    }

    /// How many answers, or events, have come.
    pub fn answers(&self) -> u64 {
        assert!(!self.tasks.iter().any(JoinHandle::is_finished), "a client has given up");
        self.answers.get()
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn connect(target: SocketAddr) -> io::Result<Reader<TcpStream>> {
    let stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    Ok(Reader::new(stream))
}

/// Sends a request and gets its answer, which must have this status.
async fn exchange(reader: &mut Reader<TcpStream>, request: &[u8], status: u16) -> io::Result<()> {
    reader.stream().write_all(request).await?;
    let answer = reader.message().await?;
    let as_expected = answer.subject().parse() == Ok(status);
    if as_expected { Ok(()) } else { Err(io::Error::other(answer.head.to_owned())) }
}

async fn send(target: SocketAddr, request: &[u8], shape: &Shape, answers: &Cell<u64>) -> io::Result<()> {
    loop {
        let mut reader = connect(target).await?;
        for _ in 0..shape.requests {
            match exchange(&mut reader, request, shape.status).await {
                Ok(()) => answers.set(answers.get() + 1),
                // Envoy closes a connection on which it refuses a request before it has read its body
                Err(error) if shape.status == 401 && is_closed(&error) => break,
                Err(error) => return Err(error),
            }
        }
    }
}

fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

async fn read_events(target: SocketAddr, request: &[u8], next: &Notify, answers: &Cell<u64>) -> io::Result<()> {
    let mut reader = connect(target).await?;
    reader.stream().write_all(request).await?;
    let head = reader.head().await?;
    loop {
        reader.skip_some(head).await?;
        answers.set(answers.get() + 1);
        next.notify_one();
    }
}

/// Sends `rate` requests a second for `window`, whether or not answers come in time, and tells how long
/// each took from the moment at which it was due, in microseconds.
pub async fn latencies(target: SocketAddr, tokens: &[String], rate: u32, window: Duration) -> Vec<f64> {
    let taken = Rc::new(RefCell::new(Vec::new()));
    let gap = Duration::from_secs(1) / rate;
    let begin = Instant::now() + Duration::from_millis(50);
    let clients = (0..CONNECTIONS).map(|client| {
        let request = JSON.request(client, JSON.path, tokens);
        let taken = Rc::clone(&taken);
        spawn_local(async move {
            let mut reader = connect(target).await.unwrap();
            let mut due = begin + gap * u32::try_from(client).unwrap();
            while due < begin + window {
                // a timer is not exact enough
                sleep(due.saturating_duration_since(Instant::now()).saturating_sub(Duration::from_millis(2))).await;
                while Instant::now() < due {
                    tokio::task::yield_now().await;
                }
                exchange(&mut reader, &request, 200).await.unwrap();
                taken.borrow_mut().push(due.elapsed().as_secs_f64() * 1e6);
                due += gap * u32::try_from(CONNECTIONS).unwrap();
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    taken.take()
}
