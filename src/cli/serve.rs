//! `patgate serve`: the composition root. Everything is built here, in the order in which it can fail.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::{Exit, diagnostics, notify};
use crate::audit::{self, AuditLog};
use crate::config::{self, Config, Overrides};
use crate::descriptors::Descriptors;
use crate::proxy::{self, Gate, Hints, InFlight, Probe, Rates, Sessions, Streams};
use crate::server::{self, Admin, Drain, Health, Phase, Scrape, Server};
use crate::source::{Origin, Published, Source};
use crate::watch::Reload;

/// How often open streams are looked at: for an expired token, and for having lasted long.
const TICK: Duration = Duration::from_millis(250);

/// How long what was cut at the end of the drain may take to be gone, and the last use of tokens, meanwhile, to be
/// written. On a busy machine it takes a while to let go of thousands of streams, and each has a record.
const GONE: Duration = Duration::from_secs(5);

/// How long the audit log may take after that to be written to its end.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How long the process takes at the most, whatever file hangs, to end after its drain. Whoever kills it sooner may
/// cost audit records. Diagnostics that nobody takes from standard error are not counted in.
pub const AFTER_DRAIN: Duration = GONE.saturating_add(LAST_WORDS);

pub(super) fn run(overrides: &Overrides) -> Result<(), Exit> {
    let started_at = Timestamp::now();
    let config = Config::load(overrides)?;
    diagnostics::start(&config.diagnostics);
    raise_descriptor_limit();
    let mut source = Source::open(&config.source, &config.policy)?;
    if let Some(problem) = config.source.origin.missing_bearer_file() {
        tracing::warn!(%problem, "the token source cannot be asked yet");
    }
    let published = source.published().clone();
    let house = House::open(&config.server, &config.proxy, &config.audit, &published)?;
    let admin = config.admin.as_ref().map(Admin::bind).transpose();
    let admin = admin.map_err(|error| Exit::failure(format!("admin: {error}")))?;
    compare_limits(&house.shared.descriptors, &config.server);

    house.run(|house, vital| {
        let certificates = follow_certificates(&config, &house.reload);
        tokio::spawn(reopen(house.reload.clone(), house.shared.audit.clone()));
        let upstream = follow_upstream(&config);
        if let Some(admin) = admin {
            tracing::info!(address = %admin.address(), "health is told here");
            let health = Health {
                directory: Arc::clone(&published.directory),
                trouble: Arc::clone(&published.trouble),
                certificates,
                upstream,
                drain: house.drain.clone(),
            };
            let scrape = Scrape {
                health,
                reloads: Arc::clone(&published.reloads),
                proxy: house.shared.clone(),
                connections: Arc::clone(house.server.counts()),
                started_at,
            };
            tokio::spawn(admin.serve(scrape));
        }
        let last_words = source.take_last_used().map(|last_used| {
            let drain = house.drain.clone();
            tokio::spawn(last_used.keep(async move { drain.reached(Phase::Over).await }))
        });
        let streams = Arc::clone(&house.shared.streams);
        if matches!(config.source.origin, Origin::Lookup(_)) {
            vital.spawn(proxy::renew(Arc::clone(&streams), published.finder.clone()));
        }
        let reload = house.reload.clone();
        vital.spawn(async move {
            source.follow(&reload, move |directory| streams.review(directory, Timestamp::now())).await;
        });
        let tokens = published.directory.load().grants().count();
        tracing::info!(
            address = %house.server.address(),
            upstream = %config.proxy.upstream.address,
            workers = config.server.workers,
            source = %config.source.origin,
            tokens,
            "listening"
        );
        notify::notify(notify::READY);
        if tokens == 0 && matches!(config.source.origin, Origin::File(_)) {
            tracing::warn!("the token list is empty: nobody can come in");
        }
        last_words
    })
}

/// Follows the files of TLS on both sides; returns where their troubles are told.
fn follow_certificates(config: &Config, reload: &Reload) -> Vec<Arc<ArcSwapOption<String>>> {
    let poll = config.source.poll;
    let mut troubles = Vec::new();
    if let Some(live) = &config.server.tls {
        troubles.push(Arc::clone(live.trouble()));
        tokio::spawn(live.clone().follow(poll, reload.clone()));
    }
    if let Some(tls) = &config.proxy.upstream.tls {
        troubles.push(Arc::clone(tls.live().trouble()));
        tokio::spawn(tls.live().clone().follow(poll, reload.clone()));
    }
    troubles
}

