//! Connections, and those of them that wait for their next exchange.

use std::cell::RefCell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, timeout};

use crate::deadline::Deadline;
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
    /// By when the head of an answer has to be there; kept, so that each exchange need not register a timer.
    deadline: Deadline,
}

impl Connection {
    pub(super) fn new(socket: Box<dyn Socket>, open: Held) -> Self {
        Self { socket, open, deadline: Deadline::default() }
    }

    pub(super) fn socket(&mut self) -> &mut Box<dyn Socket> {
        &mut self.socket
    }

    /// The socket, and the deadline of what is read from it.
    pub(super) fn in_time(&mut self) -> (&mut Box<dyn Socket>, &mut Deadline) {
        (&mut self.socket, &mut self.deadline)
    }

    /// The socket, and what counts it as open.
    pub(super) fn into_parts(self) -> (Box<dyn Socket>, Held) {
        (self.socket, self.open)
    }

    /// Whether nothing has come since the last answer: neither the end, nor bytes that could be taken for
    /// an answer to what was not asked yet. If so, whatever comes next will wake `keeper`.
    pub(super) fn is_quiet(&mut self, keeper: &Waker) -> bool {
        let mut byte = [0];
        let look = poll_fn(|cx| Pin::new(&mut self.socket).poll_read(cx, &mut ReadBuf::new(&mut byte)));
        // a task that has used up its share of time is told that nothing has come, whatever has
        pin!(unconstrained(look)).poll(&mut Context::from_waker(keeper)).is_pending()
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
        // nothing has been kept for longer by then: the oldest is first, and what comes meanwhile is younger
        let mut rest = patience;
        loop {
            let _ = timeout(rest, noticed.0.notified()).await;
            let Some(pool) = pool.upgrade() else { return };
            let now = Instant::now();
            let is_fresh = |since: Instant| now.duration_since(since) < patience;
            let mut idle = pool.lock();
            idle.retain_mut(|(since, connection)| is_fresh(*since) && connection.is_quiet(&pool.keeper));
            let kept = idle.first().map_or(Duration::ZERO, |(since, _)| now.duration_since(*since));
            rest = patience.saturating_sub(kept);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Instant, Connection)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
    use tokio::task::coop::poll_proceed;
    use tokio::time::{advance, sleep};

    use super::*;
    use crate::metrics::Level;

    const PATIENCE: Duration = Duration::from_secs(4);

    /// A connection, and the upstream's end of it.
    fn connection() -> (Connection, DuplexStream) {
        let (socket, upstream) = duplex(64);
        (Connection::new(Box::new(socket), Arc::<Level>::default().hold()), upstream)
    }

    /// Puts a new connection into the pool; this is the upstream's end of it.
    fn put(pool: &Arc<Pool>) -> DuplexStream {
        let (connection, upstream) = connection();
        pool.put(connection);
        upstream
    }

    async fn is_closed(upstream: &mut DuplexStream) -> bool {
        matches!(upstream.read(&mut [0]).await, Ok(0))
    }

    /// Whoever keeps the pool has had no turn yet: nobody but who takes a connection can notice it.
    #[tokio::test]
    async fn what_an_upstream_said_unasked_is_nobodys_answer() {
        let pool = Arc::new(Pool::new(8, PATIENCE));
        let (mut quiet, mut talking, mut ended) = (put(&pool), put(&pool), put(&pool));
        talking.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nstolen").await.unwrap();
        ended.shutdown().await.unwrap();
        let mut taken = pool.take(Instant::now()).unwrap();
        taken.socket().write_all(b"asked").await.unwrap();
        let mut asked = [0; 5];
        quiet.read_exact(&mut asked).await.unwrap();
        assert_eq!(&asked, b"asked");
        assert!(is_closed(&mut talking).await && is_closed(&mut ended).await);
        assert!(pool.take(Instant::now()).is_none());
    }

    #[tokio::test]
    async fn a_task_that_has_used_up_its_time_is_not_told_that_a_connection_is_quiet() {
        let pool = Arc::new(Pool::new(8, PATIENCE));
        let mut talking = put(&pool);
        talking.write_all(b"x").await.unwrap();
        poll_fn(|cx| {
            while let Poll::Ready(share) = poll_proceed(cx) {
                share.made_progress();
            }
            Poll::Ready(())
        })
        .await;
        assert!(pool.take(Instant::now()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_patience_is_borne() {
        let pool = Arc::new(Pool::new(8, Duration::MAX));
        let (_quiet, mut talking) = (put(&pool), put(&pool));
        sleep(PATIENCE).await;
        talking.write_all(b"x").await.unwrap();
        assert!(is_closed(&mut talking).await);
        assert_eq!(pool.lock().len(), 1);
    }

    #[tokio::test]
    async fn what_was_said_too_much_keeps_a_connection_out_of_the_pool() {
        let pool = Arc::new(Pool::new(8, PATIENCE));
        let (connection, mut upstream) = connection();
        upstream.write_all(b"x").await.unwrap();
        pool.put(connection);
        assert!(pool.lock().is_empty());
        assert!(is_closed(&mut upstream).await);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_to_hear_what_an_unused_connection_brings() {
        let pool = Arc::new(Pool::new(8, PATIENCE));
        let (_quiet, mut talking) = (put(&pool), put(&pool));
        let since = Instant::now();
        talking.write_all(b"x").await.unwrap();
        assert!(is_closed(&mut talking).await);
        assert_eq!((since.elapsed(), pool.lock().len()), (Duration::ZERO, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn an_unused_connection_is_kept_for_its_time_and_no_longer() {
        let pool = Arc::new(Pool::new(8, PATIENCE));
        for pause in [0, 1, 1500, 3999, 7000] {
            // at any moment of the round of whoever keeps the pool, and with younger ones above it
            sleep(Duration::from_millis(pause)).await;
            let mut oldest = (Instant::now(), put(&pool));
            sleep(PATIENCE / 2).await;
            let mut younger = (Instant::now(), put(&pool));
            for (since, upstream) in [&mut oldest, &mut younger] {
                assert!(is_closed(upstream).await);
                let kept = since.elapsed();
                assert!((PATIENCE..PATIENCE * 101 / 100).contains(&kept), "{kept:?} after a pause of {pause} ms");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_past_its_time_is_not_taken_even_before_it_is_closed() {
        let pool = Arc::new(Pool::new(8, PATIENCE));
        let _upstream = put(&pool);
        advance(PATIENCE).await;
        assert!(pool.take(Instant::now()).is_none());
    }
}
