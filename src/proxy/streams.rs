//! Answers that are still open, so that they end when the right to them does.
//!
//! An answer is watched from the moment at which it turns out not to be there at once. Whoever puts a new directory into force has every watched answer reviewed, and an answer that
//! comes to be watched reviews itself if the directory has changed since its permit was given: between
//! the two, none is missed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;
use std::time::Instant;

use arc_swap::ArcSwap;
use atomic_waker::AtomicWaker;
use jiff::Timestamp;

use super::inbound::Meter;
use super::sessions::{Named, SessionKey, Sessions};
use crate::access::{Denial, Directory, Finding, Grant, Permit};
use crate::audit::{AuditRecord, OpenRecord, RequestId};
use crate::metrics::Histogram;
use crate::token::TokenDigest;
use crate::verdict::{Ended, Reason};

/// All open answers of the process.
#[derive(Debug)]
pub struct Streams {
    directory: Arc<ArcSwap<Directory>>,
    sessions: Sessions,
    open: Mutex<HashMap<u64, Arc<Handle>>>,
    next: AtomicU64,
    lifetimes: Histogram,
    /// How often the answers have been looked at.
    ticks: AtomicU64,
}

/// An answer that has been watched for so many ticks is told of in the audit log.
const LONG: u64 = 4;

/// Every so many ticks, the sessions of open answers are used.
const KEEP: u64 = 4;

/// By what right an answer is open, and in which sessions.
#[derive(Debug)]
pub(super) struct Right {
    pub(super) permit: Permit,
    /// Until it is watched.
    pub(super) sessions: Vec<SessionKey>,
}

/// One open answer, as its reviewers see it.
#[derive(Debug)]
pub(super) struct Handle {
    permit: Permit,
    sessions: Mutex<Vec<SessionKey>>,
    /// What is known of the token by now.
    grant: ArcSwap<Grant>,
    cut: AtomicU8,
    /// The tick at which it began to be watched.
    since: u64,
    announced: AtomicBool,
    record: Mutex<Option<OpenRecord>>,
    request: Arc<Meter>,
    bytes_out: AtomicU64,
    waker: AtomicWaker,
}

const GOES_ON: u8 = 0;
const REVOKED: u8 = 1;
const EXPIRED: u8 = 2;

impl Streams {
    /// Nothing open yet. Permits are reviewed by `directory`, and what is open keeps its `sessions` in use.
    pub fn new(directory: Arc<ArcSwap<Directory>>, sessions: Sessions) -> Self {
        Self {
            directory,
            sessions,
            open: Mutex::default(),
            next: AtomicU64::new(0),
            ticks: AtomicU64::new(0),
            lifetimes: Histogram::new(Histogram::LIFETIME),
        }
    }

    /// How many answers are open and waiting for the upstream.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// For how long answers that have ended were open, each from its first wait for the upstream.
    pub fn lifetimes(&self) -> &Histogram {
        &self.lifetimes
    }

    /// An answer says in its body which session it is in: that of the user by whose right it is open, unless it is
    /// somebody's already. Says whether it is hers.
    #[must_use]
    pub(super) fn claim(&self, named: Named, right: &mut Right, watched: Option<&Watched>) -> bool {
        let are_hers = self.sessions.claim(&named, right.permit.grant().user());
        match watched {
            _ if !are_hers => {}
            Some(watched) => locked(&watched.leash.0.sessions).extend(named.into_keys()),
            None => right.sessions.extend(named.into_keys()),
        }
        are_hers
    }

    /// Ends every answer whose permit `directory` would no longer give.
    pub fn review(&self, directory: &Directory, now: Timestamp) {
        // reviewed outside the lock, so that requests do not wait for it
        let handles: Vec<_> = self.lock().values().cloned().collect();
        for handle in handles {
            handle.review(directory, now);
        }
    }

