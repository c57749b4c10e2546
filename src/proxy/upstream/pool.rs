//! Connections that wait for their next exchange, and the lease by which one is held meanwhile.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;

use super::connect::Driven;
use crate::metrics::Held;
use crate::proxy::body::{Inbound, Meter};

/// One connection. Dropping it closes the socket at once, whatever is in flight.
#[derive(Debug)]
pub(super) struct Connection {
    driven: Driven<Inbound>,
    _open: Held,
}

impl Connection {
    pub(super) fn new(driven: Driven<Inbound>, open: Held) -> Self {
        Self { driven, _open: open }
    }
}

/// The unused connections of one worker, the latest on top: under little load the others age and go.
#[derive(Debug)]
pub(super) struct Pool {
    idle: Mutex<Vec<(Instant, Connection)>>,
    capacity: usize,
    patience: Duration,
}

impl Pool {
    pub(super) fn new(capacity: usize, patience: Duration) -> Self {
        Self { idle: Mutex::default(), capacity, patience }
    }

    /// The freshest connection that is not known to be closed.
    pub(super) fn take(&self) -> Option<Connection> {
        let mut idle = self.lock();
        let (since, connection) = idle.pop()?;
        if since.elapsed() >= self.patience {
            // every other one is older still
            idle.clear();
            return None;
        }
        Some(connection)
    }

    fn put(&self, connection: Connection) {
        let now = Instant::now();
        let mut idle = self.lock();
        let stale = idle.iter().take_while(|(since, _)| now.duration_since(*since) >= self.patience).count();
        idle.drain(..stale);
        if idle.len() < self.capacity {
            idle.push((now, connection));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Instant, Connection)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection in use. It is closed when the lease is dropped, unless it was given back before.
#[derive(Debug)]
pub(crate) struct Lease {
    connection: Connection,
    pool: Arc<Pool>,
    patience: Option<Duration>,
}

impl Lease {
    pub(super) fn new(connection: Connection, pool: &Arc<Pool>) -> Self {
        Self { connection, pool: Arc::clone(pool), patience: None }
    }

    /// Sets how long the answer may pause.
    pub(super) fn with_patience(self, patience: Option<Duration>) -> Self {
        Self { patience, ..self }
    }

    /// How long the answer may pause, if there is a limit.
    pub(in crate::proxy) fn patience(&self) -> Option<Duration> {
        self.patience
    }

    /// Sends a request; the error carries it back if none of it was written.
    pub(super) async fn send(
        &mut self,
        request: Request<Inbound>,
    ) -> Result<Response<Incoming>, (hyper::Error, Option<Request<Inbound>>)> {
        let Driven { sender, budget, .. } = &mut self.connection.driven;
        if let Err(closed) = sender.ready().await {
            return Err((closed, Some(request)));
        }
        budget.await_head();
        let response = sender.try_send_request(request).await.map_err(|mut error| {
            let untouched = error.take_message();
            (error.into_error(), untouched)
        })?;
        budget.head_has_come();
        Ok(response)
    }

    /// Whether the upstream said too much before the head of its answer.
    pub(super) fn is_flooded(&self) -> bool {
        self.connection.driven.budget.is_used_up()
    }

    /// Ends the exchange after the whole answer. The connection is of further use only if the request
    /// went out whole: an upstream that answers early leaves the rest of it in the way.
    pub(in crate::proxy) fn give_back(self, request: &Meter) {
        if request.is_whole() && !self.connection.driven.sender.is_closed() {
            self.pool.put(self.connection);
        }
    }
}
