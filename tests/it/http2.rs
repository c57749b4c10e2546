//! HTTP/2 from clients that know beforehand that it is spoken: the same verdicts, the same streams,
//! and nothing that could be read differently once it is HTTP/1.1.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::endings::stop;
use crate::floods::{
    DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PREFACE, RST_STREAM, SETTINGS, frame, head,
};
use crate::harness::{Folder, Keep, Origin, PATIENCE, Proxy, eventually};
use crate::revocation::{await_standstill, flooding};
use crate::stage::{Line, staged};

/// A client with one connection. It goes on in the background, as a client does.
pub struct Client {
    background: Handle,
    sender: SendRequest<Parts>,
    _alive: tokio::sync::oneshot::Sender<()>,
}

/// A body that the test sends part by part.
pub struct Parts(UnboundedReceiver<Bytes>);

impl Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|part| part.map(|part| Ok(Frame::data(part))))
    }
}

impl Client {
    pub fn to(proxy: &Proxy) -> Self {
        let address = proxy.address.clone();
        Self::over(async move { TcpStream::connect(address).await.unwrap() })
    }

    /// A client on a connection that `connect` makes.
    pub fn over<S>(connect: impl Future<Output = S>) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let background = runtime.handle().clone();
        let (alive, gone) = tokio::sync::oneshot::channel::<()>();
        thread::spawn(move || runtime.block_on(async { drop(gone.await) }));
        let sender = background.block_on(async {
            let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(connect.await)).await.unwrap();
            tokio::spawn(connection);
            sender
        });
        Self { background, sender, _alive: alive }
    }

    /// Waits for what must come in time.
    pub fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.background.block_on(async { timeout(PATIENCE, future).await.expect("an end in time") })
    }

    /// Begins a request; its body is what is sent through the channel, until that is dropped.
    pub fn begin(&mut self, request: http::request::Builder) -> (UnboundedSender<Bytes>, Answering) {
        let (parts, body) = unbounded_channel();
        let sending = self.sender.send_request(request.body(Parts(body)).unwrap());
        (parts, self.background.spawn(sending))
    }

    /// The head of an answer, and its body to be read.
    pub fn answer(&self, answering: Answering) -> Response<Incoming> {
        self.wait(answering).unwrap().unwrap()
    }

    /// Sends a request without a body and takes its whole answer.
    pub fn ask(&mut self, request: http::request::Builder) -> (http::response::Parts, String) {
        let (_, answering) = self.begin(request);
        let (head, body) = self.answer(answering).into_parts();
        let body = self.wait(body.collect()).unwrap().to_bytes();
        (head, String::from_utf8(body.to_vec()).unwrap())
    }

    /// The next part of a body, an empty one at its proper end.
    pub fn part(&self, body: &mut Incoming) -> hyper::Result<String> {
        let part = self.wait(body.frame()).transpose()?;
        let data = part.map(|part| part.into_data().unwrap()).unwrap_or_default();
        Ok(String::from_utf8(data.to_vec()).unwrap())
    }
}

pub type Answering = JoinHandle<hyper::Result<Response<Incoming>>>;

fn get(proxy: &Proxy, token: &str) -> http::request::Builder {
    Request::get(proxy.url("/mcp")).header("authorization", format!("Bearer {token}"))
}

