//! The listening side: sockets, TLS, connections with their deadlines, the drain, the admin listener.

mod admin;
mod connection;
mod drain;
mod listener;
mod stream;
mod tls;
mod worker;

pub use admin::{Admin, Health};
pub use connection::Limits;
pub use drain::{Drain, Phase};
pub use listener::{BindError, ListenAddress};
pub use tls::{ListenerTls, TlsError};
pub use worker::{Params, Server};
