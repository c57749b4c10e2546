//! The whole product from outside: the built program, real sockets, real peers.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::assigning_clones,
    clippy::format_collect,
    clippy::format_push_string,
    clippy::similar_names,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

mod answers;
mod architecture;
mod audit;
mod bounds;
mod configuration;
mod connections;
mod corpus;
mod credentials;
mod demo;
mod deployment;
mod descriptors;
mod diagnostics;
mod documentation;
mod endings;
mod first_light;
mod floods;
mod frames;
mod guesses;
mod harness;
mod headers;
mod holding;
mod hostile;
mod http2;
mod inside;
mod installed;
mod lifecycle;
mod manual;
mod metrics;
#[cfg(feature = "otlp")]
mod otlp;
mod peers;
mod policy;
mod rates;
mod reload;
mod revocation;
mod rmcp_client;
mod scan_rules;
mod shutdown;
mod slow;
mod snippets;
mod soak;
mod sources;
mod stage;
mod startup;
mod streaming;
mod supply;
mod tls;
mod token_create;
mod torture;
mod traces;
mod transports;
mod trusted;
mod upstream_failures;
mod weak_tls;
