//! What must hold for any bytes from outside. The fuzzer calls these with bytes of its own making, and
//! `cargo test` with those of the corpus: each is a function of the bytes that panics if something is wrong.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(dead_code, reason = "a fuzz target uses one of them")]

mod audit_log;
mod credential;
mod events;
mod list_answer;
mod message;
pub mod service;
mod token_file;
mod token_source;
mod trace;

/// Every target but the service, by its name and that of the folder of its corpus.
pub const TARGETS: [&str; 8] =
    ["audit_log", "credential", "events", "list_answer", "message", "token_file", "token_source", "trace"];

/// Holds bytes against the oracle of a target.
pub fn check(target: &str, data: &[u8]) {
    match target {
        "audit_log" => audit_log::check(data),
        "credential" => credential::check(data),
        "events" => events::check(data),
        "list_answer" => list_answer::check(data),
        "message" => message::check(data),
        "token_file" => token_file::check(data),
        "token_source" => token_source::check(data),
        "trace" => trace::check(data),
        _ => panic!("there is no target {target}"),
    }
}
