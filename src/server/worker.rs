//! The workers: one thread, one runtime, one socket and one pool each, so that a request never
//! leaves its core.

use std::fmt::Display;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::connection::{self, Limits, Service};
use super::counts::Counts;
use super::drain::{Drain, Phase};
use super::listener::{self, BindError, Bound, ListenAddress, Listener};
use super::occupancy::Occupancy;
use super::proxy_protocol;
use super::stream::Transport;
use crate::metrics::Held;
use crate::proxy::{Gate, Peer, TrustedProxies};
use crate::tls::Live;

/// How long accepting rests after a failure, such as having no descriptors left.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// How often that is told while it lasts.
const TELL_AGAIN: Duration = Duration::from_mins(1);

/// How long cut connections get to be gone by themselves.
const CUT: Duration = Duration::from_millis(500);

/// The settings of the listening side.
#[derive(Clone, Debug)]
pub struct Params {
    /// Where clients come in.
    pub listen: ListenAddress,
    /// A certificate, to speak TLS there.
    pub tls: Option<Live<ServerConfig>>,
    /// How many threads serve.
    pub workers: usize,
    /// How many connections there may be in total.
    pub max_connections: usize,
    /// How many of them may come from one address, unless a trusted proxy has it.
    pub max_connections_per_address: usize,
    /// The proxies in front that are believed.
    pub trusted_proxies: TrustedProxies,
    /// Whether these begin each connection with a header of the PROXY protocol.
    pub proxy_protocol: bool,
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
    /// The file of our Unix socket.
    file: Option<PathBuf>,
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
        let (sockets, address) = listener::bind(&params.listen, params.workers, params.limits.keep_alive)?;
        if params.tls.is_some() && sockets.iter().any(|socket| matches!(socket, Bound::Unix(_))) {
            return Err(BindError::NotForTls);
        }
        let failed = |error| BindError::Failed(address.clone(), error);
        let (alive, running) = mpsc::channel(1);
        let occupancy = Occupancy::new(params.max_connections, params.max_connections_per_address);
        let mut threads = Vec::new();
        let counts = Arc::<Counts>::default();
        for (index, socket) in sockets.into_iter().enumerate() {
            let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
            let service = Arc::new(Service {
                gate: gate(),
                tls: params.tls.clone(),
                limits: params.limits.clone(),
                drain: drain.clone(),
                counts: Arc::clone(&counts),
                occupancy: occupancy.clone(),
                proxies: params.trusted_proxies.clone(),
                proxy_protocol: params.proxy_protocol,
            });
            let alive = alive.clone();
            let thread = thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                if let Err(error) = run(runtime, work(socket, service)) {
                    tracing::error!(%error, "a worker cannot listen");
                }
                drop(alive);
            });
            threads.push(thread.map_err(failed)?);
        }
        let file = if let ListenAddress::Unix(path) = &address { Some(path.clone()) } else { None };
        Ok(Self { address, drain: drain.clone(), drain_timeout: params.drain_timeout, threads, file, running, counts })
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
    pub async fn drain(&mut self, hurry: impl Future<Output = ()>) -> bool {
        // as long as it is ours: another process may take the place as soon as nobody listens there
        self.remove_file();
        self.drain.advance(Phase::Draining);
        let finished = tokio::select! {
            _ = self.running.recv() => true,
            () = sleep(self.drain_timeout) => false,
            () = hurry => false,
        };
        self.drain.advance(Phase::Over);
        finished
    }

    /// Waits, after the drain, until the workers have let go of all that was cut. Every request has its record then.
    pub async fn gone(mut self) {
        // nothing is ever sent
        let _ = self.running.recv().await;
        for thread in self.threads.drain(..) {
            // a worker's panic has been reported by the panic hook
            let _ = thread.join();
        }
    }

    fn remove_file(&mut self) {
        if let Some(path) = self.file.take() {
            // a socket that stays behind is taken over by the next process
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.remove_file();
    }
}

/// Works, then lets go of all that is left, but waits for nothing that blocks: a name may be resolved for minutes.
fn run<T>(runtime: Runtime, work: impl Future<Output = T>) -> T {
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    done
}

