//! Trying bcrypt hashes: slow by design, so it is done on threads that nobody waits for, a few at a
//! time, and only once for each token and hash.
//!
//! Whether a token matches a hash never changes, so the verdict is kept by these two and outlives
//! every reload. It cannot bring a revoked token back: which hashes there are to be tried, and what
//! they stand for, comes from the directory each time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::facts::{Bounds, CacheCounts, Facts, Forever, Unavailable};
use crate::access::{Credential, Finding, Grant};
use crate::token::{BcryptHash, Token, TokenDigest};

/// How many tokens may wait to be tried. Whoever comes then hears a 503: a wait without bound would
/// help nobody.
const WAITING: usize = 64;

/// How long a token may wait to be tried.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many matches are kept, and how many mismatches.
const CAPACITY: u64 = 10_000;

/// Where hashes are tried, and what came of it.
#[derive(Debug)]
pub(super) struct Trial {
    verdicts: Facts<(TokenDigest, BcryptHash), ()>,
    waiting: Semaphore,
    running: Arc<Semaphore>,
}

impl Trial {
    /// `parallel` is how many hashes are tried at the same time, one at least.
    pub(super) fn new(parallel: usize) -> Self {
        let bounds = Bounds { capacity: CAPACITY, nothing_capacity: CAPACITY, expiry: Forever, nothing_ttl: None };
        Self {
            verdicts: Facts::new(bounds),
            waiting: Semaphore::new(WAITING + parallel),
            running: Arc::new(Semaphore::new(parallel)),
        }
    }

    pub(super) async fn settle(&self) {
        self.verdicts.settle().await;
    }

    pub(super) fn counts(&self) -> CacheCounts {
        self.verdicts.counts()
    }

    /// Whether a hash would have to be tried for a token that matches none that is known.
    pub(super) fn is_stranger(&self, candidates: &[Arc<Grant>], credential: &Credential<'_>) -> bool {
        let digest = credential.digest();
        let hashes = candidates.iter().filter_map(|grant| grant.bcrypt());
        let mut verdicts = hashes.map(|hash| self.verdicts.recall(&(digest, hash.clone())));
        let mut untried = false;
        let matches = verdicts.any(|verdict| {
            untried |= verdict.is_none();
            verdict == Some(true)
        });
        untried && !matches
    }

    /// Which of these records the token was hashed for.
    pub(super) async fn find(&self, candidates: &[Arc<Grant>], credential: &Credential<'_>) -> Finding {
        let digest = credential.digest();
        for grant in candidates {
            let Some(hash) = grant.bcrypt() else { continue };
            let trial = self.try_out(hash, credential);
            match self.verdicts.know((digest, hash.clone()), trial).await {
                Ok(Some(())) => return Finding::Found(Arc::clone(grant)),
                Ok(None) => {}
                Err(Unavailable) => return Finding::Unavailable,
            }
        }
        Finding::Nobody
    }

