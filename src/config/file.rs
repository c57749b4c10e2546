//! The keys of the configuration file, each with its default, in the order of the documentation.

use std::collections::HashSet;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::uri::Authority;
use http::{HeaderName, HeaderValue};

use super::bounds::{self, Limits, Timeouts};
use super::units::{days, duration};
use super::{Config, Diagnostics, Overrides, audit, diagnostics, origin, otlp, policy, tls};
use crate::access::{IdentityHeaders, Policy};
use crate::document::{Problem, Table};
use crate::proxy::{
    self, Address, AllowedHosts, AllowedOrigins, ForwardedHeader, InboundBounds, ReadingParams, SessionParams,
    TrustedProxies, UpstreamParams,
};
use crate::server::{self, ListenAddress};
use crate::source::{self, Origin, last_used};
use crate::token::Prefix;

const DEFAULT_LISTEN: &str = "127.0.0.1:8080";
const DEFAULT_ADMIN: &str = "127.0.0.1:9090";

/// Mistakes in the file go to its document, others to `outside`.
struct Reader<'r> {
    root: &'r Table<'r>,
    base: &'r Path,
    overrides: &'r Overrides,
    outside: &'r mut Vec<Problem>,
    /// Whether files of tokens may be missing.
    missing: bool,
}

/// Reads everything; the result counts only if no mistake was reported.
pub(super) fn read(root: &Table<'_>, path: &Path, overrides: &Overrides, outside: &mut Vec<Problem>) -> Option<Config> {
    Reader { root, base: base(path), overrides, outside, missing: false }.config()
}

/// Reads what concerns tokens and nothing else. Whether its files may be `missing` is the caller's to say: some make
/// them.
pub(super) fn read_tokens(
    root: &Table<'_>,
    path: &Path,
    overrides: &Overrides,
    missing: bool,
    outside: &mut Vec<Problem>,
) -> (Option<source::Params>, Policy) {
    Reader { root, base: base(path), overrides, outside, missing }.tokens()
}

