//! The proxy's line: gate, rewriting, upstream, streaming, and the answers of our own.

mod answer;
mod body;
mod forwarded;
mod gate;
mod in_flight;
mod origin;
mod rate;
mod renewal;
mod rewrite;
mod sessions;
mod streams;
mod upstream;

pub use body::{Inbound, InboundBounds, Outgoing};
pub use forwarded::{ForwardedHeader, TrustedProxies};
pub(crate) use gate::close_unread;
pub use gate::{Gate, Params, Peer, Shared};
pub use in_flight::InFlight;
pub use origin::{AllowedHosts, AllowedOrigins};
pub(crate) use rate::network;
pub use rate::{Exceeded, Params as RateParams, Rate, Rates};
pub use renewal::renew;
pub use rewrite::Forward;
pub use sessions::{Params as SessionParams, Sessions};
pub use streams::{Leash, Streams};
pub use upstream::{
    Address, AddressError, Counts as UpstreamCounts, HealthParams, Params as UpstreamParams, Probe, UpstreamTls,
};
