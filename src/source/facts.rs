//! What took time to find out, kept for a while: facts, never decisions.
//!
//! What was found and what was not are kept apart, so that a flood of guesses, which are all not
//! found, cannot push out what is known of honest tokens. Equal questions that come at the same time
//! are asked once.

use std::fmt;
use std::hash::Hash;
use std::time::Duration;

use moka::Expiry;
use moka::future::Cache;
use moka::policy::EvictionPolicy;

use crate::metrics::Counter;

/// The settings of a memory.
pub(super) struct Bounds<E> {
    /// How many findings are kept.
    pub(super) capacity: u64,
    /// How many times "nothing" is kept.
    pub(super) nothing_capacity: u64,
    /// How long a finding is kept.
    pub(super) expiry: E,
    /// How long "nothing" is kept; `None` is as long as there is room.
    pub(super) nothing_ttl: Option<Duration>,
}

/// Whatever was found about keys, or that there was nothing to find.
pub(super) struct Facts<K, V> {
    found: Cache<K, V>,
    nothing: Cache<K, ()>,
    questions: Counter,
    asked: Counter,
}

/// What is counted of such a memory.
#[derive(Clone, Copy, Debug)]
pub struct CacheCounts {
    /// Questions that were answered from memory, or together with an equal one.
    pub hits: u64,
    /// Questions that had to be asked.
    pub misses: u64,
    /// Findings that are kept.
    pub found: u64,
    /// How many times "nothing" is kept.
    pub nothing: u64,
}

/// It cannot be found out now. This is never kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unavailable;

/// Why there is no finding; all who wait for the same question get to know it.
enum Miss {
    Nothing,
    Unavailable,
}

impl<K, V> Facts<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(super) fn new(bounds: Bounds<impl Expiry<K, V> + Send + Sync + 'static>) -> Self {
        // The least recently used one goes first. moka's own choice prefers what was asked for often,
        // and by that a new key would have to fight for its place with those of a list that is gone.
        let found = Cache::builder()
            .max_capacity(bounds.capacity)
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(bounds.expiry)
            .build();
        let nothing = Cache::builder().max_capacity(bounds.nothing_capacity).eviction_policy(EvictionPolicy::lru());
        let nothing = match bounds.nothing_ttl {
            Some(ttl) => nothing.time_to_live(ttl).build(),
            None => nothing.build(),
        };
        Self { found, nothing, questions: Counter::default(), asked: Counter::default() }
    }

    /// Has those counted that have just come and gone, which is put off otherwise.
    pub(super) async fn settle(&self) {
        self.found.run_pending_tasks().await;
        self.nothing.run_pending_tasks().await;
    }

    pub(super) fn counts(&self) -> CacheCounts {
        // a question is counted before it is asked, so read after it
        let misses = self.asked.value();
        let hits = self.questions.value().saturating_sub(misses);
        CacheCounts { hits, misses, found: self.found.entry_count(), nothing: self.nothing.entry_count() }
    }

    /// Whether something is kept about `key` at this moment, and if so, whether there is something to it.
    pub(super) fn recall(&self, key: &K) -> Option<bool> {
        if self.found.contains_key(key) {
            return Some(true);
        }
        self.nothing.contains_key(key).then_some(false)
    }

    /// What is known about `key`; where that is not known, `ask` finds it out. Whoever asks first asks
    /// for all; if he leaves before the answer is there, the next one asks anew.
    pub(super) async fn know(
        &self,
        key: K,
        ask: impl Future<Output = Result<Option<V>, Unavailable>>,
    ) -> Result<Option<V>, Unavailable> {
        self.questions.inc();
        if self.nothing.get(&key).await.is_some() {
            return Ok(None);
        }
        let asking = async {
            // somebody may have asked between our look and our turn
            if self.nothing.get(&key).await.is_some() {
                return Err(Miss::Nothing);
            }
            self.asked.inc();
            match ask.await {
                Ok(Some(found)) => Ok(found),
                Ok(None) => {
                    self.nothing.insert(key.clone(), ()).await;
                    Err(Miss::Nothing)
                }
                Err(Unavailable) => Err(Miss::Unavailable),
            }
        };
        match self.found.try_get_with_by_ref(&key, asking).await {
            Ok(found) => Ok(Some(found)),
            Err(miss) => match *miss {
                Miss::Nothing => Ok(None),
                Miss::Unavailable => Err(Unavailable),
            },
        }
    }
}

