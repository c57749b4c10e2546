//! The workers: one thread, one runtime, one socket and one pool each, so that a request never
//! leaves its core.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::connection::{self, Limits, Service};
use super::counts::Counts;
use super::drain::{Drain, Phase};
use super::listener::{self, BindError, Bound, ListenAddress, Listener};
use super::stream::Transport;
use crate::proxy::{Gate, Peer};
use crate::tls::Live;

/// How long accepting rests after a failure, such as having no descriptors left.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// How long cut connections get to be gone.
const CUT: Duration = Duration::from_secs(1);

/// The settings of the listening side.
#[derive(Clone, Debug)]
pub struct Params {
    /// Where clients come in.
    pub listen: ListenAddress,
    /// A certificate, to speak TLS there.
    pub tls: Option<Live<ServerConfig>>,
    /// How many threads serve.
    pub workers: usize,
    /// The bounds of each connection.
    pub limits: Limits,
    /// How long running requests may take to finish once the process is told to stop.
    pub drain_timeout: Duration,
}

/// The running workers.
#[derive(Debug)]
pub struct Server {
    address: ListenAddress,
    drain: Drain,
    drain_timeout: Duration,
    threads: Vec<JoinHandle<()>>,
    /// Closed when the last worker has ended.
    running: mpsc::Receiver<()>,
    counts: Arc<Counts>,
}

impl Server {
    /// Binds the address and starts the workers, each with a gate of its own.
    ///
    /// # Errors
    /// The address cannot be had, or a thread not started.
    pub fn start(params: &Params, drain: &Drain, gate: impl Fn() -> Gate) -> Result<Self, BindError> {
        let (sockets, address) = listener::bind(&params.listen, params.workers)?;
        let failed = |error| BindError::Failed(address.clone(), error);
        let (alive, running) = mpsc::channel(1);
        let mut threads = Vec::new();
        let counts = Arc::<Counts>::default();
        for (index, socket) in sockets.into_iter().enumerate() {
            let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
            let service = Service {
                gate: gate(),
                limits: params.limits.clone(),
                drain: drain.clone(),
                counts: Arc::clone(&counts),
            };
            let tls = params.tls.clone();
            let alive = alive.clone();
            let thread = thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                if let Err(error) = runtime.block_on(work(socket, tls, Arc::new(service))) {
                    tracing::error!(%error, "a worker cannot listen");
                }
                drop(alive);
            });
            threads.push(thread.map_err(failed)?);
        }
        Ok(Self { address, drain: drain.clone(), drain_timeout: params.drain_timeout, threads, running, counts })
    }

    /// The address that clients can use: with the port that the system chose, if it was asked to.
    pub fn address(&self) -> &ListenAddress {
        &self.address
    }

    /// What is counted of connections.
    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// Ends the service: nothing new comes in, what runs may finish until the deadline or until
    /// `hurry` is heard, and is cut then. Returns whether everything had finished by itself.
    pub async fn drain(mut self, hurry: impl Future<Output = ()>) -> bool {
        self.drain.advance(Phase::Draining);
        let finished = tokio::select! {
            _ = self.running.recv() => true,
            () = sleep(self.drain_timeout) => false,
            () = hurry => false,
        };
        self.drain.advance(Phase::Over);
        let gone = timeout(CUT, self.running.recv()).await.is_ok();
        if gone {
            for thread in self.threads.drain(..) {
                // a worker's panic has been reported by the panic hook
                let _ = thread.join();
            }
        }
        finished
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let ListenAddress::Unix(path) = &self.address {
            // a socket that stays behind is taken over by the next process
            let _ = std::fs::remove_file(path);
        }
    }
}

async fn work(socket: Bound, tls: Option<Live<ServerConfig>>, service: Arc<Service>) -> io::Result<()> {
    let listener = Listener::new(socket)?;
    let (open, mut all_closed) = mpsc::channel::<()>(1);
    loop {
        let accepted = tokio::select! {
            () = service.drain.reached(Phase::Draining) => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((transport, peer)) => {
                let tls = tls.as_ref().map(|tls| TlsAcceptor::from(tls.current()));
                let (service, open) = (Arc::clone(&service), open.clone());
                service.counts.accepted.inc();
                let counted = service.counts.open.hold();
                tokio::spawn(async move {
                    welcome(transport, peer, tls, service).await;
                    drop((open, counted));
                });
            }
            Err(error) => {
                service.counts.not_accepted.inc();
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    drop((listener, open));
    tokio::select! {
        _ = all_closed.recv() => {}
        // connections cut themselves at this point; what is left then ends with the runtime
        () = async { service.drain.reached(Phase::Over).await; sleep(CUT / 2).await } => {}
    }
    Ok(())
}

/// Sees a new connection through its handshake, if it has one, and serves it.
async fn welcome(transport: Transport, peer: Peer, tls: Option<TlsAcceptor>, service: Arc<Service>) {
    match (transport, tls) {
        (Transport::Tcp(stream), Some(tls)) => {
            let shaken = tokio::select! {
                () = service.drain.reached(Phase::Draining) => return,
                shaken = timeout(service.limits.handshake_timeout, tls.accept(stream)) => shaken,
            };
            // scanners and cut lines fail here every day: that is no event
            let Ok(Ok(stream)) = shaken else { return service.counts.handshakes_failed.inc() };
            let peer = Peer { secure: true, ..peer };
            connection::serve(Transport::Tls(Box::new(stream)), peer, service).await;
        }
        (transport, _) => connection::serve(transport, peer, service).await,
    }
}
