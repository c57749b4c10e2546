//! The whole product from outside: the built program, real sockets, real peers.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::assigning_clones,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

mod first_light;
mod harness;
mod revocation;
mod torture;
