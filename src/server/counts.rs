//! What is counted of clients' connections, by all workers together.

use crate::metrics::Counter;

/// The counts.
#[derive(Debug, Default)]
pub struct Counts {
    /// Connections that were accepted.
    pub accepted: Counter,
    /// Attempts to accept one that failed, or were put off for want of descriptors.
    pub not_accepted: Counter,
    /// Connections for which there was no place.
    pub refused: Counter,
    /// TLS handshakes that failed or took too long.
    pub handshakes_failed: Counter,
}
