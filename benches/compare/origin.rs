//! The server behind every subject. What it answers is asked for by the path.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::spawn_local;

use crate::http::{Reader, values};

/// The event streams, by their paths. Whoever reads one asks for each event here.
#[derive(Clone, Default)]
pub struct Events(Rc<RefCell<HashMap<String, Rc<Notify>>>>);

impl Events {
    /// A stream that nobody has read yet.
    pub fn another(&self) -> (String, Rc<Notify>) {
        let path = format!("/events/{}", self.0.borrow().len());
        let next = Rc::<Notify>::default();
        self.0.borrow_mut().insert(path.clone(), Rc::clone(&next));
        (path, next)
    }

    fn of(&self, path: &str) -> Rc<Notify> {
        Rc::clone(&self.0.borrow()[path])
    }
}

/// An event as MCP servers send them, about 100 bytes.
const EVENT: &str =
    "event: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progress\":1}}\n\n";

/// Starts it; it runs as long as the runtime does.
pub async fn start(events: &Events) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let events = events.clone();
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let events = events.clone();
            // a connection that breaks is the other side's business, which will see it
            spawn_local(async move { drop(serve(stream, events).await) });
        }
    });
    Ok(address)
}

async fn serve(stream: TcpStream, events: Events) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = Reader::new(stream);
    let result = "x".repeat(240);
    let json = answer(&format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{{\"content\":\"{result}\"}}}}"));
    let sse = chunked("", &event(&result));
    let large = [answer(&"x".repeat(16 * 1024)), answer(&"x".repeat(256 * 1024))];
    loop {
        let request = reader.message().await?;
        let echo;
        let bytes = match request.subject() {
            "/sse" => &sse,
            "/session" => {
                echo = in_session(request.head, &event(&result));
                &echo
            }
            "/16k" => &large[0],
            "/256k" => &large[1],
            // the head as it arrived, and how much of a body
            "/echo" => {
                echo = answer(&format!("{}{}", request.head, request.body.len()));
                &echo
            }
            path if path.starts_with("/events/") => {
                let asked = events.of(path);
                return stream_events(reader.stream(), &asked).await;
            }
            _ => &json,
        };
        reader.stream().write_all(bytes).await?;
    }
}

async fn stream_events(stream: &mut TcpStream, asked: &Notify) -> io::Result<()> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    let chunk = format!("{:x}\r\n{EVENT}\r\n", EVENT.len());
    loop {
        stream.write_all(chunk.as_bytes()).await?;
        asked.notified().await;
    }
}

fn event(result: &str) -> String {
    format!("event: message\ndata: {{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"{result}\"}}\n\n")
}

fn answer(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}").into()
}

/// One event in one write, as TypeScript SDK servers answer by default.
fn chunked(fields: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\n{fields}content-type: text/event-stream\r\ncache-control: no-cache\r\n\
         transfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    )
    .into()
}

/// The same from Express, with the session that the request has.
fn in_session(head: &str, body: &str) -> Vec<u8> {
    let session = values(head, "mcp-session-id").next().unwrap();
    let fields = format!(
        "X-Powered-By: Express\r\nmcp-session-id: {session}\r\nDate: Tue, 24 Nov 2026 12:00:00 GMT\r\nConnection: keep-alive\r\n\
         Keep-Alive: timeout=5\r\n"
    );
    chunked(&fields, body)
}
