//! Diagnostics on standard error: readable on a terminal, JSON elsewhere. `PATGATE_LOG` sets the
//! level, `info` by default.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

pub(super) fn start() {
    let filter = EnvFilter::builder()
        .with_env_var("PATGATE_LOG")
        .with_default_directive(LevelFilter::INFO.into())
        .from_env_lossy();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).with_target(false);
    // a second start in one process changes nothing
    let _ = if stderr().is_terminal() {
        builder.compact().try_init()
    } else {
        builder.with_ansi(false).json().flatten_event(true).try_init()
    };
}
