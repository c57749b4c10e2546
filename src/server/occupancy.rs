//! How many connections there are, of everybody and of each address, over all workers.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::proxy::network;

/// The connections that are open, and how many there may be. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Occupancy(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    open: AtomicUsize,
    capacity: usize,
    per_address: usize,
    by_address: Mutex<HashMap<IpAddr, usize>>,
    told: Mutex<Told>,
}

/// What the logs have been told of refusals, so that a flood of them is no flood there.
#[derive(Debug)]
struct Told {
    since: Instant,
    records: usize,
    refused: usize,
}

/// The most refusals in `PACE` that are answered and recorded; the others are counted.
const RECORDS: usize = 10;
const PACE: Duration = Duration::from_secs(1);

impl Occupancy {
    pub(super) fn new(capacity: usize, per_address: usize) -> Self {
        let told = Told { since: Instant::now(), records: 0, refused: 0 };
        Self(Arc::new(Shared {
            open: AtomicUsize::new(0),
            capacity,
            per_address,
            by_address: Mutex::default(),
            told: Mutex::new(told),
        }))
    }

    fn open(&self) -> usize {
        self.0.open.load(Ordering::Relaxed)
    }

    /// A place for one more connection, if there is one.
    pub(super) fn enter(&self) -> Option<Seat> {
        let seat = Seat { occupancy: self.clone(), block: None };
        // a seat too many is given back at once
        (self.0.open.fetch_add(1, Ordering::AcqRel) < self.0.capacity).then_some(seat)
    }

    /// Tells of a refusal whether it is to be answered and recorded.
    pub(super) fn refuse(&self) -> bool {
        let mut told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.since.elapsed() >= PACE {
            *told = Told { since: Instant::now(), records: 0, refused: 0 };
        }
        told.refused += 1;
        let is_first_too_many = told.records == RECORDS && told.refused == RECORDS + 1;
        let may = told.records < RECORDS;
        told.records += usize::from(may);
        drop(told);
        if is_first_too_many {
            let open = self.open();
            tracing::warn!(open, "many connections are refused: for a second, the others are only counted");
        }
        may
    }
}

impl Shared {
    /// A panic elsewhere leaves the counts whole.
    fn by_address(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    occupancy: Occupancy,
    /// The address that it counts for, or the network of it that one client can have to itself.
    block: Option<IpAddr>,
}

impl Seat {
    /// Lets the connection count for an address; false if that has as many as it may.
    pub(super) fn count_for(&mut self, ip: IpAddr) -> bool {
        let block = network(ip);
        let shared = &self.occupancy.0;
        let mut by_address = shared.by_address();
        let count = by_address.entry(block).or_insert(0);
        if *count >= shared.per_address {
            return false;
        }
        *count += 1;
        self.block = Some(block);
        true
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let shared = &self.occupancy.0;
        if let Some(block) = self.block {
            let mut by_address = shared.by_address();
            if let Some(count) = by_address.get_mut(&block) {
                *count -= 1;
                if *count == 0 {
                    by_address.remove(&block);
                }
            }
        }
        shared.open.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back_and_nobody_has_more_than_a_share() {
        let occupancy = Occupancy::new(3, 2);
        let enter = |ip: &str| {
            let mut seat = occupancy.enter()?;
            seat.count_for(ip.parse().unwrap()).then_some(seat)
        };
        let (first, second) = (enter("192.0.2.1").unwrap(), enter("192.0.2.1").unwrap());
        assert!(enter("192.0.2.1").is_none() && occupancy.open() == 2);
        let third = enter("192.0.2.2").unwrap();
        assert!(enter("192.0.2.3").is_none(), "no place is left");
        drop((first, third));
        // addresses of one network of IPv6 are one client's
        let sixth = enter("2001:db8::1").unwrap();
        assert!(enter("2001:db8::2").is_some());
        drop((second, sixth));
        assert!(occupancy.open() == 0 && occupancy.0.by_address().is_empty());
    }

    #[test]
    fn a_flood_of_refusals_is_no_flood_of_records() {
        let occupancy = Occupancy::new(0, 0);
        assert_eq!((0..1000).filter(|_| occupancy.refuse()).count(), RECORDS);
    }
}
