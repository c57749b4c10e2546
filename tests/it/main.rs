//! The whole product from outside: the built program, real sockets, real peers.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::assigning_clones,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

mod answers;
mod connections;
mod credentials;
mod endings;
mod first_light;
mod harness;
mod headers;
mod http2;
mod reload;
mod revocation;
mod shutdown;
mod stage;
mod startup;
mod streaming;
mod token_create;
mod torture;
mod transports;