#[test]
fn a_client_that_speaks_http2_is_judged_and_named_like_any_other() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\nmcp-session-id: kept\r\n\
         content-length: 2\r\n\r\n{}",
    );
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "");
    let mut client = Client::to(&proxy);
    let (refused, body) = client.ask(Request::get(proxy.url("/mcp")));
    assert_eq!(
        (refused.status.as_u16(), &refused.headers["www-authenticate"]),
        (401, &"Bearer realm=\"mcp\"".parse().unwrap())
    );
    assert!(body.contains("\"id\":null"));

    let claims = [("x-auth-user", "root"), ("x_auth_user", "root"), ("x-forwarded-for", "6.6.6.6"), ("te", "trailers")];
    let request = claims.iter().fold(get(&proxy, &token), |request, (name, value)| request.header(*name, *value));
    let (passed, body) = client.ask(request);
    assert_eq!(
        (passed.status.as_u16(), body.as_str(), &passed.headers["mcp-session-id"]),
        (200, "{}", &"kept".parse().unwrap())
    );
    let [received] = &origin.received()[..] else { panic!("{:?}", origin.received()) };
    assert_eq!(received.request_line(), "GET /mcp HTTP/1.1");
    assert_eq!(
        (received.values("x-auth-user"), received.values("host")),
        (vec!["alice"], vec![origin.address.as_str()])
    );
    assert_eq!(received.values("x-forwarded-host"), [proxy.address.as_str()]);
    for name in ["authorization", "te", "transfer-encoding", ":authority"] {
        assert!(received.values(name).is_empty(), "{name} in {}", received.head);
    }
    assert!(!received.head.contains("root") && !received.head.contains("6.6.6.6"));
    let records = proxy.audit(2);
    assert_eq!((&records[0]["reason"], &records[1]["reason"]), (&"missing_credential".into(), &"ok".into()));
    assert_eq!(passed.headers["x-request-id"], records[1]["request_id"].as_str().unwrap());
}

#[test]
fn streams_of_many_tokens_on_one_connection_get_their_own_answers() {
    let origin = Origin::scripted(|received, stream| {
        let user = received.values("x-auth-user").concat();
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{user}", user.len())?;
        Ok(Keep::Open)
    });
    let folder = Folder::new();
    let tokens = ["alice", "bob", "carol"].map(|user| (user, folder.token(user, &[])));
    let proxy = folder.serve(&origin.url(), "");
    let mut client = Client::to(&proxy);
    let mut answers = Vec::new();
    for round in 0..90 {
        let (user, token) = &tokens[round % 3];
        let request = if round % 5 == 0 { Request::get(proxy.url("/mcp")) } else { get(&proxy, token) };
        answers.push((if round % 5 == 0 { None } else { Some(*user) }, client.begin(request).1));
    }
    let mut counts = HashMap::new();
    for (user, answering) in answers {
        let answer = client.answer(answering);
        let status = answer.status().as_u16();
        let body = client.wait(answer.into_body().collect()).unwrap().to_bytes();
        assert_eq!(status, if user.is_some() { 200 } else { 401 });
        assert!(user.is_none_or(|user| body == user.as_bytes()), "{user:?} got {body:?}");
        *counts.entry(status).or_insert(0) += 1;
    }
    assert_eq!((counts[&200], counts[&401], origin.received().len()), (72, 18, 72));
}

#[test]
fn parts_of_requests_and_answers_pass_one_by_one() {
    let (origin, _folder, token, proxy) = staged("");
    let mut client = Client::to(&proxy);
    let (parts, answering) = client.begin(get(&proxy, &token).method("POST"));
    parts.send("first".into()).unwrap();
    let mut upstream = origin.accept();
    assert_eq!(upstream.request().values("transfer-encoding"), ["chunked"]);
    assert_eq!(upstream.chunk(), "first");
    upstream.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
    let mut body = client.answer(answering).into_body();
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        upstream.send_chunk(event);
        assert_eq!(client.part(&mut body).unwrap(), event);
    }
    parts.send("second".into()).unwrap();
    assert_eq!(upstream.chunk(), "second");
    drop(parts);
    assert!(upstream.end_of_chunks());
    upstream.send_chunk("");
    assert_eq!(client.part(&mut body).unwrap(), "");
    assert_eq!(proxy.audit(1)[0]["ended"], "complete");
}

