//! What a decision costs, and what a list costs to load and to hold, from 1,000 to 1,000,000 tokens.
//!
//! `cargo bench --bench directory`
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use divan::{AllocProfiler, Bencher};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use jiff::Timestamp;
use patgate::access::{Credential, Directory, Finding, Generation, Policy};
use patgate::token::{TokenDigest, TokenList};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

/// The token of a number: opaque, for the checksum of our own has a bench of its own.
fn token(number: usize) -> String {
    format!("wick_pat_{number:032x}")
}

/// A list as it stands in a file: a hundred users, a few roles.
fn text(count: usize) -> String {
    let mut text = String::new();
    for number in 0..count {
        let hash = TokenDigest::of(&token(number));
        writeln!(
            text,
            "[[tokens]]\nid = \"id{number}\"\nhash = \"{hash}\"\nuser = \"user{}\"\nname = \"Claude Code on laptop\"\n\
             scopes = [\"mcp:read\"]\ncreated_at = 2026-11-22T08:00:00Z\nexpires_at = 2027-02-20T08:00:00Z\n",
            number % 100
        )
        .unwrap();
    }
    for user in 0..100 {
        writeln!(text, "[[users]]\nid = \"user{user}\"\nemail = \"user{user}@example.com\"\nroles = [\"developer\"]\n")
            .unwrap();
    }
    text + "[roles.developer]\nscopes = [\"mcp:read\", \"mcp:write\"]\n"
}

fn list(count: usize) -> TokenList {
    TokenList::parse(Path::new("bench"), &text(count)).unwrap()
}

fn directory(list: &TokenList) -> Directory {
    Directory::new(list, &Arc::new(Policy::default()), Generation(1), "bench")
}

fn headers(token: &str) -> HeaderMap {
    [(AUTHORIZATION, format!("Bearer {token}").parse().unwrap())].into_iter().collect()
}

const SIZES: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];

/// From the header to the permit: parsing, SHA-256, look-up, evaluation. Each call asks for another
/// token, so that large lists pay for the memory that they touch.
#[divan::bench(args = SIZES, sample_count = 20, sample_size = 10_000)]
fn authenticate(bencher: Bencher, count: usize) {
    let directory = directory(&list(count));
    let requests: Vec<HeaderMap> = (0..4096).map(|index| headers(&token(index * 7919 % count))).collect();
    let now: Timestamp = "2026-12-01T00:00:00Z".parse().unwrap();
    let mut next = 0;
    bencher.bench_local(|| {
        next = (next + 1) % requests.len();
        let credential = Credential::from_headers(&requests[next]).unwrap();
        black_box(directory.authenticate(&credential, &Finding::Nobody, now)).unwrap()
    });
}

/// A token that nobody has.
#[divan::bench(args = SIZES, sample_count = 20, sample_size = 10_000)]
fn refuse_an_unknown_token(bencher: Bencher, count: usize) {
    let directory = directory(&list(count));
    let headers = headers("nobody-has-this");
    let now: Timestamp = "2026-12-01T00:00:00Z".parse().unwrap();
    bencher.bench_local(|| {
        let credential = Credential::from_headers(&headers).unwrap();
        black_box(directory.authenticate(&credential, &Finding::Nobody, now)).unwrap_err()
    });
}

/// A token with our prefix and a wrong checksum: no look-up, no SHA-256.
#[divan::bench]
fn refuse_a_bad_checksum(bencher: Bencher) {
    let directory = directory(&list(1_000));
    let headers = headers("mcp_pat_k3V9mQ2xTa_0123456789ABCDEFGHIJKLMNOPQRSTUV3Cx6yf");
    let now: Timestamp = "2026-12-01T00:00:00Z".parse().unwrap();
    bencher.bench_local(|| {
        let credential = Credential::from_headers(&headers).unwrap();
        black_box(directory.authenticate(&credential, &Finding::Nobody, now)).unwrap_err()
    });
}

/// Reading a token file of this many tokens.
#[divan::bench(args = [10_000, 100_000], sample_count = 5, sample_size = 1)]
fn parse(bencher: Bencher, count: usize) {
    let text = text(count);
    bencher.bench_local(|| TokenList::parse(Path::new("bench"), &text).unwrap());
}

/// Building the directory of a list that was read. What it holds in the end, divided by the tokens, is
/// the memory per token.
#[divan::bench(args = [10_000, 100_000], sample_count = 5, sample_size = 1)]
fn build(bencher: Bencher, count: usize) {
    let list = list(count);
    bencher.bench_local(|| directory(&list));
}
