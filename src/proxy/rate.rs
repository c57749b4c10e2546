//! How often: limits on the calls of a token and of a user, and on the tokens from one address that nobody
//! has, in memory that is bounded.
//!
//! Each limit is a bucket that empties at a steady pace (the generic cell rate algorithm), and all that a
//! bucket has to know is one moment. What is kept by key is these moments and nothing else, in a table of our
//! own: a cache that tells the time by itself takes several times as long, and this must also give back.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::access::Grant;

/// How many tokens, users and addresses are counted at the same time. Past that, those that are farthest from
/// their limit are forgotten; whoever calls too often is never among them.
const CAPACITY: usize = 100_000;

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
            taken.map_err(|wait| {
                // nothing is forwarded, so it has not called
                if let Some(buckets) = &self.per_token {
                    buckets.give_back(grant.token_id().as_str());
                }
                Exceeded { what: "too many requests of this user", wait }
            })?;
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

/// A bucket for each key, spread over shards, so that workers rarely wait for each other, and then only for the
/// time of a look into a table.
struct Buckets<K> {
    rate: Rate,
    /// Moments are counted from here.
    start: Instant,
    /// How many buckets a shard has room for.
    room: usize,
    shards: Arc<[Mutex<Shard<K>>]>,
    hasher: RandomState,
}

const SHARDS: usize = 64;

/// Buckets by key: when each will be empty, in nanoseconds from the start.
struct Shard<K> {
    empty_at: HashMap<K, u64>,
    /// At how many it is looked for those that are empty, which need not be kept.
    clean_at: usize,
}

impl<K> Buckets<K>
where
    K: Eq + Hash,
{
    fn new(rate: Rate, capacity: usize, start: Instant) -> Self {
        let shard = || Mutex::new(Shard { empty_at: HashMap::new(), clean_at: 0 });
        let shards = std::iter::repeat_with(shard).take(SHARDS).collect();
        Self { rate, start, room: capacity.div_ceil(SHARDS), shards, hasher: RandomState::new() }
    }

    /// Puts one into the bucket of `key` at the moment `now`. The error is how long to wait for room.
    fn take<Q>(&self, key: &Q, now: Instant) -> Result<(), Duration>
    where
        K: Borrow<Q>,
        Q: ToOwned<Owned = K> + Eq + Hash + ?Sized,
    {
        let now = u64::try_from(now.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX);
        let brim = now.saturating_add(self.rate.full());
        let mut shard = self.shard(key);
        let bucket = shard.empty_at.get_mut(key);
        let filled = bucket.as_deref().map_or(now, |empty_at| now.max(*empty_at)).saturating_add(self.rate.interval);
        if filled > brim {
            return Err(Duration::from_nanos(filled - brim));
        }
        match bucket {
            Some(empty_at) => *empty_at = filled,
            None => {
                shard.make_room(self.room, now);
                shard.empty_at.insert(key.to_owned(), filled);
            }
        }
        Ok(())
    }

    /// Takes one out again that was put in. A bucket that was forgotten meanwhile is empty anyway.
    fn give_back<Q>(&self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        if let Some(empty_at) = self.shard(key).empty_at.get_mut(key) {
            *empty_at = empty_at.saturating_sub(self.rate.interval);
        }
    }

    /// A panic elsewhere leaves a shard whole.
    fn shard<Q: Hash + ?Sized>(&self, key: &Q) -> MutexGuard<'_, Shard<K>> {
        let hash = self.hasher.hash_one(key);
        // always one of them
        let index = usize::try_from(hash % SHARDS as u64).unwrap_or_default();
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> Shard<K> {
    /// Makes room for one more bucket. Empty ones go, which changes nothing; if there is none, those go
    /// that would be empty soonest.
    fn make_room(&mut self, room: usize, now: u64) {
        if self.empty_at.len() < self.clean_at {
            return;
        }
        self.empty_at.retain(|_, empty_at| *empty_at > now);
        if self.empty_at.len() >= room {
            // an eighth at a time, for a look at all of them must not be taken for each new one
            let mut moments: Vec<u64> = self.empty_at.values().copied().collect();
            let (_, soon, _) = moments.select_nth_unstable(room / 8);
            let soon = *soon;
            self.empty_at.retain(|_, empty_at| *empty_at > soon);
        }
        self.clean_at = (self.empty_at.len() * 2).clamp(room.min(16), room);
    }
}

impl<K> Clone for Buckets<K> {
    fn clone(&self) -> Self {
        let Self { rate, start, room, shards, hasher } = self;
        Self { rate: *rate, start: *start, room: *room, shards: Arc::clone(shards), hasher: hasher.clone() }
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
        (Buckets::new(Rate::per_minute(calls, burst), 6400, start), start)
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

    fn kept(buckets: &Buckets<String>) -> usize {
        buckets.shards.iter().map(|shard| shard.lock().unwrap().empty_at.len()).sum()
    }

    #[test]
    fn memory_is_bounded_and_who_calls_too_often_is_never_forgotten() {
        let (buckets, start) = buckets(60, Some(10));
        while buckets.take("often", start).is_ok() {}
        for key in 0..20_000 {
            assert_eq!(buckets.take(&*key.to_string(), start), Ok(()));
            assert!(buckets.take("often", start).is_err(), "forgotten after {key}");
        }
        assert!(kept(&buckets) <= 6400, "{}", kept(&buckets));
        // and a new one is counted however many there were
        for _ in 0..10 {
            assert_eq!(buckets.take("new", start), Ok(()));
        }
        assert!(buckets.take("new", start).is_err());
    }

    #[test]
    fn who_has_not_called_for_long_is_forgotten() {
        let (buckets, start) = buckets(60, None);
        let call = |keys: std::ops::Range<u32>, now| {
            for key in keys {
                assert_eq!(buckets.take(&*key.to_string(), now), Ok(()));
            }
        };
        call(0..4000, start);
        assert!(kept(&buckets) == 4000, "{}", kept(&buckets));
        // a few come, again and again: of the many, and of the few before, none is kept
        for minute in 1..100 {
            call(minute * 10_000..minute * 10_000 + 200, start + seconds(60 * u64::from(minute)));
        }
        assert!(kept(&buckets) < 2000, "{}", kept(&buckets));
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
