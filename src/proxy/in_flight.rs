//! How many requests of each token are under way at once, open streams among them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::access::Grant;
use crate::token::TokenId;

/// The requests under way, as all gates of a process share them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct InFlight(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: usize,
    by_token: Mutex<HashMap<TokenId, usize>>,
}

impl InFlight {
    /// None yet, and at most `limit` of each token.
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Shared { limit, by_token: Mutex::default() }))
    }

    /// One request more, unless its token has as many as it may.
    pub(super) fn begin(&self, grant: &Arc<Grant>) -> Option<Turn> {
        let mut by_token = self.0.lock();
        match by_token.get_mut(grant.token_id()) {
            Some(count) if *count >= self.0.limit => return None,
            Some(count) => *count += 1,
            None => {
                by_token.insert(grant.token_id().clone(), 1);
            }
        }
        Some(Turn { in_flight: self.clone(), grant: Arc::clone(grant) })
    }
}

impl Shared {
    /// A panic elsewhere leaves the counts whole.
    fn lock(&self) -> MutexGuard<'_, HashMap<TokenId, usize>> {
        self.by_token.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    in_flight: InFlight,
    grant: Arc<Grant>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut by_token = self.in_flight.0.lock();
        if let Some(count) = by_token.get_mut(self.grant.token_id()) {
            *count -= 1;
            if *count == 0 {
                by_token.remove(self.grant.token_id());
            }
        }
    }
}
