//! What is counted of how new states of the token list come into force.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::metrics::{Counter, Histogram};

/// The counts.
#[derive(Debug)]
pub struct Reloads {
    /// Of the token list.
    pub tokens: Results,
    /// Of the deny list.
    pub deny_list: Results,
    /// From a list's bytes to its being in force, for those that came into force.
    pub durations: Histogram,
    /// From the moment at which a change was noticed to the one at which every request and every open
    /// stream goes by it.
    pub lags: Histogram,
    /// When the list in force was last known to be what the source says.
    confirmed: Mutex<Option<Instant>>,
}

/// How often a new state came into force, and how often it was no good or could not be had.
#[derive(Debug, Default)]
pub struct Results {
    /// In force.
    pub succeeded: Counter,
    /// Refused, or not to be had.
    pub failed: Counter,
}

impl Results {
    pub(super) fn count(&self, good: bool) {
        if good { self.succeeded.inc() } else { self.failed.inc() }
    }
}

impl Default for Reloads {
    fn default() -> Self {
        Self {
            tokens: Results::default(),
            deny_list: Results::default(),
            durations: Histogram::new(Histogram::LATENCY),
            lags: Histogram::new(Histogram::LATENCY),
            confirmed: Mutex::default(),
        }
    }
}

impl Reloads {
    pub(super) fn confirm(&self) {
        *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// How long ago the list in force was known to be what the source says; none if there is no list.
    pub fn age(&self) -> Option<Duration> {
        self.confirmed.lock().unwrap_or_else(PoisonError::into_inner).map(|at| at.elapsed())
    }
}
