//! Where records go: a bounded queue, and a thread of its own that writes them in batches.
//!
//! A request only pushes its record. When the destination blocks or fails, the queue fills up, and
//! what no longer fits is counted as lost; a request never waits for it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use http::Request;
use jiff::Timestamp;

use super::record::{AuditRecord, Event, OpenRecord, RequestId};
use crate::metrics::{Counter, Requests};
use crate::trace::TraceContext;
use crate::verdict::{Ended, Reason};

/// How long the writer lets records gather once it has woken up: fewer wake-ups, larger writes.
const GATHER: Duration = Duration::from_millis(2);

/// Where the log is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Standard output.
    Stdout,
    /// A file, appended to; made with mode 0600 where it does not exist.
    File(PathBuf),
}

/// The settings of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    /// Where it is written.
    pub destination: Destination,
    /// How many records may wait to be written; more are lost and counted.
    pub queue: usize,
}

/// The end of the log that requests hold. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AuditLog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    capacity: usize,
    accepted: Counter,
    lost: AtomicU64,
    requests: Requests,
    draining: AtomicBool,
}

#[derive(Debug, Default)]
struct Queue {
    records: Vec<AuditRecord>,
    closed: bool,
}

impl AuditLog {
    /// Opens the destination and starts the writer.
    ///
    /// # Errors
    /// The file cannot be opened or the thread not started.
    pub fn open(params: &Params) -> io::Result<(Self, Writer)> {
        let sink: Box<dyn Write + Send> = match &params.destination {
            Destination::Stdout => Box::new(io::stdout()),
            Destination::File(path) => Box::new(open_file(path)?),
        };
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            filled: Condvar::new(),
            capacity: params.queue,
            accepted: Counter::default(),
            lost: AtomicU64::new(0),
            requests: Requests::default(),
            draining: AtomicBool::new(false),
        });
        let writing = Arc::clone(&shared);
        let thread = thread::Builder::new().name("audit".to_owned()).spawn(move || writing.write_all(sink))?;
        Ok((Self { shared: Arc::clone(&shared) }, Writer { shared, thread }))
    }

    /// Begins the record of a request that has just arrived.
    pub fn begin<B>(&self, request: &Request<B>, client_ip: Option<IpAddr>) -> OpenRecord {
        self.begin_unread(client_ip, |record| {
            record.method = Some(request.method().clone());
            record.uri = Some(request.uri().clone());
            record.user_agent = request.headers().get(http::header::USER_AGENT).cloned();
            record.trace = Some(TraceContext::of(request.headers()));
        })
    }

    /// Begins the record of something that could not be read as a request.
    pub fn begin_unread(&self, client_ip: Option<IpAddr>, facts: impl FnOnce(&mut AuditRecord)) -> OpenRecord {
        let mut record = AuditRecord {
            at: Timestamp::now(),
            event: Event::Request,
            reason: Reason::Ok,
            request_id: RequestId::draw(),
            trace: None,
            grant: None,
            client_ip,
            user_agent: None,
            method: None,
            uri: None,
            status: None,
            bytes_in: 0,
            bytes_out: 0,
            duration: Duration::ZERO,
            ended: Ended::ClientGone,
            source_revision: None,
        };
        facts(&mut record);
        OpenRecord::new(record, self.clone())
    }

    /// From now on, what ends unfinished was ended by us.
    pub fn begin_draining(&self) {
        self.shared.draining.store(true, Ordering::Relaxed);
    }

    /// What became of all requests.
    pub fn requests(&self) -> &Requests {
        &self.shared.requests
    }

    /// How many records were taken to be written.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.value()
    }

    /// How many records wait to be written.
    pub fn queued(&self) -> usize {
        self.shared.lock().records.len()
    }

    /// How many records have been lost.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    pub(super) fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Relaxed)
    }

    pub(super) fn submit(&self, record: AuditRecord) {
        let mut queue = self.shared.lock();
        if queue.closed || queue.records.len() >= self.shared.capacity {
            drop(queue);
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.records.push(record);
        self.shared.accepted.inc();
        if queue.records.len() == 1 {
            drop(queue);
            self.shared.filled.notify_one();
        }
    }
}

impl Shared {
    /// A panic elsewhere must not end the log: the queue is whole after every statement.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_all(&self, mut sink: Box<dyn Write + Send>) {
        let mut batch = Vec::new();
        let mut text = Vec::new();
        let mut failing = false;
        loop {
            let closed = {
                let waiting = |queue: &mut Queue| queue.records.is_empty() && !queue.closed;
                let queue = self.filled.wait_while(self.lock(), waiting).unwrap_or_else(PoisonError::into_inner);
                queue.closed
            };
            if !closed {
                thread::sleep(GATHER);
            }
            std::mem::swap(&mut self.lock().records, &mut batch);
            if batch.is_empty() && closed {
                return;
            }
            for record in &batch {
                record.write(&mut text);
            }
            match sink.write_all(&text).and_then(|()| sink.flush()) {
                Ok(()) if failing => {
                    failing = false;
                    tracing::info!(lost = self.lost.load(Ordering::Relaxed), "the audit log is written again");
                }
                Ok(()) => {}
                Err(error) => {
                    self.lost.fetch_add(batch.len() as u64, Ordering::Relaxed);
                    if !failing {
                        failing = true;
                        tracing::error!(%error, "the audit log cannot be written: records are lost from now on");
                    }
                }
            }
            batch.clear();
            text.clear();
        }
    }
}

/// The end of the log that the process holds, to see everything written before it exits.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl Writer {
    /// Writes what is queued and ends; waits no longer than `patience`. Returns whether all was written.
    pub fn finish(self, patience: Duration) -> bool {
        self.shared.lock().closed = true;
        self.shared.filled.notify_one();
        let deadline = Instant::now() + patience;
        while !self.thread.is_finished() && Instant::now() < deadline {
            thread::sleep(GATHER);
        }
        self.thread.is_finished()
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}
