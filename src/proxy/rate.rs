//! How often: limits on the calls of a token and of a user, and on the tokens from one address that nobody
//! has, in memory that is bounded.
//!
//! Each limit is a bucket that empties at a steady pace (the generic cell rate algorithm), and all that a
//! bucket has to know is one moment: a number that is compared and replaced in one step, without a lock.

use std::borrow::Borrow;
use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::access::Grant;

/// How many tokens, users and addresses are counted at the same time. The one that called longest ago
/// is forgotten first; whoever calls too often is never that one.
const CAPACITY: u64 = 100_000;

/// So many a minute, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// What one costs, in nanoseconds of the bucket's pace.
    interval: u64,
    burst: u64,
}

impl Rate {
    /// `calls` a minute, of which `burst` may come at once: all of them, if nothing is said.
    pub fn per_minute(calls: u32, burst: Option<u32>) -> Self {
        let interval = 60_000_000_000 / u64::from(calls.max(1));
        Self { interval, burst: burst.unwrap_or(calls).max(1).into() }
    }

    /// How long it takes a full bucket to become empty, in nanoseconds.
    fn full(self) -> u64 {
        self.interval * self.burst
    }
}

/// The settings of the limits; `None` is no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    /// Calls with one token.
    pub per_token: Option<Rate>,
    /// Calls of one user, whatever her tokens.
    pub per_user: Option<Rate>,
    /// Tokens from one address that had to be found out about and that nobody has.
    pub guesses: Option<Rate>,
}

/// The limits, as all gates of a process share them.
#[derive(Clone, Debug)]
pub struct Rates {
    per_token: Option<Buckets<String>>,
    per_user: Option<Buckets<String>>,
    guesses: Option<Buckets<IpAddr>>,
}

impl Rates {
    /// Nothing has been called yet.
    pub fn new(params: &Params) -> Self {
        let start = Instant::now();
        Self {
            per_token: params.per_token.map(|rate| Buckets::new(rate, CAPACITY, start)),
            per_user: params.per_user.map(|rate| Buckets::new(rate, CAPACITY, start)),
            guesses: params.guesses.map(|rate| Buckets::new(rate, CAPACITY, start)),
        }
    }

    /// Counts a call that is about to be forwarded. The token is asked before its user, so that a token
    /// that calls too often takes nothing from the user's others.
    ///
    /// # Errors
    /// It has to wait.
    pub fn call(&self, grant: &Grant) -> Result<(), Exceeded> {
        if let Some(buckets) = &self.per_token {
            let taken = buckets.take(grant.token_id().as_str(), Instant::now());
            taken.map_err(|wait| Exceeded { what: "too many requests with this token", wait })?;
        }
        if let Some(buckets) = &self.per_user {
            let taken = buckets.take(grant.user(), Instant::now());
            taken.map_err(|wait| Exceeded { what: "too many requests of this user", wait })?;
        }
        Ok(())
    }

    /// Counts a token that nobody here has met and that must be found out about at some cost. It counts
    /// before that is done, or any number could be sent at once, and is given back if it was no guess.
    pub(super) fn guess(&self, client: Option<IpAddr>) -> Result<Guess, Exceeded> {
        let Some((buckets, client)) = self.guesses.as_ref().zip(client) else { return Ok(Guess(None)) };
        let client = network(client);
        buckets.take(&client, Instant::now()).map_err(|wait| {
            let what = "too many tokens came from this address that nobody has, so yours was not judged";
            Exceeded { what, wait }
        })?;
        Ok(Guess(Some((buckets.clone(), client))))
    }
}

/// A limit is reached: of what, and how long it takes until there is room for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    pub(super) what: &'static str,
    pub(super) wait: Duration,
}

/// A token that is being found out about. Whoever leaves before that is done has guessed.
#[derive(Debug)]
pub(super) struct Guess(Option<(Buckets<IpAddr>, IpAddr)>);

impl Guess {
    /// It was no guess.
    pub(super) fn give_back(self) {
        if let Some((buckets, client)) = self.0 {
            buckets.give_back(&client);
        }
    }
}

