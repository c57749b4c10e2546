//! What is counted of clients' connections, by all workers together.

use std::sync::Arc;

use crate::metrics::{Counter, Level};

/// The counts.
#[derive(Debug, Default)]
pub struct Counts {
    /// Connections that are open.
    pub open: Arc<Level>,
    /// Connections that were accepted.
    pub accepted: Counter,
    /// Connections that could not be accepted, as for want of descriptors.
    pub not_accepted: Counter,
    /// Connections for which there was no place.
    pub refused: Counter,
    /// TLS handshakes that failed or took too long.
    pub handshakes_failed: Counter,
}
