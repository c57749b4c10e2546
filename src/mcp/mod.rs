//! What MCP says in a body: its messages, the headers that repeat them, lists, and the events of a stream.

pub mod headers;
mod json;
mod list;
mod message;
mod params;
pub mod sse;
mod texts;

pub use json::{JsonError, Reader};
pub use list::{Item, Lists};
pub use message::{
    Body, Call, Kind, MAX_BATCH, MAX_DEPTH, MAX_NAME, MAX_SUBSCRIPTIONS, MAX_URIS, META_VERSION, Message, Unreadable,
};
pub use texts::Texts;