/// Keys identify tokens: not even their number is told.
impl<K, V> fmt::Debug for Facts<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Facts").finish_non_exhaustive()
    }
}

/// Keeps findings as long as there is room for them.
pub(super) struct Forever;

impl<K, V> Expiry<K, V> for Forever {}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;
    use tokio::task::yield_now;

    use super::*;

    fn facts() -> Facts<u32, &'static str> {
        let nothing_ttl = Some(Duration::from_hours(1));
        Facts::new(Bounds { capacity: 100, nothing_capacity: 100, expiry: Forever, nothing_ttl })
    }

    /// Counts how often it is asked.
    async fn asked<V>(count: &AtomicUsize, answer: V) -> V {
        count.fetch_add(1, Ordering::Relaxed);
        std::future::ready(answer).await
    }

    #[tokio::test]
    async fn what_is_known_is_not_asked_again_and_what_cannot_be_known_is() {
        let (facts, count) = (facts(), AtomicUsize::new(0));
        for (key, answer, times) in [(1, Ok(Some("a")), 1), (2, Ok(None), 1), (3, Err(Unavailable), 5)] {
            count.store(0, Ordering::Relaxed);
            assert_eq!(facts.recall(&key), None);
            for _ in 0..5 {
                assert_eq!(facts.know(key, asked(&count, answer)).await, answer);
            }
            assert_eq!(facts.recall(&key), answer.ok().map(|found| found.is_some()));
            assert_eq!(count.load(Ordering::Relaxed), times, "{answer:?}");
        }
    }

    #[tokio::test]
    async fn equal_questions_at_the_same_time_are_one() {
        for answer in [Ok(Some("a")), Ok(None), Err(Unavailable)] {
            let (facts, count, gate) = (Arc::new(facts()), Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
            let askers: Vec<_> = (0..20)
                .map(|_| {
                    let (facts, count, gate) = (Arc::clone(&facts), Arc::clone(&count), Arc::clone(&gate));
                    tokio::spawn(async move {
                        let ask = async {
                            count.fetch_add(1, Ordering::Relaxed);
                            gate.acquire().await.unwrap().forget();
                            answer
                        };
                        facts.know(1, ask).await
                    })
                })
                .collect();
            // everybody has come before the answer does
            for _ in 0..100 {
                yield_now().await;
            }
            gate.add_permits(1);
            for asker in askers {
                assert_eq!(asker.await.unwrap(), answer);
            }
            assert_eq!(count.load(Ordering::Relaxed), 1, "{answer:?}");
        }
    }

    #[tokio::test]
    async fn who_waits_asks_anew_when_who_asked_leaves() {
        let facts = Arc::new(facts());
        let leaving = Arc::clone(&facts);
        let leaver = tokio::spawn(async move { leaving.know(1, std::future::pending()).await });
        yield_now().await;
        let waiting = Arc::clone(&facts);
        let waiter = tokio::spawn(async move { waiting.know(1, async { Ok(Some("a")) }).await });
        yield_now().await;
        leaver.abort();
        assert_eq!(waiter.await.unwrap(), Ok(Some("a")));
    }

    #[tokio::test]
    async fn a_flood_of_guesses_is_bounded_and_does_not_push_out_what_is_known() {
        let facts = facts();
        facts.know(0, async { Ok(Some("a")) }).await.unwrap();
        for guess in 1..10_000 {
            facts.know(guess, async { Ok(None) }).await.unwrap();
        }
        facts.settle().await;
        assert!(facts.nothing.entry_count() <= 100);
        let known = facts.know(0, async { panic!("asked again") }).await;
        assert_eq!(known, Ok(Some("a")));
    }

    #[tokio::test]
    async fn a_new_key_gets_its_place_however_often_the_old_ones_were_asked_for() {
        let facts = facts();
        for _ in 0..50 {
            for old in 0..100 {
                facts.know(old, async { Ok(Some("old")) }).await.unwrap();
            }
        }
        let count = AtomicUsize::new(0);
        for _ in 0..3 {
            facts.know(1000, asked(&count, Ok(Some("new")))).await.unwrap();
            facts.settle().await;
        }
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }
}