/// Asks the upstream whether it is well, if the operator wants that; returns where its trouble is told.
fn follow_upstream(config: &Config) -> Option<Arc<ArcSwapOption<String>>> {
    let probe = Probe::new(&config.proxy.upstream, config.proxy.upstream_host.as_ref(), config.health.as_ref()?);
    let trouble = Arc::clone(probe.trouble());
    tokio::spawn(probe.follow());
    Some(trouble)
}

/// Lets this process have as many descriptors as the system allows: each client needs two.
fn raise_descriptor_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_err() {
        tracing::warn!(?current, ?maximum, "the limit of open files cannot be raised");
    }
}

/// Tells the operator if clients will have to wait sooner than the configuration says.
fn compare_limits(descriptors: &Descriptors, params: &server::Params) {
    const MESSAGE: &str = "limits.connections is more than the limit of open files allows, and more clients will have \
                           to wait: raise that limit (LimitNOFILE= of systemd, ulimit -Hn), or lower limits.connections";

    let [max_connections, per_address] =
        [params.max_connections, params.max_connections_per_address].map(|most| most as u64);
    let clients_at_most = descriptors.most_clients();
    if clients_at_most >= max_connections {
        return;
    }
    if clients_at_most <= per_address {
        tracing::warn!(
            clients_at_most,
            "limits.connections_per_address is as many as the limit of open files allows in all, so that one client can \
             keep all others waiting: raise that limit, or lower limits.connections_per_address"
        );
    }
    // nobody has asked for as many as the default
    if max_connections == config::CONNECTIONS {
        tracing::info!(clients_at_most, "{MESSAGE}");
    } else {
        tracing::warn!(clients_at_most, "{MESSAGE}");
    }
}

/// The running proxy, from the first socket to the last audit record.
pub(super) struct House {
    pub(super) server: Server,
    pub(super) drain: Drain,
    /// The operator's word that files are to be read again.
    reload: Reload,
    shared: proxy::Shared,
    runtime: Runtime,
    writer: audit::Writer,
    signals: Signals,
}

impl House {
    /// Opens the audit log and the doors.
    pub(super) fn open(
        server: &server::Params,
        proxy: &proxy::Params,
        audit: &audit::Params,
        published: &Published,
    ) -> Result<Self, Exit> {
        let cannot_start = |error: io::Error| Exit::failure(format!("cannot start: {error}"));
        let runtime = Builder::new_current_thread().enable_all().build().map_err(cannot_start)?;
        // before anybody can be told to stop us
        let signals = runtime.block_on(async { Signals::new() }).map_err(cannot_start)?;
        let (audit, writer) = AuditLog::open(audit).map_err(|error| {
            let place = match &audit.destination {
                audit::Destination::Stdout => "standard output".to_owned(),
                audit::Destination::File(path) => path.display().to_string(),
            };
            Exit::failure(format!("audit.path: cannot open the audit log {place}: {error}"))
        })?;
        let drain = Drain::default();
        let sessions = Sessions::new(&proxy.sessions);
        let shared = proxy::Shared {
            directory: Arc::clone(&published.directory),
            finder: published.finder.clone(),
            upstream: Arc::default(),
            streams: Arc::new(Streams::new(Arc::clone(&published.directory), sessions.clone())),
            sessions,
            hints: Hints::default(),
            budget: proxy.reading.budget(),
            rates: Rates::new(&proxy.rates),
            in_flight: InFlight::new(proxy.streams_per_token),
            descriptors: Descriptors::default(),
            audit,
        };
        let server = Server::start(server, &drain, || Gate::new(proxy, &shared));
        let server = server.map_err(|error| Exit::failure(format!("listen: {error}")))?;
        shared.descriptors.note_others();
        Ok(Self { server, drain, reload: Reload::default(), shared, runtime, writer, signals })
    }

