//! `[limits]`, `[rate]`, `[health]` and `[timeouts]`: every bound there is, each with a default that is safe.

use std::time::Duration;

use super::units::{duration, size};
use crate::document::Table;
use crate::proxy::{HealthParams, Rate, RateParams};

/// How many connections there may be if the operator does not say.
pub const CONNECTIONS: u64 = 10_000;

/// `[limits]`: how much of everything there may be.
pub(super) struct Limits {
    pub(super) head: usize,
    pub(super) headers: usize,
    pub(super) body: u64,
    pub(super) body_rate: u64,
    pub(super) inspect: usize,
    pub(super) inspect_answer: usize,
    pub(super) inspect_total: usize,
    pub(super) streams: u32,
    pub(super) streams_per_token: usize,
    pub(super) connections: usize,
    pub(super) connections_per_address: usize,
    pub(super) upstream_idle: usize,
    pub(super) upstream_head: usize,
    pub(super) upstream_headers: usize,
    pub(super) sessions: u64,
    pub(super) bcrypt: usize,
}

/// `[timeouts]`: how long everything may take.
pub(super) struct Timeouts {
    pub(super) handshake: Duration,
    pub(super) head: Duration,
    pub(super) idle: Duration,
    pub(super) body: Duration,
    pub(super) write: Duration,
    pub(super) keep_alive: Duration,
    pub(super) upstream_connect: Duration,
    pub(super) upstream_head: Duration,
    pub(super) upstream_idle: Duration,
    pub(super) answer_idle: Option<Duration>,
    pub(super) session_idle: Duration,
    pub(super) drain: Duration,
}

impl Limits {
    /// Reads the table; of bodies, `audited` bytes are read for the record.
    pub(super) fn read(root: &Table<'_>, audited: usize) -> Self {
        let table = root.table("limits");
        let table = table.as_ref();
        let bytes = |key, default, least| table.and_then(|table| bytes(table, key, least)).unwrap_or(default);
        let number = |key, default| table.and_then(|table| table.number(key, 1..=1_000_000)).unwrap_or(default);
        let (inspect, inspect_answer) = (bytes("inspect", 1024 * 1024, 1), bytes("inspect_answer", 4 * 1024 * 1024, 1));
        let largest = inspect.max(inspect_answer).max(audited as u64);
        // what is not written has room for all that is
        let inspect_total = bytes("inspect_total", largest.max(32 * 1024 * 1024), 1);
        let limits = Self {
            head: in_memory(bytes("head", 32 * 1024, 1024)),
            headers: in_memory(number("headers", 100)),
            body: bytes("body", 64 * 1024 * 1024, 1),
            body_rate: number("body_rate", 500),
            inspect: in_memory(inspect),
            inspect_answer: in_memory(inspect_answer),
            inspect_total: in_memory(inspect_total),
            streams: u32::try_from(number("streams", 128)).unwrap_or(u32::MAX),
            streams_per_token: in_memory(number("streams_per_token", 1000)),
            connections: in_memory(number("connections", CONNECTIONS)),
            connections_per_address: in_memory(number("connections_per_address", 2000)),
            upstream_idle: in_memory(number("upstream_idle", 64)),
            upstream_head: in_memory(bytes("upstream_head", 64 * 1024, 1024)),
            upstream_headers: in_memory(number("upstream_headers", 100)),
            sessions: number("sessions", 100_000),
            bcrypt: in_memory(number("bcrypt", 1)),
        };
        if let Some(table) = table {
            if inspect_total < largest {
                let why = "less than limits.inspect, limits.inspect_answer or audit.inspect";
                let message = format!("{why}: each of them must have room, write {largest} at least");
                table.problem("inspect_total", message);
            }
            table.done();
        }
        limits
    }
}

impl Timeouts {
    pub(super) fn read(root: &Table<'_>) -> Self {
        let table = root.table("timeouts");
        let table = table.as_ref();
        let seconds =
            |key, default| table.and_then(|table| table.parsed(key, duration)).unwrap_or(Duration::from_secs(default));
        let timeouts = Self {
            handshake: seconds("handshake", 10),
            head: seconds("head", 10),
            idle: seconds("idle", 75),
            body: seconds("body", 30),
            write: seconds("write", 30),
            keep_alive: seconds("keep_alive", 30),
            upstream_connect: seconds("upstream_connect", 5),
            upstream_head: seconds("upstream_head", 300),
            upstream_idle: seconds("upstream_idle", 4),
            answer_idle: table.and_then(|table| table.parsed("answer_idle", duration_or_off)).flatten(),
            session_idle: seconds("session_idle", 24 * 60 * 60),
            drain: seconds("drain", 30),
        };
        if let Some(table) = table {
            table.done();
        }
        timeouts
    }
}

/// `[health]`: whether and how the upstream is asked; not at all without the table.
pub(super) fn health(root: &Table<'_>) -> Option<HealthParams> {
    let table = root.table("health")?;
    let path = table.parsed("path", |text| {
        let path = text.parse().ok().filter(|_| text.starts_with('/'));
        path.ok_or_else(|| format!("`{text}` is not a path: write one such as /health"))
    });
    let interval = table.parsed("interval", duration).unwrap_or(Duration::from_secs(10));
    let timeout = table.parsed("timeout", duration).unwrap_or(Duration::from_secs(2));
    table.done();
    Some(HealthParams { path, interval, timeout })
}

/// `[rate]`: how often who may call, and how often anybody may guess.
pub(super) fn rates(root: &Table<'_>) -> RateParams {
    let table = root.table("rate");
    let table = table.as_ref();
    let number = |key| u32::try_from(table?.number(key, 1..=1_000_000)?).ok();
    let (per_token, per_user, burst) = (number("per_token"), number("per_user"), number("burst"));
    let or_off = |key, default| table.map_or(Some(default), |table| number_or_off(table, key, default));
    let guesses = or_off("guesses", 60);
    if let Some(table) = table {
        if burst.is_some() && per_token.is_none() && per_user.is_none() {
            table.problem("burst", "limits nothing by itself: set per_token or per_user");
        }
        table.done();
    }
    let rate = |calls| Rate::per_minute(calls, burst);
    RateParams {
        per_token: per_token.map(rate),
        per_user: per_user.map(rate),
        guesses: guesses.map(|guesses| Rate::per_minute(guesses, None)),
    }
}

/// A number, or `off` for none.
fn number_or_off(table: &Table<'_>, key: &'static str, default: u32) -> Option<u32> {
    let Some(text) = table.text(key) else { return Some(default) };
    if text == "off" {
        return None;
    }
    let number = text.parse().ok().filter(|number| (1..=1_000_000).contains(number));
    if number.is_none() {
        table.problem(key, format!("`{text}` is no number from 1 to 1000000: write one, or \"off\""));
    }
    number
}

fn duration_or_off(text: &str) -> Result<Option<Duration>, String> {
    if text == "off" { Ok(None) } else { duration(text).map(Some) }
}

/// A size of `least` bytes or more.
pub(super) fn bytes(table: &Table<'_>, key: &'static str, least: u64) -> Option<u64> {
    let size = size(&table.text(key)?).map_err(|why| table.problem(key, why)).ok()?;
    if size < least {
        table.problem(key, format!("{size} bytes are too few: write {least} at least"));
    }
    Some(size)
}

/// What does not fit into the memory of this machine is no limit in it.
pub(super) fn in_memory(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
