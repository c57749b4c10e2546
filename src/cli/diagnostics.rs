//! Diagnostics on standard error: readable on a terminal, JSON elsewhere. `PATGATE_LOG` sets the
//! level, `info` by default.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

pub(super) fn start() {
    // the demonstration's own MCP library tells more than its users want to know
    let asked = std::env::var("PATGATE_LOG").unwrap_or_else(|_| "info,rmcp=warn".to_owned());
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).parse_lossy(asked);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).with_target(false);
    // a second start in one process changes nothing
    let _ = if stderr().is_terminal() {
        builder.compact().try_init()
    } else {
        builder.with_ansi(false).json().flatten_event(true).try_init()
    };
}
