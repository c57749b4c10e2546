//! What counting a request costs, alone and while another thread counts as well.
//!
//! `cargo bench --bench metrics`
#![allow(missing_docs)]

use std::hint::black_box;
use std::time::Duration;

use divan::Bencher;
use patgate::metrics::Requests;
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
