//! What an audit record costs, and how fast the log is written.
//!
//! `cargo bench --bench audit`; `taskset -c 0` before it puts requests and writer on one core.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::hint::black_box;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use divan::Bencher;
use divan::counter::ItemsCount;
use http::{HeaderMap, Request, StatusCode};
use jiff::Timestamp;
use patgate::access::{Credential, Directory, Finding, Generation, Grant, Policy};
use patgate::audit::{AuditLog, Destination, OnLoss, OpenRecord, Params, Rotation};
use patgate::token::{Prefix, TokenDigest, TokenList};
use patgate::verdict::Ended;

fn main() {
    divan::main();
}

fn grant() -> Arc<Grant> {
    let hash = TokenDigest::of("a-token");
    let text = format!(
        "[[tokens]]\nid = \"k3V9mQ2xTa\"\nhash = \"{hash}\"\nuser = \"alice\"\nname = \"Claude Code on laptop\"\n\
         [[users]]\nid = \"alice\"\norg = \"acme\"\n"
    );
    let list = TokenList::parse(Path::new("bench"), &text).unwrap();
    let directory = Directory::new(&list, &Arc::new(Policy::default()), Generation(1), "bench");
    let headers: HeaderMap = [(http::header::AUTHORIZATION, "Bearer a-token".parse().unwrap())].into_iter().collect();
    let credential = Credential::from_headers(&headers).unwrap();
    Arc::clone(directory.authenticate(&credential, &Finding::Nobody, Timestamp::now()).unwrap().grant())
}

fn params(path: &Path, chain: bool) -> Params {
    Params {
        destination: Destination::File(path.to_owned()),
        queue: 10_000_000,
        on_loss: OnLoss::Count,
        patience: Duration::from_secs(2),
        rotation: Rotation::default(),
        chain,
        by_token: false,
        spans: None,
        prefix: Prefix::default(),
    }
}

fn request() -> Request<()> {
    Request::post("/mcp").header("user-agent", "claude-code/2.1 (cli)").body(()).unwrap()
}

/// A record as the gate fills it.
fn record(log: &AuditLog, request: &Request<()>, grant: &Arc<Grant>, revision: &Arc<str>) -> OpenRecord {
    let mut record = log.begin(request, Some(IpAddr::from([192, 0, 2, 7])), false);
    record.note(|facts| {
        facts.grant = Some(Arc::clone(grant));
        facts.source_revision = Some(Arc::clone(revision));
        facts.status = Some(StatusCode::OK);
        (facts.bytes_in, facts.bytes_out) = (150, 300);
    });
    record
}

/// Writing one record as a line of JSON into memory.
#[divan::bench]
fn serialise(bencher: Bencher) {
    let (log, writer) = AuditLog::open(&params(Path::new("/dev/null"), false)).unwrap();
    let (prefix, mut text) = (Prefix::default(), Vec::with_capacity(1024));
    let mut record = record(&log, &request(), &grant(), &"d55d2a3a7b1c".into());
    bencher.bench_local(|| {
        text.clear();
        record.note(|facts| facts.write(black_box(&mut text), &prefix));
    });
    drop(record);
    writer.finish(Duration::from_secs(5));
}

/// All that a request's thread does for its record: beginning, filling and handing it over.
#[divan::bench]
fn hand_over(bencher: Bencher) {
    let (log, writer) = AuditLog::open(&params(Path::new("/dev/null"), false)).unwrap();
    let (request, grant, revision) = (request(), grant(), "d55d2a3a7b1c".into());
    bencher.bench_local(|| record(&log, &request, &grant, &revision).close(Ended::Complete));
    writer.finish(Duration::from_mins(1));
}

/// A million records from their beginning to the file, without and with a chain; none may be lost.
#[divan::bench(args = [false, true], sample_count = 3, sample_size = 1)]
fn a_million_into_a_file(bencher: Bencher, chain: bool) {
    const COUNT: usize = 1_000_000;
    let (request, grant, revision) = (request(), grant(), "d55d2a3a7b1c".into());
    bencher.counter(ItemsCount::new(COUNT)).bench_local(|| {
        let folder = tempfile::tempdir().unwrap();
        let (log, writer) = AuditLog::open(&params(&folder.path().join("log"), chain)).unwrap();
        for _ in 0..COUNT {
            record(&log, &request, &grant, &revision).close(Ended::Complete);
        }
        assert!(writer.finish(Duration::from_mins(1)) && log.lost() == 0);
    });
}
