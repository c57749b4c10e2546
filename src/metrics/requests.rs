//! Requests by what became of them.

use std::time::Duration;

use strum::VariantArray;

use super::{Counter, Histogram};
use crate::verdict::{Ended, Outcome, Reason};

/// What is counted of every request.
#[derive(Debug)]
pub struct Requests {
    reasons: [Counter; Reason::VARIANTS.len()],
    ends: [Counter; Ended::VARIANTS.len()],
    answered: [Histogram; Outcome::VARIANTS.len()],
    bytes_in: Counter,
    bytes_out: Counter,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            reasons: Default::default(),
            ends: Default::default(),
            answered: std::array::from_fn(|_| Histogram::new(Histogram::LATENCY)),
            bytes_in: Counter::default(),
            bytes_out: Counter::default(),
        }
    }
}

impl Requests {
    /// The head of an answer is there, so long after the head of the request.
    pub fn answered(&self, outcome: Outcome, took: Duration) {
        // an enumeration's value is below the number of its variants
        if let Some(histogram) = self.answered.get(outcome as usize) {
            histogram.observe(took);
        }
    }

    /// An exchange has ended.
    pub fn ended(&self, reason: Reason, ended: Ended, bytes_in: u64, bytes_out: u64) {
        let counters = [self.reasons.get(reason as usize), self.ends.get(ended as usize)];
        counters.into_iter().flatten().for_each(Counter::inc);
        self.bytes_in.add(bytes_in);
        self.bytes_out.add(bytes_out);
    }

    /// Exchanges that have ended, by reason.
    pub fn by_reason(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::VARIANTS.iter().copied().zip(self.reasons.iter().map(Counter::value))
    }

    /// The same, by how they ended.
    pub fn by_end(&self) -> impl Iterator<Item = (Ended, u64)> {
        Ended::VARIANTS.iter().copied().zip(self.ends.iter().map(Counter::value))
    }

    /// From the head of the request to the head of the answer.
    pub fn durations(&self) -> impl Iterator<Item = (Outcome, &Histogram)> {
        Outcome::VARIANTS.iter().copied().zip(&self.answered)
    }

    /// Bytes of requests' bodies, and of answers'.
    pub fn bytes(&self) -> (u64, u64) {
        (self.bytes_in.value(), self.bytes_out.value())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_has_a_counter_of_its_own() {
        let requests = Requests::default();
        for (index, reason) in Reason::VARIANTS.iter().enumerate() {
            for _ in 0..index {
                requests.ended(*reason, Ended::Complete, 1, 2);
            }
        }
        for (index, (reason, count)) in requests.by_reason().enumerate() {
            assert_eq!((reason, count), (Reason::VARIANTS[index], index as u64));
        }
        let all = requests.by_reason().map(|(_, count)| count).sum();
        assert_eq!(requests.bytes(), (all, 2 * all));
        for (ended, count) in requests.by_end() {
            assert_eq!(count, if ended == Ended::Complete { all } else { 0 });
        }
    }
}