async fn work(socket: Bound, service: Arc<Service>) -> io::Result<()> {
    let listener = Listener::new(socket)?;
    let (open, mut all_closed) = mpsc::channel::<()>(1);
    let mut trouble = Trouble::default();
    loop {
        let accepted = tokio::select! {
            () = service.drain.reached(Phase::Draining) => break,
            accepted = accept(&listener, &service, &mut trouble) => accepted,
        };
        let (transport, peer, place) = accepted;
        let (service, open) = (Arc::clone(&service), open.clone());
        service.counts.accepted.inc();
        tokio::spawn(async move {
            welcome(transport, peer, service).await;
            drop((open, place));
        });
    }
    drop((listener, open));
    tokio::select! {
        _ = all_closed.recv() => {}
        // connections cut themselves at this point; what is left then ends with the runtime
        () = async { service.drain.reached(Phase::Over).await; sleep(CUT).await } => {}
    }
    Ok(())
}

/// Takes in the next connection, and waits until it can be served. Meanwhile no other is taken in.
async fn accept(listener: &Listener, service: &Service, trouble: &mut Trouble) -> (Transport, Peer, Held) {
    let (transport, peer) = loop {
        match listener.accept().await {
            Ok(accepted) => break accepted,
            Err(error) => trouble.rest(service, error).await,
        }
    };
    loop {
        match service.gate.descriptors().for_client() {
            Some(place) => return (transport, peer, place),
            None => trouble.rest(service, "as many are open as there are descriptors for").await,
        }
    }
}

/// What keeps connections from being accepted, as having no descriptors left.
#[derive(Debug, Default)]
struct Trouble {
    told: Option<Instant>,
}

impl Trouble {
    async fn rest(&mut self, service: &Service, error: impl Display) {
        service.counts.not_accepted.inc();
        // descriptors may be short for hours, or again and again
        if self.told.is_none_or(|told| told.elapsed() >= TELL_AGAIN) {
            self.told = Some(Instant::now());
            tracing::error!(%error, "connections cannot be accepted: trying again and again");
        }
        sleep(ACCEPT_BACKOFF).await;
    }
}

/// Finds a place for a new connection, sees it through what comes before its first request, and serves it.
async fn welcome(mut transport: Transport, peer: Peer, service: Arc<Service>) {
    let is_tls = service.tls.is_some() && matches!(transport, Transport::Tcp(_));
    let Some(mut seat) = service.occupancy.enter() else {
        return connection::turn_away(transport, peer, is_tls, &service).await;
    };
    let before_requests = async {
        let peer = if service.proxy_protocol && service.proxies.trust(peer.ip) {
            let told = proxy_protocol::read(&mut transport).await.ok()?;
            Peer { ip: told.or(peer.ip), names_nobody: told.is_none(), ..peer }
        } else {
            peer
        };
        // a proxy stands for many clients
        if let Some(ip) = peer.ip.filter(|_| !service.proxies.trust(peer.ip))
            && !seat.count_for(ip)
        {
            connection::turn_away(transport, peer, is_tls, &service).await;
            return None;
        }
        match (transport, &service.tls) {
            (Transport::Tcp(stream), Some(tls)) => {
                // scanners and cut lines fail here every day: that is no event
                let shaken = Box::pin(TlsAcceptor::from(tls.current()).accept(stream)).await;
                let stream = shaken.inspect_err(|_| service.counts.handshakes_failed.inc()).ok()?;
                Some((Transport::Tls(Box::new(stream)), Peer { secure: true, ..peer }))
            }
            (transport, _) => Some((transport, peer)),
        }
    };
    let ready = tokio::select! {
        () = service.drain.reached(Phase::Draining) => return,
        ready = timeout(service.limits.handshake_timeout, before_requests) => ready,
    };
    match ready {
        Ok(Some((transport, peer))) => connection::serve(transport, peer, service).await,
        Ok(None) => {}
        Err(_) => service.counts.handshakes_failed.inc(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::task::spawn_blocking;

    use super::*;

    #[test]
    fn a_worker_ends_with_its_tasks_and_without_what_blocks() {
        let runtime = Builder::new_current_thread().build().unwrap();
        let (blocked, release) = mpsc::channel::<()>();
        let (open, gone) = mpsc::channel::<()>();
        let (done, ended) = mpsc::channel();
        thread::spawn(move || {
            run(runtime, async {
                spawn_blocking(move || release.recv());
                tokio::spawn(async move {
                    let _open = open;
                    std::future::pending::<()>().await;
                });
            });
            done.send(())
        });
        assert!(ended.recv_timeout(Duration::from_secs(20)).is_ok(), "it waits for what blocks");
        assert_eq!(gone.try_recv(), Err(mpsc::TryRecvError::Disconnected), "what was open has been let go of");
        blocked.send(()).unwrap();
    }
}
