//! Attacks by the frames of HTTP/2: whoever sends them loses its connection, and nobody else feels anything.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::harness::{Proxy, get};
use crate::stage::{Line, staged};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
pub const ACK: u8 = 1;
pub const INITIAL_WINDOW_SIZE: u16 = 4;

/// An HTTP/2 client that sends whatever frames it likes.
pub struct Frames(TcpStream);

impl Frames {
    pub fn to(proxy: &Proxy, settings: &[(u16, u32)]) -> Self {
        let mut client = Self(crate::harness::connect(&proxy.address));
        client.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        let settings: Vec<u8> =
            settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
        client.send(SETTINGS, 0, 0, &settings).unwrap();
        client
    }

    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> std::io::Result<()> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.0.write_all(&[&head, payload].concat())
    }

    /// The same frame, so many times, in one go.
    pub fn send_often(&mut self, kind: u8, stream: u32, payload: &[u8], count: usize) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, 0], &stream.to_be_bytes()].concat();
        self.0.write_all(&[&head, payload].concat().repeat(count)).unwrap();
    }

    /// The head of a POST to `/mcp` whose body follows.
    pub fn begin_upload(&mut self, stream: u32, token: &str) {
        self.send(HEADERS, END_HEADERS, stream, &Self::head_of("POST", token)).unwrap();
    }

    fn head(token: &str) -> Vec<u8> {
        Self::head_of("GET", token)
    }

    /// A request for `/mcp`, in literals that no table keeps.
    fn head_of(method: &str, token: &str) -> Vec<u8> {
        let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        let field = |name: &str, value: &str| [vec![0], text(name), text(value)].concat();
        [
            field(":method", method),
            field(":scheme", "http"),
            field(":path", "/mcp"),
            field(":authority", "localhost"),
            field("authorization", &format!("Bearer {token}")),
        ]
        .concat()
    }

    pub fn request(&mut self, stream: u32, token: &str) {
        self.send(HEADERS, END_STREAM | END_HEADERS, stream, &Self::head(token)).unwrap();
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

    /// The error code of the GOAWAY that must come.
    fn goaway(&mut self) -> u32 {
        let frames = self.await_end();
        let frame = frames.iter().rfind(|(kind, _, _)| *kind == GOAWAY);
        let (_, _, payload) = frame.unwrap_or_else(|| panic!("no GOAWAY in {frames:?}"));
        u32::from_be_bytes(payload[4..8].try_into().unwrap())
    }
}

/// RFC 9113 section 7.
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const COMPRESSION_ERROR: u32 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;

/// The memory of a proxy, in KiB.
pub fn memory(proxy: &Proxy) -> u64 {
    kib(proxy, "VmRSS:")
}

/// The most that it ever was.
pub fn most_memory(proxy: &Proxy) -> u64 {
    kib(proxy, "VmHWM:")
}

