//! Attacks by the frames of HTTP/2: whoever sends them loses its connection, and nobody else feels anything.

use crate::floods::{
    self, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE,
};
use crate::harness::{Proxy, connect, get};
use crate::stage::{Line, staged};

impl Frames {
    pub fn to(proxy: &Proxy, settings: &[(u16, u32)]) -> Self {
        Self::over(connect(&proxy.address), settings).unwrap()
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
        let error = client.goaway().expect("a goodbye");
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
    assert_repelled(&[PROTOCOL_ERROR, ENHANCE_YOUR_CALM], floods::rapid_resets);
}

#[test]
fn a_head_without_end_ends_the_connection() {
    assert_repelled(&[PROTOCOL_ERROR, ENHANCE_YOUR_CALM], floods::head_without_end);
}

#[test]
fn a_client_that_makes_us_reset_its_streams_loses_its_connection() {
    assert_repelled(&[ENHANCE_YOUR_CALM], floods::made_you_reset);
}

#[test]
fn a_window_that_grows_by_nothing_ends_the_connection() {
    assert_repelled(&[PROTOCOL_ERROR], |client| {
        client.begin_upload(1, "unknown").unwrap();
        client.send(WINDOW_UPDATE, 0, 1, &0u32.to_be_bytes()).unwrap();
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
        client
            .send(HEADERS, END_STREAM | END_HEADERS, 1, &[&resize, &*floods::head("GET", "unknown")].concat())
            .unwrap();
    });
}

#[test]
fn data_that_is_nothing_but_frames_ends_the_connection() {
    assert_repelled(&[PROTOCOL_ERROR, ENHANCE_YOUR_CALM], floods::empty_data);
}

#[test]
fn an_upload_of_frames_without_data_ends_with_its_connection() {
    let (origin, _folder, token, proxy) = staged("");
    let mut client = Frames::to(&proxy, &[]);
    client.begin_upload(1, &token).unwrap();
    let mut upstream = origin.accept();
    upstream.request();
    while client.send(DATA, 0, 1, b"").is_ok() {}
    assert_eq!(client.goaway(), Some(ENHANCE_YOUR_CALM));
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
        let bomb = [floods::head("GET", &token), field, vec![0xbe; 5000]].concat();
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
        for kind in [PING, SETTINGS] {
            // it reads nothing, until the proxy has had enough
            let sent = floods::asking_for_answers(&mut Frames::to(&proxy, &[]), kind);
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
