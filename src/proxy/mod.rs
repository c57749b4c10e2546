//! The proxy's line: gate, rewriting, upstream, streaming, and the answers of our own.

mod answer;
mod body;
mod gate;
mod origin;
mod rewrite;
mod upstream;

pub use body::{Inbound, Outgoing};
pub(crate) use gate::close_unread;
pub use gate::{Gate, Params, Peer};
pub use origin::{AllowedHosts, AllowedOrigins};
pub use rewrite::Forward;
pub use upstream::{Address, AddressError, Params as UpstreamParams, TlsError, UpstreamTls};
