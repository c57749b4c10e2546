//! The proxy's line: gate, rewriting, upstream, streaming, and the answers of our own.

mod answer;
mod body;
mod discovery;
mod endpoint;
mod forwarded;
mod gate;
mod hints;
mod holding;
mod in_flight;
mod inbound;
mod judgement;
mod objection;
mod origin;
mod pace;
mod rate;
mod reading;
mod renewal;
mod rewrite;
mod screen;
mod sessions;
#[doc(hidden)]
pub mod steps;
mod streams;
mod tap;
mod upstream;

pub use body::Outgoing;
pub use discovery::is_answered_here;
pub use forwarded::{ForwardedHeader, TrustedProxies};
pub(crate) use gate::close_unread;
pub use gate::{Gate, Params, Peer, Shared};
pub use hints::Hints;
pub use holding::Budget;
pub use in_flight::InFlight;
pub use inbound::{Inbound, InboundBounds};
pub use origin::{AllowedHosts, AllowedOrigins};
pub(crate) use rate::network;
pub use rate::{Exceeded, Params as RateParams, Rate, Rates};
pub use reading::{Cleared, Params as ReadingParams};
pub use renewal::renew;
pub use rewrite::{Forward, normalised};
pub use sessions::{Params as SessionParams, Sessions};
pub use streams::{Leash, Streams};
pub use tap::Params as TapParams;
pub use upstream::{
    Address, AddressError, Counts as UpstreamCounts, HealthParams, Params as UpstreamParams, Probe, UpstreamTls,
};
