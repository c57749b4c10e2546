//! The end of the log that requests hold: a bounded queue in front of the [writer](super::writer).
//!
//! A request only writes its record into memory and never waits. When the destination blocks or fails, the queue
//! fills up, and what no longer fits is lost and counted; or else, if the operator chose so, nothing is
//! forwarded for which there is no room.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use http::Request;
use jiff::Timestamp;

use super::by_token::ByToken;
use super::record::{AuditRecord, Event, OpenRecord, RequestId};
use super::spans::{self, Exporter, Spans};
use super::writer::Writing;
use crate::metrics::{Counter, Requests};
use crate::token::Prefix;
use crate::trace::TraceContext;
use crate::verdict::{Ended, Reason};

/// Room for the line of a usual record, in bytes.
const USUAL_LINE: usize = 1024;

/// Where the log is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Standard output.
    Stdout,
    /// A file, appended to; made with mode 0600 where it does not exist.
    File(PathBuf),
}

/// When a file is set aside and a new one begun.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    /// Once it has this many bytes.
    pub size: Option<u64>,
    /// Once it is so old.
    pub age: Option<Duration>,
    /// How many of those set aside are kept; the oldest are removed. None: all.
    pub keep: Option<usize>,
}

/// What happens to requests when records cannot be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnLoss {
    /// They are served; records that have waited too long, or do not fit into the queue, are lost and counted.
    #[default]
    Count,
    /// They are refused, until records can be written again.
    Refuse,
}

/// The settings of the log.
#[derive(Clone, Debug)]
pub struct Params {
    /// Where it is written.
    pub destination: Destination,
    /// How many records may wait to be written.
    pub queue: usize,
    /// What happens when they cannot.
    pub on_loss: OnLoss,
    /// How long they wait for a destination that fails, under [`OnLoss::Count`].
    pub patience: Duration,
    /// When a file is set aside.
    pub rotation: Rotation,
    /// Whether each record carries a number and a hash over the one before.
    pub chain: bool,
    /// How tokens made here begin, which do not belong into a log.
    pub prefix: Prefix,
    /// Whether requests are counted by token as well.
    pub by_token: bool,
    /// Where a span is sent for each request, if it is.
    pub spans: Option<spans::Params>,
}

/// The log, as requests see it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AuditLog {
    shared: Arc<Shared>,
}

/// What requests and the writer share.
#[derive(Debug)]
pub(super) struct Shared {
    queue: Mutex<Queue>,
    pub(super) filled: Condvar,
    capacity: usize,
    accepted: Counter,
    on_loss: OnLoss,
    /// The destination failed when it was last tried.
    pub(super) failing: AtomicBool,
    lost: AtomicU64,
    requests: Requests,
    by_token: Option<ByToken>,
    draining: AtomicBool,
    prefix: Prefix,
    spans: Spans,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Records as lines.
    pub(super) text: Vec<u8>,
    /// How many they are.
    pub(super) records: usize,
    /// Records that the writer has taken and not yet written.
    pub(super) in_flight: usize,
    /// Room for the records of requests that are still running; kept only under [`OnLoss::Refuse`].
    reserved: usize,
    /// What was lost since the log last told of it.
    pub(super) missing: Option<Missing>,
    /// The file may have been moved.
    pub(super) reopen: bool,
    /// No more records come, and what is there is to be written until then.
    pub(super) closed: Option<Instant>,
}

/// Records that were lost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Missing {
    pub(super) count: u64,
    pub(super) since: Timestamp,
}

impl Queue {
    fn occupied(&self) -> usize {
        self.records + self.in_flight + self.reserved
    }

    /// Whether there is nothing left to do for the writer.
    pub(super) fn is_done(&self) -> bool {
        self.closed.is_some() && self.records == 0 && self.missing.is_none()
    }

    /// Counts lost records; whether they are the first since the log last told of any.
    fn lose(&mut self, count: u64) -> bool {
        let first = self.missing.is_none();
        let missing = self.missing.get_or_insert_with(|| Missing { count: 0, since: Timestamp::now() });
        missing.count += count;
        first
    }
}

