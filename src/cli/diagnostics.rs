//! Diagnostics on standard error: readable on a terminal, JSON elsewhere, unless the operator says otherwise.

use std::io::{IsTerminal, stderr};

use tracing::{Level, Metadata};
use tracing_subscriber::filter::{EnvFilter, FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry};

use crate::config::{Diagnostics, Format};

pub(super) fn start(params: &Diagnostics) {
    let readable = match params.format {
        Format::Auto => stderr().is_terminal(),
        Format::Text => true,
        Format::Json => false,
    };
    // it was parsed when the configuration was read
    let filter = EnvFilter::builder().parse_lossy(&params.filter).and(filter_fn(is_discreet));
    let events = fmt::layer().with_writer(stderr);
    // a second start in one process changes nothing
    let _ = if readable {
        registry()
            .with(events.with_target(false).compact().with_ansi(stderr().is_terminal()).with_filter(filter))
            .try_init()
    } else {
        registry().with(events.with_ansi(false).json().flatten_event(true).with_filter(filter)).try_init()
    };
}

/// Our own types keep their secrets to themselves; libraries do not know what is one. h2 writes a malformed
/// `:path` down at `debug`, with its query and a token in it. Whatever the filter says, they are not asked.
fn is_discreet(event: &Metadata<'_>) -> bool {
    *event.level() <= Level::INFO || event.target().starts_with("patgate")
}