    async fn try_out(&self, hash: &BcryptHash, credential: &Credential<'_>) -> Result<Option<()>, Unavailable> {
        let _place = self.waiting.try_acquire().map_err(|_| Unavailable)?;
        let turn = timeout(PATIENCE, Arc::clone(&self.running).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Err(Unavailable) };
        let (hash, token) = (hash.clone(), Token::new(credential.token()));
        let trial = spawn_blocking(move || {
            let matches = hash.matches(&token);
            // held to the end even if nobody waits any more, or guesses could be piled up by leaving
            drop(turn);
            matches
        });
        // a trial that panicked said nothing
        trial.await.map(|matches| matches.then_some(())).map_err(|_| Unavailable)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use http::HeaderMap;
    use http::header::AUTHORIZATION;

    use super::*;
    use crate::access::{Directory, Generation, Question};
    use crate::token::TokenList;

    /// The records that a token beginning with `legacy_pat` is tried with.
    fn candidates(tokens: &[&str]) -> Arc<[Arc<Grant>]> {
        let records = tokens.iter().enumerate().map(|(index, token)| {
            let hash = bcrypt::hash(token, 4).unwrap();
            format!("[[tokens]]\nid = \"t{index}\"\nhash = \"{hash}\"\nprefix = \"legacy_pat\"\nuser = \"alice\"\n")
        });
        let list = TokenList::parse(Path::new("t.toml"), &records.collect::<String>()).unwrap();
        let directory = Directory::new(&list, &Arc::default(), Generation(1), "");
        let headers = headers("legacy_pat_any");
        match directory.question(&Credential::from_headers(&headers).unwrap()) {
            Some(Question::Bcrypt(candidates)) => candidates,
            other => panic!("{other:?}"),
        }
    }

    fn headers(token: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        headers
    }

    async fn find(trial: &Trial, candidates: &[Arc<Grant>], token: &str) -> Result<Option<String>, Unavailable> {
        let headers = headers(token);
        match trial.find(candidates, &Credential::from_headers(&headers).unwrap()).await {
            Finding::Found(grant) => Ok(Some(grant.token_id().to_string())),
            Finding::Nobody => Ok(None),
            Finding::Unavailable => Err(Unavailable),
        }
    }

    #[tokio::test]
    async fn the_record_that_matches_is_found_among_several() {
        let trial = Trial::new(1);
        let candidates = candidates(&["legacy_pat_one", "legacy_pat_two", "legacy_pat_three"]);
        assert_eq!(find(&trial, &candidates, "legacy_pat_two").await, Ok(Some("t1".to_owned())));
        assert_eq!(find(&trial, &candidates, "legacy_pat_four").await, Ok(None));
    }

    #[tokio::test]
    async fn a_verdict_is_kept_for_its_hash_and_for_no_other() {
        let trial = Trial::new(1);
        let before = candidates(&["legacy_pat_one"]);
        assert_eq!(find(&trial, &before, "legacy_pat_one").await, Ok(Some("t0".to_owned())));
        assert_eq!(find(&trial, &before, "legacy_pat_two").await, Ok(None));
        // from here on, only what is known can be told
        trial.running.close();
        assert_eq!(find(&trial, &before, "legacy_pat_one").await, Ok(Some("t0".to_owned())));
        assert_eq!(find(&trial, &before, "legacy_pat_two").await, Ok(None));
        assert_eq!(find(&trial, &before, "legacy_pat_three").await, Err(Unavailable));
        // the record was replaced by one with another hash: the old verdict says nothing about it
        let after = candidates(&["legacy_pat_two"]);
        assert_eq!(find(&trial, &after, "legacy_pat_one").await, Err(Unavailable));
    }

    #[tokio::test]
    async fn not_more_than_so_many_wait() {
        let trial = Arc::new(Trial::new(1));
        let candidates = candidates(&["legacy_pat_one"]);
        let turn = Arc::clone(&trial.running).acquire_owned().await.unwrap();
        let guesses: Vec<_> = (0..200)
            .map(|guess| {
                let (trial, candidates) = (Arc::clone(&trial), Arc::clone(&candidates));
                tokio::spawn(async move { find(&trial, &candidates, &format!("legacy_pat_{guess}")).await })
            })
            .collect();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let turned_away = guesses.iter().filter(|guess| guess.is_finished()).count();
        assert_eq!(turned_away, 200 - WAITING - 1);
        drop(turn);
        let mut refused = 0;
        for guess in guesses {
            refused += usize::from(guess.await.unwrap() == Ok(None));
        }
        assert_eq!(refused, WAITING + 1);
    }

    #[tokio::test]
    async fn who_leaves_does_not_make_room_for_another_trial_before_his_own_has_ended() {
        let trial = Trial::new(1);
        let slow = bcrypt::hash("legacy_pat_one", 10).unwrap().parse();
        let Ok(crate::token::TokenHash::Bcrypt(slow)) = slow else { panic!("{slow:?}") };
        let headers = headers("legacy_pat_two");
        let credential = Credential::from_headers(&headers).unwrap();
        let left = timeout(Duration::from_millis(1), trial.try_out(&slow, &credential)).await;
        assert!(left.is_err(), "too quick to be left");
        assert_eq!(trial.running.available_permits(), 0);
        let _turn = timeout(Duration::from_secs(20), trial.running.acquire()).await.expect("it ends").unwrap();
    }
}
