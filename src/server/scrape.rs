//! Every metric that there is, gathered from its owner when somebody asks.
//!
//! Names and labels are documented in `docs/metrics.md`, which a test compares with a real scrape. All
//! label values come from closed sets, and all of them are there from the start; token ids appear only if
//! the operator asks for them.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::admin::Health;
use super::counts::Counts;
use super::drain::Phase;
use crate::access::{Directory, Grant};
use crate::audit::ByToken;
use crate::metrics::{self, Page, Process};
use crate::proxy::Shared;
use crate::source::Reloads;
use crate::token::TokenId;
use crate::verdict::{Outcome, Reason};

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// Whom to ask for what.
#[derive(Clone, Debug)]
pub struct Scrape {
    /// Whether the process can serve, and what is wrong if not.
    pub health: Health,
    /// How new token lists came into force.
    pub reloads: Arc<Reloads>,
    /// What all gates share.
    pub proxy: Shared,
    /// Clients' connections.
    pub connections: Arc<Counts>,
    /// When the process started.
    pub started_at: Timestamp,
}

impl Scrape {
    /// The page. It looks at every token of the list, which may take its time.
    pub(super) fn text(&self) -> String {
        let this = self.clone();
        // writing into memory does not fail
        metrics::write(move |page| this.tell(page)).unwrap_or_default()
    }

    fn tell(&self, page: &mut Page<'_>) -> fmt::Result {
        self.requests(page)?;
        self.upstream(page)?;
        self.connections(page)?;
        self.tokens(page)?;
        self.source(page)?;
        self.audit(page)?;
        self.process(page)
    }

    fn requests(&self, page: &mut Page<'_>) -> fmt::Result {
        let requests = self.proxy.audit.requests();
        page.counters(
            "requests_total",
            "Requests whose exchange has ended, by verdict.",
            requests.by_reason().map(|(reason, count)| {
                let outcome: &str = reason.outcome().into();
                ([("outcome", outcome), ("reason", reason.into())], count)
            }),
        )?;
        page.counters(
            "requests_ended_total",
            "The same requests, by how their exchange ended.",
            requests.by_end().map(|(ended, count)| ([("ended", <&str>::from(ended))], count)),
        )?;
        page.histograms(
            "request_duration_seconds",
            "From the head of a request to the head of its answer.",
            requests.durations().map(|(outcome, durations)| ([("outcome", <&str>::from(outcome))], durations)),
        )?;
        let (bytes_in, bytes_out) = requests.bytes();
        page.counter("request_bytes_total", "Bytes of requests' bodies.", bytes_in)?;
        page.counter("response_bytes_total", "Bytes of answers' bodies.", bytes_out)?;
        page.gauge("open_streams", "Answers that wait for the MCP server to go on.", self.proxy.streams.count())?;
        let lifetimes = self.proxy.streams.lifetimes();
        page.histogram("stream_duration_seconds", "For how long answers were open that had to wait.", lifetimes)
    }

    fn upstream(&self, page: &mut Page<'_>) -> fmt::Result {
        let upstream = &self.proxy.upstream;
        page.histogram(
            "upstream_duration_seconds",
            "From sending a request to the MCP server to the head of its answer.",
            &upstream.answered,
        )?;
        page.counters(
            "upstream_failures_total",
            "Requests to the MCP server without an answer that can be passed on.",
            upstream.by_trouble().map(|(trouble, count)| ([("reason", <&str>::from(trouble))], count)),
        )?;
        page.gauge(
            "upstream_connections",
            "Open connections to the MCP server.",
            self.proxy.descriptors.upstream.value(),
        )?;
        let connected = upstream.connected.value();
        page.counter("upstream_connections_total", "Connections made to the MCP server.", connected)
    }

    fn connections(&self, page: &mut Page<'_>) -> fmt::Result {
        let Counts { accepted, not_accepted, refused, handshakes_failed } = &*self.connections;
        page.gauge("open_connections", "Clients' open connections.", self.proxy.descriptors.clients.value())?;
        page.gauge("held_bytes", "What is held back of bodies to be read.", self.proxy.budget.taken() as u64)?;
        page.counter("connections_total", "Clients' connections that were accepted.", accepted.value())?;
        page.counter(
            "connection_failures_total",
            "Attempts to accept clients' connections that failed, or were put off for want of descriptors.",
            not_accepted.value(),
        )?;
        page.counter(
            "refused_connections_total",
            "Clients' connections for which there was no place.",
            refused.value(),
        )?;
        page.counter(
            "tls_handshake_failures_total",
            "Clients' TLS handshakes that failed or took too long.",
            handshakes_failed.value(),
        )
    }

