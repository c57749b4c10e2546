//! What it costs a request to be counted, alone and while another thread counts as well, and to be traced.
//!
//! `cargo bench --bench metrics`
#![allow(missing_docs)]

use std::hint::black_box;
use std::time::Duration;

use divan::Bencher;
use http::{HeaderMap, HeaderName, HeaderValue};
use patgate::metrics::Requests;
use patgate::trace::TraceContext;
use patgate::verdict::{Ended, Outcome, Reason};

fn main() {
    divan::main();
}

/// All that is counted of one request: the head of its answer, and its end.
#[divan::bench(threads = [1, 2])]
fn count_a_request(bencher: Bencher) {
    let requests = Requests::default();
    bencher.bench(|| {
        requests.answered(black_box(Outcome::Allowed), black_box(Duration::from_micros(700)));
        requests.ended(black_box(Reason::Ok), black_box(Ended::Complete), 150, 300);
    });
}

/// Continuing a client's trace: its header read, another one written.
#[divan::bench]
fn continue_a_trace(bencher: Bencher) {
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers: HeaderMap =
        [(HeaderName::from_static("traceparent"), HeaderValue::from_static(traceparent))].into_iter().collect();
    bencher.bench_local(|| TraceContext::of(black_box(&headers)).header());
}
