//! Our reading of answers, held against hyper's client on a corpus of them and on what mutation makes of it.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::arriving::Arriving;
use super::head::{Awaited, Limits};
use super::pool::Connection;
use crate::metrics::Level;

/// What a reader makes of an answer: its status, its fields, its body; or nothing.
type Reading = Option<(StatusCode, Vec<(String, Vec<u8>)>, Vec<u8>)>;

fn fields<B>(response: &Response<B>) -> Vec<(String, Vec<u8>)> {
    let fields = response.headers().iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
    let mut fields: Vec<_> = fields.collect();
    fields.sort();
    fields
}

/// A connection whose other end answers with these bytes in pieces of this size, and closes.
fn upstream(answer: Vec<u8>, piece: usize) -> DuplexStream {
    let (near, mut far) = duplex(64 * 1024);
    tokio::spawn(async move {
        let mut request = [0; 1024];
        let _ = far.read(&mut request).await;
        for piece in answer.chunks(piece) {
            if far.write_all(piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
    });
    near
}

async fn read_ours(answer: &[u8], piece: usize, method: &Method) -> Reading {
    let mut socket = upstream(answer.to_vec(), piece);
    socket.write_all(b"x").await.ok()?;
    let mut connection = Connection::new(Box::new(socket), Arc::<Level>::default().hold());
    let mut awaited = Awaited::new(method.clone(), Limits { size: 64 * 1024, fields: 100 });
    let arrived = std::future::poll_fn(|cx| awaited.poll(cx, connection.socket())).await.ok()?;
    let body = Arriving::new(arrived.framing, awaited.rest(), connection, None).collect().await.ok()?.to_bytes();
    Some((arrived.response.status(), fields(&arrived.response), body.to_vec()))
}

async fn read_hypers(answer: &[u8], piece: usize, method: &Method) -> Reading {
    let io = TokioIo::new(upstream(answer.to_vec(), piece));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.ok()?;
    let driver = tokio::spawn(connection);
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = method.clone();
    let response = sender.send_request(request).await.ok()?;
    let (status, fields) = (response.status(), fields(&response));
    let body = response.collect().await.ok()?.to_bytes();
    driver.abort();
    Some((status, fields, body.to_vec()))
}

fn both(answer: &[u8], piece: usize, method: &Method) -> (Reading, Reading) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async { (read_ours(answer, piece, method).await, read_hypers(answer, piece, method).await) })
}

/// Answers of every framing, well-formed.
const CORPUS: [&[u8]; 14] = [
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 17\r\n\r\n{\"jsonrpc\":\"2.0\"}",
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: CHUNKED\r\n\r\n5\r\nhello\r\n00A;x=\"y\"\r\n0123456789\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x\r\n\r\n1\r\na\r\n0\r\nx: y\r\nz: 1\r\n\r\n",
    b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\ntransfer-encoding: chunked\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nuntil the end",
    b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.0 404 Not Found\r\ncontent-length: 3\r\nconnection: keep-alive\r\n\r\nno!",
    b"HTTP/1.1 500 \r\nset-cookie: a=1\r\nset-cookie: b=2\r\nmcp-session-id: s\r\ncontent-length: 1\r\n\r\nx",
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\ncontent-length: 4\r\nx-latin: \xe9\r\n\r\nbusy",
    b"\r\nHTTP/1.1 200 OK\r\nempty:\r\nspaces:  a b \r\ncontent-length: 1\r\n\r\nx",
];

#[test]
fn well_formed_answers_are_read_alike() {
    for answer in CORPUS {
        for method in [Method::GET, Method::POST, Method::HEAD] {
            for piece in [1, 7, answer.len()] {
                let (ours, hypers) = both(answer, piece, &method);
                assert!(ours.is_some(), "{method}, {piece}: {}", answer.escape_ascii());
                assert_eq!(ours, hypers, "{method}, {piece}: {}", answer.escape_ascii());
            }
        }
    }
}

/// One change of an answer: bytes put in the place of others.
fn mutation() -> impl Strategy<Value = (usize, usize, Vec<u8>)> {
    let bits =
        ["\r\n", "\n", "\r", " ", "\t", "0", "5", "f", ":", ";", "\0", "chunked", "content-length: 3\r\n", "close"];
    let bits = proptest::sample::select(bits.map(|bit| bit.as_bytes().to_vec()).to_vec());
    (any::<usize>(), 0..4_usize, proptest::collection::vec(bits, 0..3).prop_map(|bits| bits.concat()))
}

fn mutated(answer: &[u8], mutations: &[(usize, usize, Vec<u8>)]) -> Vec<u8> {
    let mut answer = answer.to_vec();
    for (at, removed, put) in mutations {
        let at = at % (answer.len() + 1);
        let end = (at + removed).min(answer.len());
        answer.splice(at..end, put.iter().copied());
    }
    answer
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// We may refuse more than hyper does, but what we take we take as it does.
    #[test]
    fn nothing_is_read_in_another_way(
        which in 0..CORPUS.len(),
        mutations in proptest::collection::vec(mutation(), 1..4),
        piece in 1..80_usize,
        head in any::<bool>(),
    ) {
        let answer = mutated(CORPUS[which], &mutations);
        let (ours, hypers) = both(&answer, piece, if head { &Method::HEAD } else { &Method::POST });
        if ours.is_some() {
            prop_assert_eq!(ours, hypers, "{}", answer.escape_ascii());
        }
    }
}