    fn tokens(&self, page: &mut Page<'_>) -> fmt::Result {
        let directory = self.proxy.directory.load_full();
        let tokens = Tokens::of(&directory, Timestamp::now());
        page.gauges(
            "tokens",
            "Tokens of the list, by how they stand.",
            TOKEN_STATES.iter().zip(tokens.states).map(|((status, _), count)| ([("status", *status)], count)),
        )?;
        page.gauge("tokens_never_used", "Active tokens that were never used.", tokens.never_used)?;
        page.gauge("tokens_used_last_day", "Active tokens that were used within 24 hours.", tokens.used_last_day)?;
        page.gauge(
            "tokens_expiring_within_30_days",
            "Active tokens that expire within 30 days.",
            tokens.expiring_within_30_days,
        )?;
        page.gauge("sessions", "MCP sessions whose user is remembered.", self.proxy.sessions.count())?;
        match self.proxy.audit.by_token() {
            Some(by_token) => token_ids(page, &directory, by_token),
            None => Ok(()),
        }
    }

    fn source(&self, page: &mut Page<'_>) -> fmt::Result {
        let Reloads { tokens, deny_list, durations, lags, .. } = &*self.reloads;
        page.gauge(
            "token_list_generation",
            "The number of the state of the token list that is in force.",
            self.proxy.directory.load().generation().0,
        )?;
        if let Some(age) = self.reloads.age() {
            let help = "Since the token list in force was known to be what the source says.";
            page.gauge("token_list_age_seconds", help, age.as_secs_f64())?;
        }
        page.gauge(
            "token_source_troubled",
            "1 while the token source or the deny list cannot be read.",
            u64::from(self.health.trouble.load().is_some()),
        )?;
        let results = [("tokens", tokens), ("deny_list", deny_list)].into_iter().flat_map(|(list, results)| {
            let labels = |result| [("list", list), ("result", result)];
            [(labels("success"), results.succeeded.value()), (labels("failure"), results.failed.value())]
        });
        page.counters("reloads_total", "New states of a list that came into force, and that did not.", results)?;
        let help = "From the bytes of a token list to its being in force.";
        page.histogram("reload_duration_seconds", help, durations)?;
        let help = "From a change being noticed to every request and every open stream going by it.";
        page.histogram("revocation_lag_seconds", help, lags)?;
        let caches: Vec<_> = self.proxy.finder.counts().collect();
        page.counters(
            "cache_requests_total",
            "Questions about a token, by whether the answer was known.",
            caches.iter().flat_map(|(cache, counts)| {
                let labels = |result| [("cache", *cache), ("result", result)];
                [(labels("hit"), counts.hits), (labels("miss"), counts.misses)]
            }),
        )?;
        page.gauges(
            "cache_entries",
            "Answers that are kept: findings, and that there was nothing to find.",
            caches.iter().flat_map(|(cache, counts)| {
                let labels = |kind| [("cache", *cache), ("kind", kind)];
                [(labels("found"), counts.found), (labels("nothing"), counts.nothing)]
            }),
        )
    }

    fn audit(&self, page: &mut Page<'_>) -> fmt::Result {
        let audit = &self.proxy.audit;
        page.counter("audit_records_total", "Audit records that were taken to be written.", audit.accepted())?;
        page.counter("audit_records_lost_total", "Audit records that were lost.", audit.lost())?;
        page.gauge("audit_queue_records", "Audit records that wait to be written.", audit.queued())?;
        match audit.spans_dropped() {
            Some(dropped) => page.counter("spans_dropped_total", "Spans that were not exported.", dropped),
            None => Ok(()),
        }
    }

