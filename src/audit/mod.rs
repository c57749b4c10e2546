//! The audit record: one for every request, written exactly once.

mod log;
mod record;

pub use log::{AuditLog, Destination, Params, Writer};
pub use record::{AuditRecord, Event, OpenRecord, RequestId};
