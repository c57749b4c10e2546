//! Connections, and those of them that wait for their next exchange.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::metrics::Held;

/// How much is read at once where it is not known how much comes, in bytes.
const SOME: usize = 32 * 1024;

/// From this much on, what was read is handed on where it lies; less is copied, so that it does not hold so much
/// memory, in bytes.
const MUCH: usize = 8 * 1024;

thread_local! {
    /// Where a worker reads to: a connection that waits holds no buffer.
    static ROOM: RefCell<BytesMut> = RefCell::default();
}

/// What a connection runs over: TCP, TLS over it, or a Unix socket.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

impl fmt::Debug for dyn Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Socket")
    }
}

/// One connection. Dropping it closes the socket at once, whatever is in flight.
#[derive(Debug)]
pub(super) struct Connection {
    socket: Box<dyn Socket>,
    open: Held,
}

impl Connection {
    pub(super) fn new(socket: Box<dyn Socket>, open: Held) -> Self {
        Self { socket, open }
    }

    pub(super) fn socket(&mut self) -> &mut Box<dyn Socket> {
        &mut self.socket
    }

    /// The socket, and what counts it as open.
    pub(super) fn into_parts(self) -> (Box<dyn Socket>, Held) {
        (self.socket, self.open)
    }

    /// Whether nothing has come since the last answer: neither the end, nor bytes that could be taken for
    /// an answer to what was not asked yet. If so, whatever comes next will wake `keeper`.
    fn is_quiet(&mut self, keeper: &Waker) -> bool {
        let mut byte = [0];
        let cx = &mut Context::from_waker(keeper);
        Pin::new(&mut self.socket).poll_read(cx, &mut ReadBuf::new(&mut byte)).is_pending()
    }
}

/// Reads what is there. Says how much it was.
pub(super) fn read_some<R: AsyncRead + Unpin>(
    cx: &mut Context<'_>,
    reader: &mut R,
    buffer: &mut BytesMut,
) -> Poll<io::Result<usize>> {
    ROOM.with_borrow_mut(|room| {
        // what has been handed on and used up is taken back by this
        room.reserve(SOME);
        let length = ready!(pin!(reader.read_buf(room)).poll(cx))?;
        if buffer.is_empty() && length >= MUCH {
            *buffer = room.split();
        } else {
            buffer.extend_from_slice(room);
            room.clear();
        }
        Poll::Ready(Ok(length))
    })
}

/// The unused connections of one worker, the latest on top: under little load the others age and go.
#[derive(Debug)]
pub(super) struct Pool {
    idle: Mutex<Vec<(Instant, Connection)>>,
    capacity: usize,
    patience: Duration,
    /// Wakes whoever closes unused connections on which something has come, mostly their end.
    keeper: Waker,
    noticed: Arc<Notice>,
    kept: Once,
}

#[derive(Debug, Default)]
struct Notice(Notify);

impl Wake for Notice {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

impl Pool {
    pub(super) fn new(capacity: usize, patience: Duration) -> Self {
        let noticed = Arc::<Notice>::default();
        let keeper = Waker::from(Arc::clone(&noticed));
        Self { idle: Mutex::default(), capacity, patience, keeper, noticed, kept: Once::new() }
    }

    /// The freshest connection that is not known to be closed at this moment.
    pub(super) fn take(&self, now: Instant) -> Option<Connection> {
        let mut idle = self.lock();
        while let Some((since, mut connection)) = idle.pop() {
            if now.saturating_duration_since(since) >= self.patience {
                // every other one is older still
                idle.clear();
            } else if connection.is_quiet(&self.keeper) {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection for another exchange. It has to be called within the worker's runtime.
    pub(super) fn put(self: &Arc<Self>, mut connection: Connection) {
        self.kept.call_once(|| {
            let (pool, noticed) = (Arc::downgrade(self), Arc::clone(&self.noticed));
            drop(tokio::spawn(Self::keep(pool, noticed, self.patience)));
        });
        let now = Instant::now();
        let mut idle = self.lock();
        let stale = idle.iter().take_while(|(since, _)| now.duration_since(*since) >= self.patience).count();
        idle.drain(..stale);
        if idle.len() < self.capacity && connection.is_quiet(&self.keeper) {
            idle.push((now, connection));
        }
    }

    /// Closes what is of no use any more, even if this worker has nothing more to do.
    async fn keep(pool: Weak<Self>, noticed: Arc<Notice>, patience: Duration) {
        loop {
            let _ = timeout(patience, noticed.0.notified()).await;
            let Some(pool) = pool.upgrade() else { return };
            let now = Instant::now();
            let is_fresh = |since: Instant| now.duration_since(since) < patience;
            pool.lock().retain_mut(|(since, connection)| is_fresh(*since) && connection.is_quiet(&pool.keeper));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Instant, Connection)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
