//! The descriptors of this process: who leaves how many to whom.
//!
//! A client that is served needs two, for its own connection and for one to the upstream. So no more clients are let in
//! than there can be served at once, however little those do who are in. And connections to the upstream, of which
//! one client of HTTP/2 can have many, leave a reserve: without it no revocation could be read any more, and no log be
//! rotated.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Resource, getrlimit};

use crate::metrics::{Held, Level, Process};

/// What neither clients nor the upstream get; where there may be few descriptors, a quarter of them. It is for what
/// comes and goes beside them: files, questions to a source of tokens, names to be resolved, the admin address, and one
/// connection of each worker that has to wait until it can be served.
const RESERVE: u64 = 128;

/// How many connections there are. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Descriptors {
    /// Clients' connections that are open.
    pub clients: Arc<Level>,
    /// Connections to the upstream that are open, used or not, or are being made.
    pub upstream: Arc<Level>,
    /// How many descriptors are open for as long as the process runs.
    others: Arc<AtomicU64>,
}

impl Descriptors {
    /// Notes how many are open besides all connections, once everything has been started.
    pub fn note_others(&self) {
        let connections = self.clients.value() + self.upstream.value();
        let open = Process::open_fds().unwrap_or_default();
        self.others.store(open.saturating_sub(connections), Ordering::Relaxed);
    }

    /// A place for one more client, if it can be served together with all that are there.
    pub fn for_client(&self) -> Option<Held> {
        let most = self.for_connections(limit());
        self.clients.hold_if(|clients| clients + clients.max(self.upstream.value()) <= most)
    }

    /// A place for one more connection to the upstream, if there is one. It is to be had before there is a socket.
    pub fn for_upstream(&self) -> Option<Held> {
        let most = self.for_connections(limit());
        self.upstream.hold_if(|upstream| self.clients.value() + upstream <= most)
    }

    /// How many clients can be served at once.
    pub fn most_clients(&self) -> u64 {
        self.for_connections(limit()) / 2
    }

    fn for_connections(&self, limit: u64) -> u64 {
        limit.saturating_sub(reserve(limit)).saturating_sub(self.others.load(Ordering::Relaxed))
    }
}

/// How many connections to the admin address there may be: they leave half of the reserve to the rest.
pub fn most_admin_connections() -> usize {
    usize::try_from(reserve(limit()) / 2).unwrap_or(usize::MAX).max(1)
}

fn reserve(limit: u64) -> u64 {
    RESERVE.min(limit / 4)
}

/// How many there may be. It is asked for each time, for it can be changed from outside (prlimit(1)).
fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_is_left_and_a_quarter_of_few() {
        let descriptors = Descriptors::default();
        descriptors.others.store(30, Ordering::Relaxed);
        for (limit, connections) in [(0, 0), (40, 0), (100, 45), (512, 354), (1024, 866), (65_536, 65_378)] {
            assert_eq!(descriptors.for_connections(limit), connections, "{limit}");
        }
        assert!(descriptors.for_connections(u64::MAX) > 1 << 60);
    }

    #[test]
    fn each_client_keeps_a_place_for_a_connection_to_the_upstream() {
        let descriptors = Descriptors::default();
        let most = descriptors.for_connections(limit());
        // as if all but seven were something else's
        descriptors.others.store(most - 7, Ordering::Relaxed);
        assert_eq!(descriptors.most_clients(), 3);
        let mut clients: Vec<_> = std::iter::from_fn(|| descriptors.for_client()).collect();
        assert_eq!(clients.len(), 3);
        let mut upstream: Vec<_> = std::iter::from_fn(|| descriptors.for_upstream()).collect();
        assert_eq!(upstream.len(), 4, "one for each, and what is left");
        assert_eq!(descriptors.upstream.value(), 4, "an attempt leaves nothing behind");
        // a place that somebody else's connection has taken is not promised to the next client
        clients.pop();
        upstream.extend(descriptors.for_upstream());
        assert_eq!((clients.len(), upstream.len()), (2, 5));
        assert!(descriptors.for_client().is_none());
        upstream.pop();
        assert!(descriptors.for_client().is_some());
    }
}