    /// Looks at every answer: one whose token has come to its end by itself is ended, one that has been open for a
    /// while is told of in the audit log, and the sessions of all are in use. To be called at equal intervals.
    pub fn tick(&self, now: Timestamp) {
        let ticks = self.ticks.fetch_add(1, Ordering::Relaxed);
        let is_over = |handle: &Handle| handle.grant.load().ends_at().is_some_and(|end| end <= now);
        let is_long = |handle: &Handle| ticks.saturating_sub(handle.since) >= LONG && !handle.is_announced();
        let of_interest = |handle: &&Arc<Handle>| is_over(handle) || is_long(handle);
        let found: Vec<_> = self.lock().values().filter(of_interest).cloned().collect();
        for handle in found {
            if is_over(&handle) {
                handle.cut_for(handle.grant.load().objection(now).unwrap_or(Reason::Expired));
            } else {
                handle.announce();
            }
        }
        if ticks.is_multiple_of(KEEP) {
            let in_sessions = |handle: &&Arc<Handle>| !locked(&handle.sessions).is_empty();
            let found: Vec<_> = self.lock().values().filter(in_sessions).cloned().collect();
            for handle in found {
                self.sessions.keep(&locked(&handle.sessions), handle.permit.grant().user());
            }
        }
    }

    /// Whether a permit that was given a while ago would still be given.
    pub(super) fn confirm(&self, permit: &Permit) -> Result<(), Denial> {
        let directory = self.directory.load();
        let ended = || permit.grant().ends_at().is_some_and(|end| end <= Timestamp::now());
        if directory.generation() == permit.generation() && !ended() {
            return Ok(());
        }
        directory.review(permit, permit.grant(), Timestamp::now()).map(|_| ())
    }

    /// The directory that is in force.
    pub(super) fn directory(&self) -> Arc<Directory> {
        self.directory.load_full()
    }

    /// All open answers by their tokens.
    pub(super) fn by_token(&self) -> HashMap<TokenDigest, Vec<Arc<Handle>>> {
        let mut tokens = HashMap::<_, Vec<_>>::new();
        for handle in self.lock().values() {
            tokens.entry(*handle.permit.digest()).or_default().push(Arc::clone(handle));
        }
        tokens
    }

