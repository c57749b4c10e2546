//! What cannot be brought about from outside, with the server in this process: a fault of our own in the middle
//! of a request, and a jump of the wall clock.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Request;
use jiff::{SignedDuration, Timestamp};
use patgate::audit::{AuditLog, Writer};
use patgate::config::{Config, Overrides};
use patgate::descriptors::Descriptors;
use patgate::proxy::{Gate, Hints, InFlight, Rates, Sessions, Shared, Streams};
use patgate::server::{Drain, Server};
use patgate::source::Source;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::harness::{Folder, PATIENCE, eventually, get};
use crate::http2::Client;
use crate::stage::{Line, Stage};

// --- A server in this process ---------------------------------------------------------------

/// A server of one thread, and what it shares.
struct House {
    server: Server,
    shared: Shared,
    writer: Writer,
    address: String,
}

impl House {
    fn open(folder: &Folder, origin: &Stage, limits: &str) -> Self {
        let path = folder.configure(&origin.url(), &format!("workers = 1\n{limits}"));
        let config = Config::load(&Overrides { config: Some(path), ..Overrides::default() }).unwrap();
        let source = Source::open(&config.source, &config.policy).unwrap();
        let published = source.published().clone();
        let (audit, writer) = AuditLog::open(&config.audit).unwrap();
        let sessions = Sessions::new(&config.proxy.sessions);
        let shared = Shared {
            directory: Arc::clone(&published.directory),
            finder: published.finder.clone(),
            upstream: Arc::default(),
            streams: Arc::new(Streams::new(Arc::clone(&published.directory), sessions.clone())),
            sessions,
            hints: Hints::default(),
            budget: config.proxy.reading.budget(),
            descriptors: Descriptors::default(),
            rates: Rates::new(&config.proxy.rates),
            in_flight: InFlight::new(config.proxy.streams_per_token),
            audit,
        };
        let gate = || Gate::new(&config.proxy, &shared);
        let server = Server::start(&config.server, &Drain::default(), gate).unwrap();
        let address = server.address().to_string();
        Self { server, shared, writer, address }
    }

    /// Waits until everything that requests take has been given back.
    fn await_rest(&self) {
        let Shared { descriptors: Descriptors { clients, upstream, .. }, streams, .. } = &self.shared;
        let open = || (clients.value(), upstream.value(), streams.count());
        eventually("the end of all that was open", || (open() == (0, 0, 0)).then_some(()));
    }

    /// Ends it; how the requests ended.
    fn close(mut self, folder: &Folder) -> Vec<[String; 3]> {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        assert!(runtime.block_on(self.server.drain(std::future::pending())));
        runtime.block_on(self.server.gone());
        assert!(self.writer.finish(PATIENCE));
        let log = folder.read("audit.jsonl");
        let records = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let words = |record: Value| ["outcome", "reason", "ended"].map(|key| record[key].as_str().unwrap().to_owned());
        records.filter(|record| record["event"] == "request").map(words).collect()
    }
}

// --- A fault of our own ---------------------------------------------------------------------

/// Panics where a failed request is told of, for nothing in the program panics to be tried out.
struct Trap;

static PANICS: AtomicUsize = AtomicUsize::new(0);

impl Subscriber for Trap {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("patgate::proxy")
    }

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Snap);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

struct Snap;

impl Visit for Snap {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" && format!("{value:?}") == "a request failed" {
            PANICS.fetch_add(1, Ordering::Relaxed);
            panic!("as the test wants it");
        }
    }
}

#[test]
fn a_panic_costs_its_request_and_leaves_a_record_and_a_worker_that_goes_on() {
    tracing::subscriber::set_global_default(Trap).unwrap();
    let (origin, folder) = (Stage::new(), Folder::new());
    let token = folder.token("alice", &[]);
    // one place, and one turn
    let house = House::open(&folder, &origin, "[limits]\nconnections = 1\nstreams_per_token = 1");
    let address = house.address.clone();
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
    for panics in 1..=3 {
        let mut client = Line::to(&address);
        client.send(get(&token, ""));
        // an upstream that breaks off without an answer
        origin.accept().request();
        client.await_end();
        assert_eq!(PANICS.load(Ordering::Relaxed), panics);
        house.await_rest();
        // the one thread, the one place and the one turn are free again
        let mut client = Line::to(&address);
        client.send(get(&token, ""));
        let mut upstream = origin.accept();
        upstream.request();
        upstream.send(answer);
        assert_eq!(client.answer().status, 200);
        drop((client, upstream));
        house.await_rest();
    }

    // over HTTP/2 it costs the stream, and not the connection
    let mut client = Client::over(async { TcpStream::connect(&address).await.unwrap() });
    let request = || Request::get(format!("http://{address}/mcp")).header("authorization", format!("Bearer {token}"));
    let (_, answering) = client.begin(request());
    origin.accept().request();
    assert!(client.wait(answering).unwrap().is_err());
    let (_, answering) = client.begin(request());
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send(answer);
    assert_eq!(client.answer(answering).status(), 200);
    drop((client, upstream));
    house.await_rest();

    let one_after_the_other = [["error", "internal_error", "failed"], ["allowed", "ok", "complete"]].repeat(4);
    assert_eq!(house.close(&folder), one_after_the_other);
}

// --- The wall clock -------------------------------------------------------------------------

#[test]
fn a_jump_of_the_wall_clock_ends_what_has_come_to_its_end_by_it_and_nothing_else() {
    let (origin, folder) = (Stage::new(), Folder::new());
    let tokens = [folder.token("alice", &["--expires", "90d"]), folder.token("bob", &["--expires", "never"])];
    let house = House::open(&folder, &origin, "");
    let streams: Vec<_> = tokens
        .iter()
        .map(|token| {
            let mut client = Line::to(&house.address);
            client.send(get(token, ""));
            let mut upstream = origin.accept();
            upstream.request();
            upstream.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
            client.answer_head();
            (client, upstream)
        })
        .collect();
    let [(mut alice, mut to_alice), (mut bob, mut to_bob)]: [_; 2] = streams.try_into().ok().unwrap();
    eventually("both streams to be watched", || (house.shared.streams.count() == 2).then_some(()));

    let (now, year) = (Timestamp::now(), SignedDuration::from_hours(365 * 24));
    for jump in [-20 * year, 20 * year, SignedDuration::ZERO] {
        house.shared.streams.tick(now + jump);
        if jump.is_negative() {
            to_alice.send_chunk("on");
            assert_eq!(alice.chunk(), "on");
        } else {
            // by the first jump ahead; and what has ended does not begin again with the next one
            alice.await_end();
            to_alice.await_end();
        }
        to_bob.send_chunk("on");
        assert_eq!(bob.chunk(), "on");
    }
    drop((alice, bob));
    house.await_rest();
    assert_eq!(house.close(&folder), [["allowed", "ok", "expired"], ["allowed", "ok", "client_gone"]]);
}