#[test]
fn an_upload_in_thousands_of_small_frames_passes_whole() {
    // as many at once as may wait for the upstream, and any number that it takes
    for (portion, portions) in [(1010, 1), (500, 10)] {
        let (origin, _folder, token, proxy) = staged("");
        let mut client = Frames::to(&proxy, &[]);
        client.begin_upload(1, &token).unwrap();
        let mut upstream = None;
        for _ in 0..portions {
            client.send_often(DATA, 1, b"x", portion).unwrap();
            let upstream = upstream.get_or_insert_with(|| {
                let mut upstream = origin.accept();
                upstream.request();
                upstream
            });
            let mut taken = 0;
            while taken < portion {
                taken += upstream.chunk().len();
            }
        }
        client.send(DATA, END_STREAM, 1, b"").unwrap();
        let mut upstream = upstream.unwrap();
        assert!(upstream.end_of_chunks());
        upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        let answered = std::iter::from_fn(|| client.frame()).find(|(kind, ..)| [HEADERS, GOAWAY].contains(kind));
        assert_eq!(answered.map(|(kind, ..)| kind), Some(HEADERS));
        assert_eq!(proxy.audit(1)[0]["bytes_in"], portion * portions);
    }
}

#[test]
fn a_stream_that_is_reset_ends_its_upstream_and_no_other() {
    let (origin, _folder, token, proxy) = staged("");
    let mut client = Client::to(&proxy);
    let mut streams = Vec::new();
    for _ in 0..2 {
        let (parts, answering) = client.begin(get(&proxy, &token));
        drop(parts);
        let mut upstream = origin.accept();
        upstream.request();
        upstream.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        streams.push((client.answer(answering).into_body(), upstream));
    }
    let (mut body, mut stays) = streams.pop().unwrap();
    let (reset, mut ends) = streams.pop().unwrap();
    drop(reset);
    ends.await_end();
    stays.send_chunk("still here");
    assert_eq!(client.part(&mut body).unwrap(), "still here");
    assert_eq!(proxy.audit(1)[0]["ended"], "client_gone");

    // and an upstream that dies is no end of a body
    drop(stays);
    assert!(client.part(&mut body).is_err());
    assert_eq!(proxy.audit(2)[1]["ended"], "upstream_failed");
}

#[test]
fn requests_whose_client_has_left_before_they_are_read_have_their_records_too() {
    let (_origin, _folder, token, proxy) = staged("");
    let asked = |stream, flags| frame(HEADERS, flags, stream, &head("POST", &token));
    let reset = frame(RST_STREAM, 0, 5, &8u32.to_be_bytes());
    let begin = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    let whole = END_STREAM | END_HEADERS;
    // whole, in the middle of its body, and taken back; and a head that is not
    let requests = [begin, asked(1, whole), asked(3, END_HEADERS), asked(5, whole), reset, asked(7, 0)].concat();
    for times in 1..=3 {
        stop(&proxy);
        let mut client = Line::to(&proxy.address);
        client.send(&requests);
        drop(client);
        proxy.signal("CONT");
        let records = proxy.audit(3 * times);
        assert!(
            records.iter().all(|record| record["path"] == "/mcp" && record["ended"] == "client_gone"),
            "{records:?}"
        );
    }
    assert_eq!(proxy.last_audit().len(), 9);
}

#[test]
fn cookies_that_came_in_crumbs_are_joined_again() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "");
    let (answer, _) = Client::to(&proxy).ask(get(&proxy, &token).header("cookie", "a=1").header("cookie", "b=2"));
    assert_eq!(answer.status, 200);
    assert_eq!(origin.received()[0].values("cookie"), ["a=1; b=2"]);
}

