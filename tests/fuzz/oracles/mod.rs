//! What must hold for any bytes from outside. The fuzzer calls these with bytes of its own making, and
//! `cargo test` with those of the corpus: each is a function of the bytes that panics if something is wrong.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(dead_code, reason = "a fuzz target uses one of them")]

mod credential;
pub mod service;
mod token_file;
mod token_source;

/// Every target but the service, by its name and that of the folder of its corpus.
pub const TARGETS: [&str; 3] = ["credential", "token_file", "token_source"];

/// Holds bytes against the oracle of a target.
pub fn check(target: &str, data: &[u8]) {
    match target {
        "credential" => credential::check(data),
        "token_file" => token_file::check(data),
        "token_source" => token_source::check(data),
        _ => panic!("there is no target {target}"),
    }
}