impl AuditLog {
    /// Opens the destination and starts the writer.
    ///
    /// # Errors
    /// The file cannot be opened or the thread not started.
    pub fn open(params: &Params) -> io::Result<(Self, Writer)> {
        let (spans, exporter) = spans::open(params.spans.as_ref(), &params.prefix)?;
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            filled: Condvar::new(),
            capacity: params.queue,
            accepted: Counter::default(),
            on_loss: params.on_loss,
            failing: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            requests: Requests::default(),
            by_token: params.by_token.then(ByToken::default),
            draining: AtomicBool::new(false),
            prefix: params.prefix.clone(),
            spans,
        });
        let writing = Writing::open(params, Arc::clone(&shared))?;
        let thread = thread::Builder::new().name("audit".to_owned()).spawn(move || writing.run())?;
        Ok((Self { shared: Arc::clone(&shared) }, Writer { shared, thread, exporter }))
    }

    /// Begins the record of a request that has just arrived.
    pub fn begin<B>(&self, request: &Request<B>, client_ip: Option<IpAddr>, secure: bool) -> OpenRecord {
        self.begin_unread(client_ip, |record| {
            record.method = Some(request.method().clone());
            record.uri = Some(request.uri().clone());
            record.user_agent = request.headers().get(http::header::USER_AGENT).cloned();
            let trace = TraceContext::of(request.headers());
            record.trace = Some(trace);
            record.trace_state = self.shared.spans.state(trace, request.headers());
            record.secure = Some(secure);
        })
    }

    /// Begins the record of something that could not be read as a request.
    pub fn begin_unread(&self, client_ip: Option<IpAddr>, facts: impl FnOnce(&mut AuditRecord)) -> OpenRecord {
        let mut record = Box::new(AuditRecord {
            at: Timestamp::now(),
            event: Event::Request,
            reason: Reason::Ok,
            request_id: RequestId::draw(),
            trace: None,
            trace_state: None,
            grant: None,
            client_ip,
            secure: None,
            user_agent: None,
            mcp: None,
            session: None,
            policy_rule: None,
            would_deny: false,
            method: None,
            uri: None,
            status: None,
            bytes_in: 0,
            bytes_out: 0,
            duration: Duration::ZERO,
            ended: Ended::ClientGone,
            source_revision: None,
        });
        facts(&mut record);
        OpenRecord::new(record, self.clone(), self.shared.reserve())
    }

    /// From now on, what ends unfinished was ended by us.
    pub fn begin_draining(&self) {
        self.shared.draining.store(true, Ordering::Relaxed);
    }

    /// What became of all requests.
    pub fn requests(&self) -> &Requests {
        &self.shared.requests
    }

    /// The same for each token, if the operator wants that.
    pub fn by_token(&self) -> Option<&ByToken> {
        self.shared.by_token.as_ref()
    }

    /// How many records were taken to be written.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.value()
    }

    /// How many records wait to be written.
    pub fn queued(&self) -> usize {
        let queue = self.shared.lock();
        queue.records + queue.in_flight
    }

    /// Looks whether the file was moved or removed, and if so begins a new one.
    pub fn reopen(&self) {
        self.shared.lock().reopen = true;
        self.shared.filled.notify_one();
    }

    /// How many records have been lost.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// How many spans were dropped, in a program that was built to send them.
    pub fn spans_dropped(&self) -> Option<u64> {
        self.shared.spans.dropped()
    }

    pub(super) fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Relaxed)
    }

    /// Hands a record to the writer; `reserved` tells whether there is room for it in any case.
    pub(super) fn submit(&self, record: &AuditRecord, reserved: bool) {
        let shared = &*self.shared;
        shared.spans.offer(record);
        let mut line = Vec::with_capacity(USUAL_LINE);
        record.write(&mut line, &shared.prefix);
        let mut queue = shared.lock();
        if reserved {
            queue.reserved -= 1;
        }
        if queue.closed.is_some() || queue.occupied() >= shared.capacity {
            shared.lose(queue, 1);
            return;
        }
        queue.text.extend_from_slice(&line);
        queue.records += 1;
        self.shared.accepted.inc();
        if queue.records == 1 {
            drop(queue);
            shared.filled.notify_one();
        }
    }
}

impl Shared {
    /// A panic elsewhere must not end the log: the queue is whole after every statement.
    pub(super) fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lose(&self, mut queue: MutexGuard<'_, Queue>, count: u64) {
        let first = queue.lose(count);
        drop(queue);
        self.lost.fetch_add(count, Ordering::Relaxed);
        if first {
            // all room may be kept for requests that still run, and no record be coming
            self.filled.notify_one();
            tracing::error!("audit records are lost from now on, and counted");
        }
    }

    /// Records are not kept any longer: so many that the writer has taken are lost, and all that wait for it.
    /// What it was about to tell of earlier losses is told later.
    pub(super) fn give_up(&self, taken: usize, untold: Option<Missing>) {
        let mut queue = self.lock();
        queue.in_flight = 0;
        queue.text = Vec::new();
        let count = (taken + std::mem::take(&mut queue.records)) as u64;
        if let Some(Missing { count, since }) = untold {
            let missing = queue.missing.get_or_insert(Missing { count: 0, since });
            missing.count += count;
            missing.since = missing.since.min(since);
        }
        if count > 0 {
            self.lose(queue, count);
        }
    }

    /// Keeps room for the record of a request that now begins. `None`: the operator wants no request
    /// served without a record, and there is no room or the destination fails. `Some(false)`: no room
    /// needs to be kept.
    fn reserve(&self) -> Option<bool> {
        if self.on_loss == OnLoss::Count {
            return Some(false);
        }
        if self.failing.load(Ordering::Relaxed) {
            return None;
        }
        let mut queue = self.lock();
        let free = queue.occupied() < self.capacity;
        queue.reserved += usize::from(free);
        free.then_some(true)
    }
}

/// The end of the log that the process holds, to see everything written before it exits.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
    exporter: Exporter,
}

impl Writer {
    /// Writes what is queued and ends; waits no longer than `patience`. Returns whether all was written;
    /// what was not counts as lost.
    pub fn finish(self, patience: Duration) -> bool {
        /// How often the end of the writer is looked for.
        const LOOK: Duration = Duration::from_millis(2);

        let ending = self.exporter.stop();
        let deadline = Instant::now() + patience;
        self.shared.lock().closed = Some(deadline);
        self.shared.filled.notify_one();
        while !self.thread.is_finished() && Instant::now() < deadline {
            thread::sleep(LOOK);
        }
        ending.wait();
        let queue = self.shared.lock();
        let unwritten = queue.records + queue.in_flight;
        self.shared.lost.fetch_add(unwritten as u64, Ordering::Relaxed);
        unwritten == 0
    }
}
