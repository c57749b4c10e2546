//! What a limit on calls costs a request, with 10,000 tokens that call in turn.
//!
//! `cargo bench --bench rate`
#![allow(missing_docs, clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use divan::Bencher;
use patgate::access::{Directory, Generation, Grant};
use patgate::proxy::{Rate, RateParams, Rates};
use patgate::token::{TokenDigest, TokenList};

const TOKENS: usize = 10_000;

fn main() {
    divan::main();
}

fn grants() -> Vec<Arc<Grant>> {
    let record = |number: usize| {
        let hash = TokenDigest::of(&number.to_string());
        format!("[[tokens]]\nid = \"k3V9mQ{number}\"\nhash = \"{hash}\"\nuser = \"user{}\"\n", number % 1000)
    };
    let text: String = (0..TOKENS).map(record).collect();
    let list = TokenList::parse(Path::new("bench"), &text).unwrap();
    Directory::new(&list, &Arc::default(), Generation(1), "bench").grants().cloned().collect()
}

fn calls(bencher: Bencher<'_, '_>, per_token: Option<Rate>, per_user: Option<Rate>) {
    let rates = Rates::new(&RateParams { per_token, per_user, guesses: None });
    let (grants, next) = (grants(), AtomicUsize::new(0));
    // what is measured is a token that has called before
    for grant in &grants {
        rates.call(grant).unwrap();
    }
    bencher.bench(|| rates.call(&grants[next.fetch_add(1, Ordering::Relaxed) % TOKENS]));
}

#[divan::bench(threads = [1, 2], sample_size = 10_000)]
fn no_limit(bencher: Bencher<'_, '_>) {
    calls(bencher, None, None);
}

#[divan::bench(threads = [1, 2], sample_size = 10_000)]
fn per_token(bencher: Bencher<'_, '_>) {
    calls(bencher, Some(Rate::per_minute(1_000_000, None)), None);
}

#[divan::bench(threads = [1, 2], sample_size = 10_000)]
fn per_token_and_user(bencher: Bencher<'_, '_>) {
    calls(bencher, Some(Rate::per_minute(1_000_000, None)), Some(Rate::per_minute(1_000_000, None)));
}