/// Whoever has one address of an IPv6 network has 2^64 of them.
pub(crate) fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// A bucket for each key. One that has not been used for as long as it takes to become empty is
/// forgotten, which changes nothing.
struct Buckets<K> {
    rate: Rate,
    /// Moments are counted from here.
    start: Instant,
    by_key: Cache<K, Arc<Bucket>>,
}

/// When it will be empty, in nanoseconds from the start.
#[derive(Debug, Default)]
struct Bucket(AtomicU64);

impl<K> Buckets<K>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
{
    fn new(rate: Rate, capacity: u64, start: Instant) -> Self {
        let by_key = Cache::builder()
            .max_capacity(capacity)
            // moka's own choice may turn a new key away, and its calls would not be counted
            .eviction_policy(EvictionPolicy::lru())
            .time_to_idle(Duration::from_nanos(rate.full()).max(Duration::from_mins(1)))
            .build();
        Self { rate, start, by_key }
    }

    /// Puts one into the bucket of `key` at the moment `now`. The error is how long to wait for room.
    fn take<Q>(&self, key: &Q, now: Instant) -> Result<(), Duration>
    where
        K: Borrow<Q>,
        Q: ToOwned<Owned = K> + Eq + Hash + ?Sized,
    {
        let bucket = self.by_key.get_with_by_ref(key, Arc::default);
        let now = u64::try_from(now.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX);
        let brim = now.saturating_add(self.rate.full());
        let filled = |empty_at: u64| empty_at.max(now).saturating_add(self.rate.interval);
        let taken = bucket.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |empty_at| {
            Some(filled(empty_at)).filter(|filled| *filled <= brim)
        });
        taken.map(|_| ()).map_err(|empty_at| Duration::from_nanos(filled(empty_at) - brim))
    }

    /// Takes one out again that was put in. A bucket that was forgotten meanwhile is empty anyway.
    fn give_back<Q>(&self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        if let Some(bucket) = self.by_key.get(key) {
            let emptied = |empty_at: u64| Some(empty_at.saturating_sub(self.rate.interval));
            // it always succeeds, for `emptied` always says what to write
            let _ = bucket.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, emptied);
        }
    }
}

impl<K> Clone for Buckets<K> {
    fn clone(&self) -> Self {
        Self { rate: self.rate, start: self.start, by_key: self.by_key.clone() }
    }
}

