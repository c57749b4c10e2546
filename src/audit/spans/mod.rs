//! One span for each request that has ended, exported over OTLP: what its audit record says, and when.
//!
//! A request only offers its record and never waits. A thread of its own makes spans of them and sends them; while
//! the collector is away, the queue fills up, and what no longer fits is dropped and counted.

mod export;
mod span;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use http::{HeaderMap, Uri};
use rustls::ClientConfig;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};

use self::export::Exporting;
use super::record::{AuditRecord, Event};
use crate::metrics::Counter;
use crate::token::Prefix;
use crate::trace::TraceContext;

/// How long the last spans may take to be sent at the end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The settings of the export.
#[derive(Clone, Debug)]
pub struct Params {
    /// Where spans are sent. Nothing in it is secret.
    pub endpoint: Uri,
    /// Trust, where the way there is by TLS.
    pub tls: ClientConfig,
    /// A file with more headers, a line each. It is read again each time.
    pub headers_file: Option<PathBuf>,
    /// How many records may wait to be sent.
    pub queue: usize,
}

/// The export, as requests see it.
#[derive(Debug)]
pub(super) struct Spans {
    queue: Option<mpsc::Sender<AuditRecord>>,
    dropped: Arc<Counter>,
}

/// The export, as the end of the process sees it.
#[derive(Debug)]
pub(super) struct Exporter {
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

/// Starts the export; without settings, there is none.
pub(super) fn open(params: Option<&Params>, prefix: &Prefix) -> io::Result<(Spans, Exporter)> {
    let dropped = Arc::<Counter>::default();
    let Some(params) = params else { return Ok((Spans { queue: None, dropped }, Exporter { running: None })) };
    let (queue, records) = mpsc::channel(params.queue);
    let (stop, stopped) = oneshot::channel();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (params, prefix, counted) = (params.clone(), prefix.clone(), Arc::clone(&dropped));
    let thread = thread::Builder::new().name("spans".to_owned()).spawn(move || {
        runtime.block_on(Exporting::new(params, prefix, records, counted).run(stopped));
        // a name that is still being resolved is not waited for
        runtime.shutdown_background();
    })?;
    Ok((Spans { queue: Some(queue), dropped }, Exporter { running: Some((stop, thread)) }))
}

impl Spans {
    /// Has a span made of a request that has ended, if somebody above records its trace.
    pub(super) fn offer(&self, record: &AuditRecord) {
        let Some(queue) = &self.queue else { return };
        if record.event == Event::Request
            && record.trace.is_some_and(|trace| trace.is_sampled())
            && queue.try_send(record.clone()).is_err()
        {
            self.dropped.inc();
        }
    }

    /// What a span has to say of the client's `tracestate`.
    pub(super) fn state(&self, trace: TraceContext, headers: &HeaderMap) -> Option<Box<str>> {
        self.queue.as_ref().filter(|_| trace.is_sampled()).and_then(|_| trace.state_list(headers))
    }

    /// How many spans were dropped.
    #[expect(clippy::unnecessary_wraps, reason = "a program that is built without spans drops none")]
    pub(super) fn dropped(&self) -> Option<u64> {
        Some(self.dropped.value())
    }
}

impl Exporter {
    /// Has what waits sent; returns by when that is over.
    pub(super) fn stop(self) -> Ending {
        let thread = self.running.map(|(stop, thread)| {
            // whoever does not listen any more has ended
            let _ = stop.send(());
            thread
        });
        Ending { thread, deadline: Instant::now() + LAST_WORDS }
    }
}

/// The end of the export.
#[derive(Debug)]
pub(super) struct Ending {
    thread: Option<JoinHandle<()>>,
    deadline: Instant,
}

impl Ending {
    /// Waits for it, in bounded time.
    pub(super) fn wait(self) {
        /// How often it is looked for.
        const LOOK: Duration = Duration::from_millis(2);

        while self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) && Instant::now() < self.deadline {
            thread::sleep(LOOK);
        }
    }
}