fn kib(proxy: &Proxy, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Attacks again and again on connections of their own; memory must stay where the first ones left it.
fn assert_repelled(errors: &[u32], attack: impl Fn(&mut Frames)) {
    let (origin, _folder, token, proxy) = staged("");
    let mut settled = 0;
    for round in 0..30 {
        let mut client = Frames::to(&proxy, &[]);
        attack(&mut client);
        let error = client.goaway();
        assert!(errors.contains(&error), "{error}");
        if round == 10 {
            settled = memory(&proxy);
        }
    }
    let grown = memory(&proxy).saturating_sub(settled);
    assert!(grown < 4096, "{grown} KiB more");
    assert!(origin.is_quiet());
    // and an honest client is served
    let mut client = Line::to(&proxy.address);
    client.send(get(&token, ""));
    origin.accept().request();
}

#[test]
fn rapid_resets_end_the_connection() {
    assert_repelled(&[PROTOCOL_ERROR, ENHANCE_YOUR_CALM], |client| {
        for stream in (1..4000).step_by(2) {
            let head = Frames::head("unknown");
            let sent = client.send(HEADERS, END_STREAM | END_HEADERS, stream, &head);
            if sent.and_then(|()| client.send(RST_STREAM, 0, stream, &8u32.to_be_bytes())).is_err() {
                break;
            }
        }
    });
}

#[test]
fn a_head_without_end_ends_the_connection() {
    assert_repelled(&[PROTOCOL_ERROR, ENHANCE_YOUR_CALM], |client| {
        client.send(HEADERS, END_STREAM, 1, &Frames::head("unknown")).unwrap();
        let filler = [vec![0, 4], b"name".to_vec(), vec![100], vec![b'x'; 100]].concat().repeat(100);
        while client.send(CONTINUATION, 0, 1, &filler).is_ok() {}
    });
}

#[test]
fn a_client_that_makes_us_reset_its_streams_loses_its_connection() {
    assert_repelled(&[PROTOCOL_ERROR, ENHANCE_YOUR_CALM], |client| {
        for stream in (1..4000).step_by(2) {
            let head = Frames::head("unknown");
            let sent = client.send(HEADERS, END_HEADERS, stream, &head);
            // a window that grows by nothing is an error of the stream
            if sent.and_then(|()| client.send(WINDOW_UPDATE, 0, stream, &0u32.to_be_bytes())).is_err() {
                break;
            }
        }
    });
}

#[test]
fn a_window_that_grows_past_its_limit_ends_the_connection() {
    assert_repelled(&[FLOW_CONTROL_ERROR], |client| {
        for _ in 0..2 {
            client.send(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes()).unwrap();
        }
    });
}

#[test]
fn a_table_of_headers_that_would_be_huge_ends_the_connection() {
    assert_repelled(&[PROTOCOL_ERROR, COMPRESSION_ERROR], |client| {
        // a size of 2^30 and some, where 4096 are allowed (RFC 7541 section 6.3)
        let resize = [0x3f, 0x80, 0x80, 0x80, 0x80, 0x04];
        client.send(HEADERS, END_STREAM | END_HEADERS, 1, &[&resize, &*Frames::head("unknown")].concat()).unwrap();
    });
}

#[test]
fn data_that_is_nothing_but_frames_ends_the_connection() {
    assert_repelled(&[PROTOCOL_ERROR, ENHANCE_YOUR_CALM], |client| {
        client.send(HEADERS, END_HEADERS, 1, &Frames::head("unknown")).unwrap();
        while client.send(DATA, 0, 1, b"").is_ok() {}
    });
}

#[test]
fn an_upload_of_frames_without_data_ends_with_its_connection() {
    let (origin, _folder, token, proxy) = staged("");
    let mut client = Frames::to(&proxy, &[]);
    client.begin_upload(1, &token);
    let mut upstream = origin.accept();
    upstream.request();
    while client.send(DATA, 0, 1, b"").is_ok() {}
    assert_eq!(client.goaway(), ENHANCE_YOUR_CALM);
    upstream.await_end();
    assert_eq!(proxy.audit(1)[0]["ended"], "client_gone");
}

#[test]
fn a_head_that_is_small_on_the_wire_and_huge_in_memory_is_refused() {
    let (origin, _folder, token, proxy) = staged("");
    let mut settled = 0;
    for round in 0..30 {
        let mut client = Frames::to(&proxy, &[]);
        // 3,000 bytes that the table keeps, and then named in one byte, 5,000 times: 15 MB (RFC 7541 section 6.2.1)
        let field = [&[0x40, 1, b'x', 0x7f, 0xb9, 0x16][..], &[b'x'; 3000]].concat();
        let bomb = [Frames::head(&token), field, vec![0xbe; 5000]].concat();
        client.send(HEADERS, END_STREAM | END_HEADERS, 1, &bomb).unwrap();
        while !matches!(client.frame(), None | Some((HEADERS | RST_STREAM | GOAWAY, ..))) {}
        if round == 10 {
            settled = memory(&proxy);
        }
    }
    let grown = memory(&proxy).saturating_sub(settled);
    assert!(grown < 4096, "{grown} KiB more");
    assert!(origin.is_quiet());
}

#[test]
fn a_flood_that_asks_for_answers_and_takes_none_is_let_go_in_flat_memory() {
    let (origin, _folder, token, proxy) = staged("[timeouts]\nwrite = \"500ms\"");
    let mut settled = 0;
    for round in 0..6 {
        for (kind, payload) in [(PING, &[0; 8][..]), (SETTINGS, &[])] {
            let mut client = Frames::to(&proxy, &[]);
            // it reads nothing, until the proxy has had enough
            let mut sent = 0u64;
            while client.send(kind, 0, 0, payload).is_ok() {
                sent += 1;
            }
            assert!(sent > 1000, "{sent}");
        }
        if round == 2 {
            settled = memory(&proxy);
        }
    }
    let grown = memory(&proxy).saturating_sub(settled);
    assert!(grown < 4096, "{grown} KiB more");
    let mut client = Line::to(&proxy.address);
    client.send(get(&token, ""));
    origin.accept().request();
}