    /// Begins to watch an answer, and keeps its record meanwhile: a client that does not read must not keep it
    /// from being told of.
    pub(super) fn watch(
        self: &Arc<Self>,
        right: &mut Right,
        record: Option<OpenRecord>,
        request: &Arc<Meter>,
        bytes_out: u64,
    ) -> Watched {
        let permit = &right.permit;
        let handle = Arc::new(Handle {
            permit: permit.clone(),
            sessions: Mutex::new(std::mem::take(&mut right.sessions)),
            grant: ArcSwap::new(Arc::clone(permit.grant())),
            cut: AtomicU8::new(GOES_ON),
            since: self.ticks.load(Ordering::Relaxed),
            announced: AtomicBool::new(false),
            record: Mutex::new(record),
            request: Arc::clone(request),
            bytes_out: AtomicU64::new(bytes_out),
            waker: AtomicWaker::new(),
        });
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(number, Arc::clone(&handle));
        let directory = self.directory.load();
        if directory.generation() != permit.generation() {
            handle.review(&directory, Timestamp::now());
        }
        Watched { leash: Leash(handle), number, since: Instant::now(), streams: Arc::clone(self) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Handle>>> {
        locked(&self.open)
    }
}

/// A panic elsewhere leaves what is inside whole.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Handle {
    fn review(&self, directory: &Directory, now: Timestamp) {
        self.judge(directory, &self.grant.load_full(), now);
    }

    /// Takes in what was found out about the token anew. What cannot be found out ends nothing.
    pub(super) fn renew(&self, directory: &Directory, finding: &Finding, now: Timestamp) {
        match finding {
            Finding::Found(grant) => self.judge(directory, grant, now),
            Finding::Nobody => self.cut(REVOKED),
            Finding::Unavailable => {}
        }
    }

    fn judge(&self, directory: &Directory, known: &Arc<Grant>, now: Timestamp) {
        match directory.review(&self.permit, known, now) {
            Ok(grant) => self.grant.store(Arc::clone(grant)),
            Err(denial) => self.cut_for(denial.reason()),
        }
    }

    fn cut_for(&self, reason: Reason) {
        self.cut(if reason == Reason::Expired { EXPIRED } else { REVOKED });
    }

    fn poll_cut(&self, cx: &Context<'_>) -> Option<Ended> {
        self.waker.register(cx.waker());
        self.ended()
    }

    fn ended(&self) -> Option<Ended> {
        match self.cut.load(Ordering::Acquire) {
            REVOKED => Some(Ended::Revoked),
            EXPIRED => Some(Ended::Expired),
            _ => None,
        }
    }

    fn is_announced(&self) -> bool {
        self.announced.load(Ordering::Relaxed)
    }

    /// Lets the audit log tell of the answer while it goes on.
    fn announce(&self) {
        self.announced.store(true, Ordering::Relaxed);
        if let Some(record) = &mut *locked(&self.record) {
            record.announce(|facts| {
                facts.bytes_in = self.request.bytes();
                facts.bytes_out = self.bytes_out.load(Ordering::Relaxed);
            });
        }
        // who drives it now has to do with a stream that goes on
        self.waker.wake();
    }

    fn cut(&self, why: u8) {
        // the first reason counts
        let _ = self.cut.compare_exchange(GOES_ON, why, Ordering::AcqRel, Ordering::Acquire);
        self.waker.wake();
    }
}

/// An answer as whoever drives it sees it: the task in which its body was asked last, which is woken when
/// the answer is cut.
#[derive(Clone, Debug)]
pub struct Leash(Arc<Handle>);

impl Leash {
    /// Whether the answer has to end; otherwise the task is woken when that changes. The answer's body says
    /// so by itself when it is asked; but nobody asks it as long as the client takes nothing, and a
    /// wake-up for another cause has used up what it left to be woken by.
    pub fn poll_cut(&self, cx: &Context<'_>) -> bool {
        self.0.poll_cut(cx).is_some()
    }
}

/// An answer under watch, until it is dropped.
#[derive(Debug)]
pub(super) struct Watched {
    leash: Leash,
    number: u64,
    since: Instant,
    streams: Arc<Streams>,
}

impl Watched {
    /// Why the answer has to end, if it has; otherwise its task is woken when that changes.
    pub(super) fn poll_cut(&self, cx: &Context<'_>) -> Option<Ended> {
        self.leash.0.poll_cut(cx)
    }

    /// Whether it has been open for so long that the audit log has been told of it.
    pub(super) fn is_announced(&self) -> bool {
        self.leash.0.is_announced()
    }

    /// Lets go of what a stream that goes on has no use for.
    pub(super) fn settle(&self) {
        if let Some(record) = &mut *locked(&self.leash.0.record) {
            record.detach();
        }
    }

    /// Why the answer has to end, as far as is known.
    pub(super) fn ended(&self) -> Option<Ended> {
        self.leash.0.ended()
    }

    pub(super) fn leash(&self) -> &Leash {
        &self.leash
    }

    /// So many bytes have been handed over by now.
    pub(super) fn passed(&self, bytes_out: u64) {
        self.leash.0.bytes_out.store(bytes_out, Ordering::Relaxed);
    }

    /// Writes down facts that have become known.
    pub(super) fn note(&self, facts: impl FnOnce(&mut AuditRecord)) {
        if let Some(record) = &mut *locked(&self.leash.0.record) {
            record.note(facts);
        }
    }

    /// The id of the request that is answered.
    pub(super) fn request_id(&self) -> Option<RequestId> {
        locked(&self.leash.0.record).as_ref().map(OpenRecord::request_id)
    }

    /// The record, which is no longer told of before its end.
    pub(super) fn take_record(&self) -> Option<OpenRecord> {
        locked(&self.leash.0.record).take()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.streams.lock().remove(&self.number);
        self.streams.lifetimes.observe(self.since.elapsed());
    }
}
