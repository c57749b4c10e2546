//! `patgate serve`: the composition root. Everything is built here, in the order in which it can fail.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Exit, diagnostics};
use crate::audit::{self, AuditLog};
use crate::config::{Config, Overrides};
use crate::proxy::{self, Gate};
use crate::server::{self, Admin, Drain, Health, Phase, Server};
use crate::source::{Published, Source};

/// How long the audit log may take to write its last records.
const LAST_WORDS: Duration = Duration::from_secs(5);

pub(super) fn run(overrides: &Overrides) -> Result<(), Exit> {
    let config = Config::load(overrides)?;
    diagnostics::start();
    let source = Source::open(&config.source, &config.policy)?;
    let published = source.published().clone();
    let house = House::open(&config.server, &config.proxy, &config.audit, &published)?;
    let admin = config.admin.as_ref().map(Admin::bind).transpose().map_err(Exit::failure)?;

    house.run(|house| {
        if let Some(admin) = admin {
            tracing::info!(address = %admin.address(), "health is told here");
            let health = Health {
                directory: Arc::clone(&published.directory),
                trouble: Arc::clone(&published.trouble),
                drain: house.drain.clone(),
            };
            tokio::spawn(admin.serve(health));
        }
        tokio::spawn(source.follow(|_| {}));
        let tokens = published.directory.load().grants().count();
        tracing::info!(
            address = %house.server.address(),
            upstream = %config.proxy.upstream.address,
            workers = config.server.workers,
            tokens,
            "listening"
        );
        if tokens == 0 {
            tracing::warn!("the token list is empty: nobody can come in");
        }
    });
    Ok(())
}

/// The running proxy, from the first socket to the last audit record.
pub(super) struct House {
    pub(super) server: Server,
    pub(super) drain: Drain,
    runtime: Runtime,
    audit: AuditLog,
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
        let (audit, writer) =
            AuditLog::open(audit).map_err(|error| Exit::failure(format!("cannot open the audit log: {error}")))?;
        let drain = Drain::default();
        let gate = || Gate::new(proxy, Arc::clone(&published.directory), audit.clone());
        let server = Server::start(server, &drain, gate).map_err(Exit::failure)?;
        Ok(Self { server, drain, runtime, audit, writer, signals })
    }

    /// Runs until a signal says stop, then drains. `begin` is called inside the runtime, at the start.
    pub(super) fn run(self, begin: impl FnOnce(&Self)) {
        let entered = self.runtime.enter();
        begin(&self);
        drop(entered);
        let Self { server, drain, runtime, audit, writer, mut signals } = self;
        let finished = runtime.block_on(async {
            signals.stop().await;
            tracing::info!("draining: no new connections, running requests may finish");
            // readiness changes before the first connection is refused
            drain.advance(Phase::Draining);
            audit.begin_draining();
            server.drain(signals.stop()).await
        });
        if !finished {
            tracing::warn!("the drain deadline has come: what was still running was cut");
        }
        if !writer.finish(LAST_WORDS) {
            tracing::error!("the audit log could not be written to its end");
        }
        tracing::info!(audit_records_lost = audit.lost(), "stopped");
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next one; a second one during the drain cuts it short.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
