//! Answers to what a directory cannot say by itself, for the gates of all workers.

use std::sync::Arc;

use super::lookup::Lookup;
use super::trial::Trial;
use crate::access::{Credential, Finding, Generation, Question};

/// Finds out what a directory asks about a credential. All clones share what they know.
#[derive(Clone, Debug)]
pub struct Finder(Arc<Ways>);

#[derive(Debug)]
struct Ways {
    trial: Trial,
    lookup: Option<Lookup>,
}

impl Finder {
    pub(super) fn new(parallel_trials: usize, lookup: Option<Lookup>) -> Self {
        Self(Arc::new(Ways { trial: Trial::new(parallel_trials), lookup }))
    }

    /// Answers the question that the directory of `generation` has about `credential`.
    pub async fn find(&self, question: Question, generation: Generation, credential: &Credential<'_>) -> Finding {
        match (question, &self.0.lookup) {
            (Question::Bcrypt(candidates), _) => self.0.trial.find(&candidates, credential).await,
            (Question::Lookup(digest), Some(lookup)) => lookup.find(generation, digest).await,
            // no directory asks this where there is no such source; if one did, nothing would be known
            (Question::Lookup(_), None) => Finding::Unavailable,
        }
    }
}
