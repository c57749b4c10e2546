//! What is counted, so that an operator can see how the lock is doing.
//!
//! Components own their counters and hold them by reference: counting looks nothing up, takes no lock and
//! allocates nothing. What a scrape shows is gathered from them when somebody asks.

mod page;
mod process;
mod requests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use page::{CONTENT_TYPE, Page, write};
pub use process::Process;
pub use requests::Requests;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// How many there were since the start.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many of a kind there are at the moment: one for each [`Held`] that is alive.
#[derive(Debug, Default)]
pub struct Level(AtomicU64);

impl Level {
    /// One more, until what is returned is dropped.
    pub fn hold(self: &Arc<Self>) -> Held {
        self.0.fetch_add(1, Ordering::Relaxed);
        Held(Arc::clone(self))
    }

    /// The same if it `fits`, which is told how many there are then.
    pub fn hold_if(self: &Arc<Self>, fits: impl Fn(u64) -> bool) -> Option<Held> {
        let one_more = |before| Some(before + 1).filter(|now| fits(*now));
        let held = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        held.is_ok().then(|| Held(Arc::clone(self)))
    }

    /// How many there are.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One that counts in a [`Level`] while it lives.
#[derive(Debug)]
pub struct Held(Arc<Level>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How long things took: how many at most so long, for each of some bounds.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [Duration],
    /// One for each bound, and one for all that took longer.
    buckets: Box<[Counter]>,
    nanos: Counter,
}

impl Histogram {
    /// From what a proxy adds to what a tool may compute for, about 2.2 to the step.
    pub const LATENCY: &'static [Duration] = &[
        Duration::from_micros(100),
        Duration::from_micros(250),
        Duration::from_micros(500),
        Duration::from_millis(1),
        Duration::from_micros(2_500),
        Duration::from_millis(5),
        Duration::from_millis(10),
        Duration::from_millis(25),
        Duration::from_millis(50),
        Duration::from_millis(100),
        Duration::from_millis(250),
        Duration::from_millis(500),
        Duration::from_secs(1),
        Duration::from_millis(2_500),
        Duration::from_secs(5),
        Duration::from_secs(10),
        Duration::from_secs(30),
        Duration::from_mins(1),
        Duration::from_mins(5),
    ];

    /// From a tool's progress to a session that stays open overnight.
    pub const LIFETIME: &'static [Duration] = &[
        Duration::from_millis(100),
        Duration::from_secs(1),
        Duration::from_secs(10),
        Duration::from_mins(1),
        Duration::from_mins(5),
        Duration::from_mins(30),
        Duration::from_hours(1),
        Duration::from_hours(4),
        Duration::from_hours(12),
        Duration::from_hours(24),
    ];

    /// Nothing yet. The bounds are in ascending order.
    pub fn new(bounds: &'static [Duration]) -> Self {
        let buckets = (0..=bounds.len()).map(|_| Counter::default()).collect();
        Self { bounds, buckets, nanos: Counter::default() }
    }

    /// One that took so long.
    pub fn observe(&self, took: Duration) {
        let bucket = self.bounds.partition_point(|bound| *bound < took);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.inc();
        }
        // five centuries fit
        self.nanos.add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// The bounds in seconds, each with how many took so long and longer than the bound before; the last
    /// is infinity. With them, how long all took together, in seconds.
    fn read(&self) -> (Vec<(f64, u64)>, f64) {
        let bounds = self.bounds.iter().map(Duration::as_secs_f64).chain([f64::INFINITY]);
        let buckets = bounds.zip(self.buckets.iter().map(Counter::value)).collect();
        (buckets, Duration::from_nanos(self.nanos.value()).as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_has_what_took_no_longer_than_its_bound() {
        const BOUNDS: &[Duration] = &[Duration::from_secs(1), Duration::from_secs(2)];
        let histogram = Histogram::new(BOUNDS);
        for millis in [0, 1_000, 1_001, 2_000, 2_001, 500_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        assert_eq!(histogram.read(), (vec![(1.0, 2), (2.0, 2), (f64::INFINITY, 2)], 506.002));
    }

    #[test]
    fn bounds_ascend() {
        for bounds in [Histogram::LATENCY, Histogram::LIFETIME] {
            assert!(bounds.is_sorted() && bounds.len() >= 10, "{bounds:?}");
        }
    }

    #[test]
    fn a_level_counts_what_lives() {
        let level = Arc::<Level>::default();
        let (one, two) = (level.hold(), level.hold());
        assert_eq!(level.value(), 2);
        drop(one);
        assert_eq!(level.value(), 1);
        drop(two);
        assert_eq!(level.value(), 0);
    }
}
