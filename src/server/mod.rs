//! The listening side: sockets, connections with their deadlines, the drain, the admin listener.

mod admin;
mod connection;
mod counts;
mod drain;
mod leash;
mod listener;
mod occupancy;
mod patience;
mod proxy_protocol;
mod rest;
mod scrape;
mod stream;
mod worker;

pub use admin::{Admin, Health};
pub use connection::Limits;
pub use counts::Counts;
pub use drain::{Drain, Phase};
pub use listener::{BindError, ListenAddress};
pub use scrape::Scrape;
pub use worker::{Params, Server};
