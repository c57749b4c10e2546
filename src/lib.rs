//! patgate: an authentication sidecar that puts a lock on any MCP server.
//!
//! The floors, from the ground up; imports run downward only, and a test holds them to it:
//! `charset`, `deadline`, `digits`, `document` and `verdict`, `token`, `mcp`, `watch`, `trace` and `metrics`, `access`, `descriptors`, `https`
//! and `tls`, `source` and `audit`, `proxy`, `server`, `config`, `cli`.

pub mod access;
pub mod audit;
pub mod charset;
pub mod cli;
pub mod config;
pub mod deadline;
pub mod descriptors;
pub mod digits;
pub mod document;
pub mod https;
pub mod mcp;
pub mod metrics;
pub mod proxy;
pub mod server;
pub mod source;
pub mod tls;
pub mod token;
pub mod trace;
pub mod verdict;
pub mod watch;
