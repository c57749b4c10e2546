//! Requests by the token that they were made with, where the operator asks for it.

use std::sync::Arc;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use strum::VariantArray;

use crate::metrics::Counter;
use crate::token::TokenId;
use crate::verdict::Outcome;

/// What became of the requests of one token.
type Outcomes = [Counter; Outcome::VARIANTS.len()];

/// Requests of each token that have ended, by outcome. Of more tokens than [`Self::CAPACITY`], those are counted that
/// were used last.
#[derive(Debug)]
pub struct ByToken(Cache<TokenId, Arc<Outcomes>>);

impl Default for ByToken {
    fn default() -> Self {
        // moka's own choice may turn a token away that has just come into use
        Self(Cache::builder().max_capacity(Self::CAPACITY).eviction_policy(EvictionPolicy::lru()).build())
    }
}

impl ByToken {
    /// How many tokens are counted one by one.
    pub const CAPACITY: u64 = 10_000;

    pub(super) fn ended(&self, token: &TokenId, outcome: Outcome) {
        // an enumeration's value is below the number of its variants
        if let Some(counter) = self.0.get_with_by_ref(token, Arc::default).get(outcome as usize) {
            counter.inc();
        }
    }

    /// Every token that is counted, and how many of its requests had which outcome.
    pub fn counts(&self) -> impl Iterator<Item = (Arc<TokenId>, [(Outcome, u64); Outcome::VARIANTS.len()])> {
        self.0
            .iter()
            .map(|(token, outcomes)| (token, std::array::from_fn(|at| (Outcome::VARIANTS[at], outcomes[at].value()))))
    }

    /// A token is gone and will not come back.
    pub fn forget(&self, token: &TokenId) {
        self.0.invalidate(token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_tokens_are_counted_than_there_is_room_for_and_the_last_ones_are() {
        let by_token = ByToken::default();
        let id = |number: u64| TokenId::parse(&number.to_string()).unwrap();
        for number in 0..3 * ByToken::CAPACITY {
            by_token.ended(&id(number), Outcome::Allowed);
            by_token.ended(&id(0), Outcome::Denied);
        }
        by_token.0.run_pending_tasks();
        let counts: std::collections::HashMap<_, _> = by_token.counts().collect();
        assert_eq!(counts.len() as u64, ByToken::CAPACITY);
        let of = |number: u64| counts[&id(number)].map(|(_, count)| count);
        assert_eq!((of(0), of(3 * ByToken::CAPACITY - 1)), ([1, 3 * ByToken::CAPACITY, 0], [1, 0, 0]));
    }
}