    /// Runs until a signal says stop, then drains. `begin` is called inside the runtime, at the start;
    /// the task that it returns, if any, is waited for at the end. What it adds to the set never ends: without
    /// it, tokens would be good for ever.
    ///
    /// # Errors
    /// One of the set has ended, and so has the process.
    pub(super) fn run(self, begin: impl FnOnce(&Self, &mut JoinSet<()>) -> Option<JoinHandle<()>>) -> Result<(), Exit> {
        let mut vital = JoinSet::new();
        let entered = self.runtime.enter();
        let last_words = begin(&self, &mut vital);
        vital.spawn(look_after(Arc::clone(&self.shared.streams)));
        drop(entered);
        let Self { mut server, drain, reload, shared: proxy::Shared { audit, .. }, runtime, writer, mut signals } =
            self;
        let (failed, finished) = runtime.block_on(async {
            let failed = tokio::select! {
                () = signals.serve_until_stop(&reload) => false,
                ended = vital.join_next() => {
                    tracing::error!(?ended, "what ends revoked and expired tokens has failed, and this process ends");
                    true
                }
            };
            notify::notify(notify::STOPPING);
            // readiness changes before the first connection is refused
            drain.advance(Phase::Draining);
            audit.begin_draining();
            tracing::info!("draining: no new connections, running requests may finish");
            // streams that nobody could end any more do not go on meanwhile
            let hurry = async {
                if !failed {
                    signals.stop().await;
                }
            };
            let finished = server.drain(hurry).await;
            let all_gone = async {
                server.gone().await;
                if let Some(last_words) = last_words {
                    // whatever they were, they have been said
                    let _ = last_words.await;
                }
            };
            let _ = timeout(GONE, all_gone).await;
            (failed, finished)
        });
        if !finished {
            tracing::warn!("the drain deadline has come: what was still running was cut");
        }
        if !writer.finish(LAST_WORDS) {
            tracing::error!("the audit log could not be written to its end");
        }
        // a file that hangs is no reason to stay
        runtime.shutdown_background();
        tracing::info!(audit_records_lost = audit.lost(), "stopped");
        // told above
        if failed { Err(Exit::negative()) } else { Ok(()) }
    }
}

/// Ends streams whose tokens come to their end, by the wall clock and whatever it does.
async fn look_after(streams: Arc<Streams>) {
    loop {
        sleep(TICK).await;
        streams.tick(Timestamp::now());
    }
}

/// Has the audit log's file opened anew whenever the operator says so, as logrotate wants it.
async fn reopen(reload: Reload, audit: AuditLog) {
    let mut told = reload.listen();
    loop {
        told.next().await;
        audit.reopen();
    }
}

/// SIGTERM and SIGINT, which end the process, and SIGHUP, which has files read again.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Hands each SIGHUP on, until the process is to end.
    async fn serve_until_stop(&mut self, reload: &Reload) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {
                    tracing::info!("SIGHUP: files are read again");
                    notify::notify(&notify::reloading());
                    reload.tell();
                    notify::notify(notify::READY);
                }
            }
        }
    }

    /// Waits for the next one; a second one during the drain cuts it short.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Directory, Policy};

    #[test]
    fn without_what_ends_tokens_the_process_ends() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("patgate.toml");
        let log = folder.path().join("audit.jsonl");
        let text = format!(
            "listen = \"127.0.0.1:0\"\nupstream = \"http://127.0.0.1:9\"\nworkers = 1\n\
             [audit]\npath = {log:?}\n[tokens]\nfile = \"tokens.toml\"\n"
        );
        std::fs::write(&file, text).unwrap();
        std::fs::write(folder.path().join("tokens.toml"), "").unwrap();
        let config = Config::load(&Overrides { config: Some(file), ..Overrides::default() }).unwrap();
        let published = Published::fixed(Directory::unavailable(&Arc::new(Policy::default())));
        let house = || House::open(&config.server, &config.proxy, &config.audit, &published).unwrap();
        let done = house().run(|_, vital| {
            vital.spawn(async {});
            None
        });
        assert_eq!(done.unwrap_err().code, 1);
        let done = house().run(|_, vital| {
            vital.spawn(async { panic!("for the test") });
            None
        });
        assert_eq!(done.unwrap_err().code, 1);
    }
}