/// Who has called is not told.
impl<K> fmt::Debug for Buckets<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buckets").field("rate", &self.rate).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn buckets(calls: u32, burst: Option<u32>) -> (Buckets<String>, Instant) {
        let start = Instant::now();
        (Buckets::new(Rate::per_minute(calls, burst), 1000, start), start)
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_burst_and_then_a_steady_pace() {
        let (buckets, start) = buckets(60, Some(3));
        for _ in 0..3 {
            assert_eq!(buckets.take("a", start), Ok(()));
        }
        assert_eq!(buckets.take("a", start), Err(seconds(1)));
        assert_eq!(buckets.take("a", start + Duration::from_millis(999)), Err(Duration::from_millis(1)));
        assert_eq!(buckets.take("a", start + seconds(1)), Ok(()));
        assert_eq!(buckets.take("a", start + seconds(1)), Err(seconds(1)));
        // a rest fills up no more than the burst
        for _ in 0..3 {
            assert_eq!(buckets.take("a", start + seconds(1000)), Ok(()));
        }
        assert!(buckets.take("a", start + seconds(1000)).is_err());
    }

    #[test]
    fn a_minutes_calls_may_come_at_once_if_nothing_else_is_said() {
        let (buckets, start) = buckets(2, None);
        assert_eq!(buckets.take("a", start), Ok(()));
        assert_eq!(buckets.take("a", start), Ok(()));
        assert_eq!(buckets.take("a", start), Err(seconds(30)));
    }

    #[test]
    fn everybody_has_a_bucket_of_his_own() {
        let (buckets, start) = buckets(1, None);
        assert_eq!(buckets.take("a", start), Ok(()));
        assert_eq!(buckets.take("b", start), Ok(()));
        assert!(buckets.take("a", start).is_err() && buckets.take("b", start).is_err());
    }

    #[test]
    fn what_is_given_back_can_be_taken_again_and_no_more() {
        let (buckets, start) = buckets(60, Some(2));
        assert_eq!([buckets.take("a", start), buckets.take("a", start)], [Ok(()), Ok(())]);
        buckets.give_back("a");
        assert_eq!(buckets.take("a", start), Ok(()));
        assert_eq!(buckets.take("a", start), Err(seconds(1)));
        // long after, the bucket is empty and gets no emptier
        buckets.give_back("a");
        buckets.give_back("b");
        let later = start + seconds(100);
        assert_eq!([buckets.take("a", later), buckets.take("a", later)], [Ok(()), Ok(())]);
        assert!(buckets.take("a", later).is_err());
    }

    #[test]
    fn an_address_is_a_network_in_ipv6_and_itself_in_ipv4() {
        for (one, other, same) in [
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.8", false),
            ("::ffff:192.0.2.7", "192.0.2.7", true),
            ("::ffff:192.0.2.7", "::ffff:192.0.2.8", false),
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", true),
            ("2001:db8:1:2::1", "2001:db8:1:3::1", false),
            ("::1", "127.0.0.1", false),
        ] {
            let [a, b] = [one, other].map(|text| network(text.parse().unwrap()));
            assert_eq!(a == b, same, "{one} {other}");
        }
    }

    #[test]
    fn guesses_are_counted_by_address_and_only_where_there_is_one() {
        let guesses = Some(Rate::per_minute(1, None));
        let rates = Rates::new(&Params { per_token: None, per_user: None, guesses });
        let (home, office) = ("192.0.2.7".parse().ok(), "192.0.2.8".parse().ok());
        rates.guess(home).unwrap().give_back();
        rates.guess(home).unwrap();
        assert!(rates.guess(home).unwrap_err().wait > seconds(50));
        rates.guess(office).unwrap();
        for _ in 0..9 {
            rates.guess(None).unwrap().give_back();
        }
    }

    #[test]
    fn memory_is_bounded_and_a_new_key_is_counted_however_many_there_were() {
        let (buckets, start) = buckets(1, None);
        for key in 0..20_000 {
            assert_eq!(buckets.take(&*key.to_string(), start), Ok(()));
        }
        buckets.by_key.run_pending_tasks();
        assert!(buckets.by_key.entry_count() <= 1000, "{}", buckets.by_key.entry_count());
        assert_eq!(buckets.take("new", start), Ok(()));
        buckets.by_key.run_pending_tasks();
        assert!(buckets.take("new", start).is_err(), "its bucket was thrown away");
    }

    #[test]
    fn threads_together_get_no_more_than_one_would() {
        let (buckets, start) = buckets(1000, Some(100));
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..1000).filter(|_| buckets.take("a", start).is_ok()).count()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 100);
    }

    proptest! {
        #[test]
        fn never_more_than_the_burst_and_the_pace_and_the_wait_that_is_told_is_enough(
            calls in 1_u32..10_000,
            burst in 1_u32..50,
            pauses in proptest::collection::vec(0_u64..2000, 1..200),
        ) {
            let (buckets, start) = buckets(calls, Some(burst));
            let (mut now, mut taken) = (start, 0_u64);
            for pause in pauses {
                now += Duration::from_millis(pause);
                match buckets.take("a", now) {
                    Ok(()) => taken += 1,
                    Err(wait) => {
                        prop_assert!(buckets.take("a", now + wait.saturating_sub(Duration::from_nanos(1))).is_err());
                        now += wait;
                        prop_assert_eq!(buckets.take("a", now), Ok(()));
                        taken += 1;
                    }
                }
                let pace = (now - start).as_nanos() / u128::from(60_000_000_000 / u64::from(calls));
                prop_assert!(u128::from(taken) <= u128::from(burst) + pace);
            }
        }
    }
}
