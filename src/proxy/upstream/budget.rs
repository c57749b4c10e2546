//! How much an upstream may say before the head of its answer: interim answers (1xx) have no limit of
//! their own, and one that sends them without end would keep a core busy.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// More than one reading brings, so that the beginning of a body is never taken for a flood.
const BEFORE_THE_HEAD: usize = 1024 * 1024;

/// What is left of it. An answer's body is not bounded.
#[derive(Debug)]
pub(super) struct Budget(AtomicUsize);

const UNBOUNDED: usize = usize::MAX;

impl Budget {
    pub(super) fn await_head(&self) {
        self.0.store(BEFORE_THE_HEAD, Ordering::Relaxed);
    }

    pub(super) fn head_has_come(&self) {
        self.0.store(UNBOUNDED, Ordering::Relaxed);
    }

    pub(super) fn is_used_up(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    fn spend(&self, bytes: usize) -> io::Result<()> {
        let left = self.0.load(Ordering::Relaxed);
        if left != UNBOUNDED {
            self.0.store(left.saturating_sub(bytes), Ordering::Relaxed);
            if bytes >= left {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "too much before the head of an answer"));
            }
        }
        Ok(())
    }
}

/// A connection whose bytes are counted.
#[derive(Debug)]
pub(super) struct Counted<S> {
    stream: S,
    budget: Arc<Budget>,
}

impl<S> Counted<S> {
    pub(super) fn new(stream: S) -> (Self, Arc<Budget>) {
        let budget = Arc::new(Budget(AtomicUsize::new(UNBOUNDED)));
        (Self { stream, budget: Arc::clone(&budget) }, budget)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        Poll::Ready(self.budget.spend(buf.filled().len() - before))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