/// Paths in a configuration file are relative to the folder that it is in.
pub(super) fn base(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

impl Reader<'_> {
    fn config(&mut self) -> Option<Config> {
        let (root, overrides) = (self.root, self.overrides);
        let listen =
            self.setting("listen", overrides.listen.as_deref(), Some(DEFAULT_LISTEN), str::parse::<ListenAddress>);
        let upstream = self.setting("upstream", overrides.upstream.as_deref(), None, |text| {
            text.parse::<Address>().map_err(|error| error.to_string())
        });
        let admin = self.setting("admin", overrides.admin.as_deref(), Some(DEFAULT_ADMIN), |text| match text {
            "off" => Ok(None),
            "systemd" => Err("`systemd` can be `listen` only: write 127.0.0.1:9090, unix:/path or off".to_owned()),
            address => address.parse::<ListenAddress>().map(Some),
        });
        self.keep_apart(listen.as_ref(), admin.as_ref().and_then(Option::as_ref));
        let diagnostics = self.diagnostics();
        let workers = root.number("workers", 1..=1024).and_then(|workers| usize::try_from(workers).ok());
        let upstream_host = root.parsed("upstream_host", host);
        let allowed_origins = self.list("allowed_origins", |texts| AllowedOrigins::parse(texts));
        let allowed_hosts = self.list("allowed_hosts", |texts| AllowedHosts::parse(texts));
        let resume_outside_sessions = root.truth("resume_outside_sessions").unwrap_or(true);
        let trusted_proxies = self.trusted_proxies();
        let proxy_protocol = root.truth("proxy_protocol").unwrap_or(false);
        if proxy_protocol && trusted_proxies.as_ref().is_none_or(|proxies| *proxies == TrustedProxies::default()) {
            root.problem("proxy_protocol", "of no use without trusted_proxies: name the balancers that speak it");
        }
        let listener_tls = tls::listener(root, self.base, listen.as_ref());
        let upstream_tls = tls::upstream(root, self.base, upstream.as_ref());
        let (source, policy) = self.tokens();
        let (mut audit, tap) = audit::read(root, self.base, policy.prefix.clone());
        audit.spans = otlp::read(root, self.base);
        audit.by_token = self.metrics_token_ids();
        let (limits, timeouts) = (Limits::read(root, tap.limit), Timeouts::read(root));
        let rates = bounds::rates(root);
        let health = bounds::health(root);
        root.done();

        let (mut source, upstream) = (source?, upstream?);
        source.parallel_trials = limits.bcrypt;
        Some(Config {
            server: server::Params {
                listen: listen?,
                tls: listener_tls,
                workers: workers.unwrap_or_else(cores),
                max_connections: limits.connections,
                max_connections_per_address: limits.connections_per_address,
                proxy_protocol,
                trusted_proxies: trusted_proxies.clone().unwrap_or_default(),
                limits: server::Limits {
                    head: limits.head,
                    headers: limits.headers,
                    streams: limits.streams,
                    handshake_timeout: timeouts.handshake,
                    head_timeout: timeouts.head,
                    idle_timeout: timeouts.idle,
                    write_timeout: timeouts.write,
                    keep_alive: timeouts.keep_alive,
                },
                drain_timeout: timeouts.drain,
            },
            admin: admin?,
            health,
            proxy: proxy::Params {
                upstream: UpstreamParams {
                    address: upstream,
                    tls: upstream_tls,
                    connect_timeout: timeouts.upstream_connect,
                    head_timeout: timeouts.upstream_head,
                    answer_idle: timeouts.answer_idle,
                    idle_timeout: timeouts.upstream_idle,
                    max_head: limits.upstream_head,
                    max_headers: limits.upstream_headers,
                    idle_connections: limits.upstream_idle,
                },
                upstream_host,
                identity: policy.identity.clone(),
                allowed_origins: allowed_origins.unwrap_or_default(),
                allowed_hosts: allowed_hosts.unwrap_or_default(),
                resume_outside_sessions,
                max_fields: limits.headers,
                sessions: SessionParams { capacity: limits.sessions, idle: timeouts.session_idle },
                rates,
                trusted_proxies: trusted_proxies.unwrap_or_default(),
                streams_per_token: limits.streams_per_token,
                body: InboundBounds { size: limits.body, pause: timeouts.body, rate: limits.body_rate },
                reading: ReadingParams {
                    inspect: limits.inspect,
                    inspect_answer: limits.inspect_answer,
                    inspect_total: limits.inspect_total,
                    answer_timeout: timeouts.upstream_head,
                    tap,
                },
            },
            source,
            policy,
            audit,
            diagnostics: diagnostics?,
        })
    }

    /// Refuses one address for both doors: the second could not be opened.
    fn keep_apart(&mut self, listen: Option<&ListenAddress>, admin: Option<&ListenAddress>) {
        let Some((listen, admin)) = listen.zip(admin).filter(|(listen, admin)| listen.overlaps(admin)) else { return };
        let message = format!("{admin} is taken by listen ({listen}): choose another address for one of the two");
        match self.overrides.admin {
            None if self.root.has("admin") => self.root.problem("admin", message),
            _ => self.outside("admin", message),
        }
    }

    /// A setting that flags and environment can override; `None` after a mistake.
    fn setting<T>(
        &mut self,
        key: &'static str,
        override_: Option<&str>,
        default: Option<&str>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let in_file = self.root.string(key);
        if let Some(text) = override_ {
            return parse(text).map_err(|why| self.outside(key, why)).ok();
        }
        if let Some(text) = in_file {
            return parse(text).map_err(|why| self.root.problem(key, why)).ok();
        }
        match default {
            Some(text) => parse(text).map_err(|why| self.outside(key, why)).ok(),
            None => {
                self.outside(key, "missing: give the flag, or set the key in a configuration file".to_owned());
                None
            }
        }
    }

    /// Reports a mistake that stands in no file.
    fn outside(&mut self, key: &str, message: String) {
        let (flag, variable) = (key.replace('_', "-"), key.to_ascii_uppercase());
        self.outside.push(Problem::outside(format!("{key} (--{flag}, PATGATE_{variable})"), message));
    }

    /// Paths in the file are relative to it.
    fn path(&self, text: &str) -> PathBuf {
        self.base.join(text)
    }

    fn list<T>(&self, key: &'static str, parse: impl Fn(Vec<&str>) -> Result<T, String>) -> Option<T> {
        let texts = self.root.strings(key)?;
        parse(texts).map_err(|why| self.root.problem(key, why)).ok()
    }

    fn trusted_proxies(&self) -> Option<TrustedProxies> {
        let header = self.root.parsed("forwarded_header", |text| match text {
            "X-Forwarded-For" => Ok(ForwardedHeader::XForwarded),
            "Forwarded" => Ok(ForwardedHeader::Forwarded),
            _ => Err(format!("`{text}` is neither \"X-Forwarded-For\" nor \"Forwarded\"")),
        });
        self.list("trusted_proxies", |texts| TrustedProxies::parse(texts, header.unwrap_or_default()))
    }

    fn tokens(&mut self) -> (Option<source::Params>, Policy) {
        let table = self.root.table("tokens");
        let table = table.as_ref();
        let named = self.overrides.tokens.as_deref();
        let file = table.and_then(|table| table.string("file"));
        let origin = origin::read(table, file, self.base, named, self.missing, self.outside);
        let poll = table.and_then(|table| table.parsed("poll", duration)).unwrap_or(Duration::from_secs(5));
        let prefix = table.and_then(|table| table.parsed("prefix", Prefix::parse)).unwrap_or_default();
        let deny_list = table.and_then(|table| Some((table, table.string("deny_list")?)));
        let deny_list =
            deny_list.and_then(|(table, text)| origin::there(table, "deny_list", text, self.base, self.missing));
        let max_lifetime = table.and_then(|table| table.parsed("max_lifetime", days));
        let last_used = table.and_then(|table| table.string("last_used"));
        let allow_empty = table.and_then(|table| table.truth("allow_empty")).unwrap_or(false);
        let refuse_exposed = table.and_then(|table| table.truth("refuse_exposed")).unwrap_or(false);
        if let Some(table) = table {
            table.done();
        }
        let calls = policy::read(self.root).map(Arc::new);
        let policy = Policy { prefix, identity: self.identity(), max_lifetime, calls };
        let params = origin.map(|origin| source::Params {
            last_used: match (&origin, last_used) {
                (_, Some("off")) | (Origin::Http(_) | Origin::Lookup(_), None) => None,
                (Origin::File(path), None) => Some(last_used::beside(path)),
                (Origin::File(_), Some(named)) => Some(self.path(named)),
                (Origin::Http(_) | Origin::Lookup(_), Some(_)) => {
                    let message = "goes with a token file only: leave it out";
                    if let Some(table) = table {
                        table.problem("last_used", message);
                    }
                    None
                }
            },
            origin,
            deny_list,
            poll,
            allow_empty,
            refuse_exposed,
            parallel_trials: 1,
        });
        (params, policy)
    }

    fn identity(&self) -> IdentityHeaders {
        let mut headers = IdentityHeaders::default();
        let Some(table) = self.root.table("identity") else { return headers };
        let mut taken = HashSet::new();
        for (key, header) in [
            ("user", &mut headers.user),
            ("email", &mut headers.email),
            ("name", &mut headers.name),
            ("org", &mut headers.org),
            ("roles", &mut headers.roles),
            ("scopes", &mut headers.scopes),
            ("token_id", &mut headers.token_id),
            ("source", &mut headers.source),
        ] {
            if let Some(name) = table.parsed(key, header_name) {
                *header = name;
            }
            if let Some(name) = header
                && !taken.insert(proxy::normalised(name.as_str()).into_owned())
            {
                table.problem(key, format!("`{name}` already says something else: choose another name"));
            }
        }
        table.done();
        headers
    }

    fn diagnostics(&mut self) -> Option<Diagnostics> {
        let overrides = self.overrides;
        let filter = self.setting("log_level", overrides.log_level.as_deref(), Some("info"), diagnostics::filter);
        let format = self.setting("log_format", overrides.log_format.as_deref(), Some("auto"), diagnostics::format);
        Some(Diagnostics { filter: filter?, format: format? })
    }

    fn metrics_token_ids(&self) -> bool {
        let Some(table) = self.root.table("metrics") else { return false };
        let token_ids = table.truth("token_ids");
        table.done();
        token_ids.unwrap_or(false)
    }
}