    fn process(&self, page: &mut Page<'_>) -> fmt::Result {
        let draining = self.health.drain.phase() >= Phase::Draining;
        page.gauge("ready", "1 while /readyz says so.", u64::from(self.health.readiness().is_ok()))?;
        page.gauge("draining", "1 while the process is about to end.", u64::from(draining))?;
        page.gauge(
            "certificates_troubled",
            "1 while a file of TLS cannot be used and the one before is.",
            u64::from(self.health.certificates.iter().any(|trouble| trouble.load().is_some())),
        )?;
        let build = [([("version", env!("CARGO_PKG_VERSION"))], 1)];
        page.gauges("build_info", "Which build this is; the value is always 1.", build)?;
        let started = self.started_at.as_duration().as_secs_f64();
        page.gauge("process_start_time_seconds", "When the process started, in Unix time.", started)?;
        let process = Process::measure();
        let cpu = process.cpu.as_secs_f64();
        page.counter("process_cpu_seconds_total", "Processor time that the process has taken.", cpu)?;
        if let Some(bytes) = process.resident_memory {
            page.gauge("process_resident_memory_bytes", "Memory of the process that is resident.", bytes)?;
        }
        if let Some(open) = process.open_fds {
            page.gauge("process_open_fds", "Open file descriptors.", open)?;
        }
        match process.max_fds {
            Some(max) => page.gauge("process_max_fds", "How many file descriptors may be open.", max),
            None => Ok(()),
        }
    }
}

/// How a token can stand, and what a directory then has against it.
const TOKEN_STATES: [(&str, Reason); 7] = [
    ("active", Reason::Ok),
    ("revoked", Reason::Revoked),
    ("expired", Reason::Expired),
    ("not_yet_valid", Reason::NotYetValid),
    ("suspended", Reason::UserSuspended),
    ("user_unknown", Reason::UserUnknown),
    ("over_max_lifetime", Reason::LifetimeExceeded),
];

/// The tokens of a list, counted.
#[derive(Debug, Default)]
struct Tokens {
    states: [u64; TOKEN_STATES.len()],
    never_used: u64,
    used_last_day: u64,
    expiring_within_30_days: u64,
}

impl Tokens {
    fn of(directory: &Directory, now: Timestamp) -> Self {
        let mut tokens = Self::default();
        for (grant, reason) in directory.judged(now) {
            for ((_, state), count) in TOKEN_STATES.iter().zip(&mut tokens.states) {
                *count += u64::from(*state == reason);
            }
            if reason == Reason::Ok {
                let used = grant.last_used();
                tokens.never_used += u64::from(used.is_none());
                tokens.used_last_day += u64::from(used.is_some_and(|at| now.duration_since(at) <= DAY));
                let soon = grant.expires_at().is_some_and(|end| end.duration_since(now) <= DAY * 30);
                tokens.expiring_within_30_days += u64::from(soon);
            }
        }
        tokens
    }
}

/// The tokens that were used last, one by one, and what became of their requests.
fn token_ids(page: &mut Page<'_>, directory: &Directory, by_token: &ByToken) -> fmt::Result {
    let mut used: Vec<(u64, &Grant)> = directory
        .grants()
        .filter_map(|grant| Some((u64::try_from(grant.last_used()?.as_second()).ok()?, &**grant)))
        .collect();
    used.sort_unstable_by_key(|(at, grant)| (std::cmp::Reverse(*at), grant.token_id()));
    used.truncate(ByToken::CAPACITY.try_into().unwrap_or(usize::MAX));
    page.gauges(
        "token_last_used_timestamp_seconds",
        "When a token was used last, in Unix time.",
        used.into_iter().map(|(at, grant)| ([("token_id", grant.token_id().as_str())], at)),
    )?;
    // a token that has left the list takes its counters with it; without a list, nobody can tell which have
    if directory.is_list() {
        let listed: HashSet<&TokenId> = directory.grants().map(|grant| grant.token_id()).collect();
        let gone = by_token.counts().filter(|(token, _)| !listed.contains(&**token));
        gone.for_each(|(token, _)| by_token.forget(&token));
    }
    let counts: Vec<_> = by_token.counts().collect();
    page.counters(
        "token_requests_total",
        "Requests whose exchange has ended, by token and outcome.",
        counts.iter().flat_map(|(token, outcomes)| {
            let labels = |outcome: Outcome| [("token_id", token.as_str()), ("outcome", outcome.into())];
            outcomes.iter().map(move |(outcome, count)| (labels(*outcome), *count))
        }),
    )
}
