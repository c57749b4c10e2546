//! How long a client may keep us waiting: for a request, for the rest of its head, for taking an answer.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::deadline::Deadline;

// --- Writing --------------------------------------------------------------------------------

/// How long a client may let bytes wait. One that has nothing to take is never late.
#[derive(Debug)]
pub(super) struct Writing {
    patience: Duration,
    deadline: Deadline,
}

impl Writing {
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, deadline: Deadline::default() }
    }

    /// What came of an attempt to write, or an error once the attempts have led to nothing for too long.
    pub(super) fn in_time<T>(&mut self, cx: &mut Context<'_>, attempt: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if attempt.is_ready() {
            self.deadline.clear();
            return attempt;
        }
        self.deadline.poll_or_set(cx, self.patience).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

// --- Reading requests -----------------------------------------------------------------------

/// How long a client of HTTP/1.1 may take for the head of a request, and how long it may have none.
#[derive(Debug)]
pub(super) struct Reading {
    /// How many of its requests are being answered: then nothing is expected of it.
    answering: Arc<AtomicUsize>,
    head: Duration,
    idle: Duration,
    expected: Expected,
    /// How long that may take, from the first time that it is waited for.
    patience: Duration,
    deadline: Deadline,
    /// Whether the reader has been woken to hear that its client is late.
    woken: bool,
}

/// What is expected of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Nothing,
    /// A request, some day.
    Request,
    /// The rest of a head that has begun.
    Head,
}

/// What a client was late with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Late {
    /// It had nothing to ask for too long.
    Idle,
    /// It began to ask and did not come to an end.
    Head,
}

impl Reading {
    pub(super) fn new(answering: &Arc<AtomicUsize>, head: Duration, idle: Duration) -> Self {
        let answering = Arc::clone(answering);
        // who has just come has come to ask
        let expected = Expected::Request;
        Self { answering, head, idle, expected, patience: head, deadline: Deadline::default(), woken: false }
    }

    fn is_answering(&self) -> bool {
        self.answering.load(Ordering::Acquire) > 0
    }

    fn expect(&mut self, expected: Expected, patience: Duration) {
        self.expected = expected;
        self.patience = patience;
        self.deadline.clear();
    }

    /// Bytes have come from the client.
    pub(super) fn heard(&mut self) {
        if self.is_answering() {
            self.expected = Expected::Nothing;
        } else if self.expected != Expected::Head {
            self.expect(Expected::Head, self.head);
        }
    }

    /// Bytes have gone to the client: it has asked, and is not idle while it takes an answer.
    pub(super) fn told(&mut self) {
        if self.expected != Expected::Nothing {
            self.expect(Expected::Request, self.idle);
        }
    }

    /// Nothing has come; ready once that has lasted too long.
    pub(super) fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Late> {
        if self.is_answering() {
            self.expected = Expected::Nothing;
            return Poll::Pending;
        }
        if self.expected == Expected::Nothing {
            self.expect(Expected::Request, self.idle);
        }
        ready!(self.deadline.poll_or_set(cx, self.patience));
        Poll::Ready(if self.expected == Expected::Head { Late::Head } else { Late::Idle })
    }

    /// The same outside of an attempt to read: after an answer the HTTP library does not make one, unless
    /// it is woken.
    pub(super) fn watch(&mut self, cx: &mut Context<'_>) {
        if !self.woken && self.poll_late(cx).is_ready() {
            self.woken = true;
            cx.waker().wake_by_ref();
        }
    }
}