/// A `Host`: a name or an address, and a port at most.
fn host(text: &str) -> Result<HeaderValue, String> {
    let plain = |authority: &Authority| {
        let port = text.get(authority.host().len()..).unwrap_or_default();
        let fits = port.is_empty() || authority.port_u16().is_some_and(|port| port > 0);
        authority.as_str() == text && !text.contains('@') && !authority.host().is_empty() && fits
    };
    let host = text.parse().ok().filter(plain).and_then(|_| HeaderValue::from_str(text).ok());
    host.ok_or_else(|| format!("{text:?} is not a host: write host or host:port as the upstream expects it"))
}

/// An empty name leaves the header out.
fn header_name(text: &str) -> Result<Option<HeaderName>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let name = HeaderName::from_bytes(text.as_bytes()).map_err(|_| {
        format!("{text:?} is not a header name: write letters, digits and `-`, or \"\" to leave it out")
    })?;
    if TAKEN.contains(&&*proxy::normalised(name.as_str())) {
        return Err(format!("`{name}` has a meaning of its own: choose another name"));
    }
    Ok(Some(name))
}

/// Headers that an identity must not stand in, for HTTP or we say something else there.
const TAKEN: [&str; 21] = [
    "accept",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];

/// As many workers as this process may use cores, by affinity and control group.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}
