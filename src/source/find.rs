//! Answers to what a directory cannot say by itself, for the gates of all workers.

use std::sync::Arc;
use std::time::Instant;

use super::facts::CacheCounts;
use super::lookup::Lookup;
use super::trial::Trial;
use crate::access::{Credential, Finding, Generation, Question};
use crate::token::TokenDigest;

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

    /// Whether an answer would have to be worked out for a token that nobody is known to have, as each
    /// token is at first, and each guess. What is known costs nothing, and a token that was found once is no guess.
    pub fn is_stranger(&self, question: &Question, generation: Generation, credential: &Credential<'_>) -> bool {
        match (question, &self.0.lookup) {
            (Question::Bcrypt(candidates), _) => self.0.trial.is_stranger(candidates, credential),
            (Question::Lookup(digest), Some(lookup)) => lookup.is_stranger(generation, digest),
            (Question::Lookup(_), None) => false,
        }
    }

    /// Has [`Self::counts`] tell of what has just come and gone, too.
    pub async fn settle(&self) {
        self.0.trial.settle().await;
        if let Some(lookup) = &self.0.lookup {
            lookup.settle().await;
        }
    }

    /// What is counted of what is known, by the kind of question.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, CacheCounts)> {
        let lookup = self.0.lookup.as_ref().map(|lookup| ("lookup", lookup.counts()));
        [("bcrypt", self.0.trial.counts())].into_iter().chain(lookup)
    }

    /// Answers the question that the directory of `generation` has about `credential`.
    pub async fn find(&self, question: Question, generation: Generation, credential: &Credential<'_>) -> Finding {
        match question {
            Question::Bcrypt(candidates) => self.0.trial.find(&candidates, credential).await,
            Question::Lookup(digest) => self.look_up(generation, digest).await.0,
        }
    }

    /// Sees to it that a service which was never to be had is found when it is there; never ends.
    pub(super) async fn look_until_known(&self) {
        if let Some(lookup) = &self.0.lookup {
            lookup.look_until_known().await;
        }
        std::future::pending::<()>().await;
    }

    /// What the source knows of one token, and until when that holds.
    pub async fn look_up(&self, generation: Generation, digest: TokenDigest) -> (Finding, Option<Instant>) {
        match &self.0.lookup {
            Some(lookup) => lookup.find(generation, digest).await,
            // no directory asks this where there is no such source; if one did, nothing would be known
            None => (Finding::Unavailable, None),
        }
    }
}
