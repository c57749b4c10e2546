//! What is counted on the way to the upstream, by all workers together.

use strum::{IntoStaticStr, VariantArray};

use super::Failure;
use crate::metrics::{Counter, Histogram};

/// Why there was no answer, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Trouble {
    /// No connection.
    Unreachable,
    /// No connection or no answer in time.
    Timeout,
    /// The connection ended before the head of the answer.
    BrokenOff,
    /// An answer that must not be passed on.
    Invalid,
}

impl Trouble {
    /// None where we or the client are at fault, or it has left.
    fn of(failure: &Failure) -> Option<Self> {
        match failure {
            Failure::Unreachable(_) => Some(Self::Unreachable),
            Failure::Timeout(_) => Some(Self::Timeout),
            Failure::Broken(_) => Some(Self::BrokenOff),
            Failure::Invalid(_) => Some(Self::Invalid),
            Failure::Overloaded
            | Failure::NoRoom
            | Failure::BodyTooLarge
            | Failure::BodyStalled
            | Failure::BodyBroken
            | Failure::ClientGone => None,
        }
    }
}

/// The counts.
#[derive(Debug)]
pub struct Counts {
    /// Connections that were made.
    pub connected: Counter,
    /// From the moment at which a request goes out, connecting included, to the head of its answer.
    pub answered: Histogram,
    troubles: [Counter; Trouble::VARIANTS.len()],
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            connected: Counter::default(),
            answered: Histogram::new(Histogram::LATENCY),
            troubles: Default::default(),
        }
    }
}

impl Counts {
    pub(in crate::proxy) fn failed(&self, failure: &Failure) {
        let counter = Trouble::of(failure).and_then(|trouble| self.troubles.get(trouble as usize));
        if let Some(counter) = counter {
            counter.inc();
        }
    }

    /// How often there was no answer, and why.
    pub fn by_trouble(&self) -> impl Iterator<Item = (Trouble, u64)> {
        Trouble::VARIANTS.iter().copied().zip(self.troubles.iter().map(Counter::value))
    }
}