/// HTTP/1.1 drops the space around a value: what the upstream reads would be another value than the one that was judged.
#[test]
fn no_space_around_a_value_makes_it_another_one() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nmcp-session-id: hers\r\ncontent-length: 2\r\n\r\n{}");
    let folder = Folder::new();
    let (alice, bob) = (folder.token("alice", &[]), folder.token("bob", &[]));
    let proxy = folder.serve(&origin.url(), "");
    let mut client = Client::to(&proxy);
    assert_eq!(client.ask(get(&proxy, &alice)).0.status, 200);
    for session in ["hers", " hers", "hers ", "\thers", "hers\t", "  hers  "] {
        let status = client.ask(get(&proxy, &bob).header("mcp-session-id", session)).0.status;
        assert_eq!(status, if session == "hers" { 404 } else { 400 }, "{session:?}");
    }
    assert_eq!(client.ask(get(&proxy, &bob).header("mcp-name", "tool ")).0.status, 400);
    assert_eq!(client.ask(get(&proxy, &alice).header("mcp-name", "a tool")).0.status, 200);
    assert_eq!(origin.received().len(), 2);
    assert_eq!(proxy.audit(9).iter().filter(|record| record["reason"] == "malformed_request").count(), 6);
}

#[test]
fn a_head_or_a_body_past_its_limit_is_refused() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "[limits]\nhead = 2048\nheaders = 20\nbody = 1000");
    let mut client = Client::to(&proxy);
    let (parts, answering) = client.begin(get(&proxy, &token).method("POST"));
    for _ in 0..3 {
        parts.send("x".repeat(500).into()).unwrap();
    }
    assert_eq!(client.answer(answering).status(), 413);
    let (answer, _) = client.ask(get(&proxy, &token).header("x-long", "x".repeat(4000)));
    assert_eq!(answer.status, 431);
    let of_fields = |count: usize| (0..count).fold(get(&proxy, &token), |request, _| request.header("a", ""));
    // its authorization is one, and the library's client adds none
    assert_eq!(client.ask(of_fields(20)).0.status, 431);
    assert!(origin.received().is_empty());
    let crumbs = (0..10).fold(of_fields(18), |request, _| request.header("cookie", "a=b"));
    assert_eq!(client.ask(crumbs).0.status, 200);
    assert_eq!(client.ask(of_fields(19)).0.status, 200);
}

#[test]
fn silent_connections_are_let_go_in_time() {
    let origin = Origin::plain();
    let folder = Folder::new();
    folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "[timeouts]\nhead = \"300ms\"\nidle = \"300ms\"");
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = "\0\0\0\u{4}\0\0\0\0\0";
    for begun in [preface.to_owned(), format!("{preface}{settings}")] {
        let mut client = Line::to(&proxy.address);
        client.send(begun);
        client.await_end();
    }
    // and so is one that has been used
    let mut client = Client::to(&proxy);
    assert_eq!(client.ask(Request::get(proxy.url("/mcp"))).0.status, 401);
    eventually("the end of an unused connection", || client.sender.is_closed().then_some(()));
}

#[test]
fn a_stream_that_its_client_does_not_read_is_cut_alone() {
    let (origin, written) = flooding();
    let folder = Folder::new();
    let bobs = folder.token("bob", &[]);
    let alices = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "");
    let mut client = Client::to(&proxy);
    let (_, asked) = client.begin(get(&proxy, &alices));
    let mut unread = client.answer(asked).into_body();
    await_standstill(&written);
    let (_, asked) = client.begin(get(&proxy, &bobs));
    let mut read = client.answer(asked).into_body();

    let tokens = folder.read("tokens.toml");
    folder.write("tokens.toml", &format!("{tokens}revoked_at = 2026-01-01T00:00:00Z\n"));
    let record = &proxy.audit(1)[0];
    assert_eq!((&record["user"], &record["ended"]), (&"alice".into(), &"revoked".into()));
    eventually("the end of the upstream's connection", || (origin.closed().len() == 1).then_some(()));
    while client.part(&mut unread).is_ok_and(|part| !part.is_empty()) {}
    // everything that was on the way when the other one was cut, and more
    let mut taken = 0;
    while taken < 8 << 20 {
        taken += client.part(&mut read).unwrap().len();
    }
    assert_eq!(proxy.audit_so_far().len(), 1);
}
