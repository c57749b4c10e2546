//! `[otlp]`: where spans are sent, in a program that was built for it.

use std::path::Path;

use crate::audit::SpanParams;
use crate::document::Table;

/// Reads the table; paths in it are relative to `base`. Without it, no spans are sent.
#[cfg(feature = "otlp")]
pub(super) fn read(root: &Table<'_>, base: &Path) -> Option<SpanParams> {
    use crate::tls;

    let table = root.table("otlp")?;
    let text = table.required("endpoint");
    let endpoint = text.and_then(|text| url(text).map_err(|why| table.problem("endpoint", why)).ok());
    let headers_file = table.string("headers_file").map(|text| base.join(text));
    let queue = table.number("queue", 1..=1_000_000).and_then(|queue| usize::try_from(queue).ok()).unwrap_or(2048);
    table.done();
    let endpoint = endpoint?;
    let tls = if endpoint.scheme_str() == Some("https") { tls::client(None, None) } else { tls::nobody() };
    let tls = tls.map_err(|error| table.problem("endpoint", error.to_string())).ok()?;
    Some(SpanParams { endpoint, tls, headers_file, queue })
}

/// The text is not repeated in messages, for it may hold a secret.
#[cfg(feature = "otlp")]
fn url(text: &str) -> Result<http::Uri, &'static str> {
    const UNREADABLE: &str = "not a URL of a collector: write http://host:port/v1/traces, or https";

    let uri: http::Uri = text.parse().map_err(|_| UNREADABLE)?;
    let is_host = uri.host().is_some_and(|host| !host.is_empty());
    if !matches!(uri.scheme_str(), Some("http" | "https")) || !is_host || text.contains('#') {
        return Err(UNREADABLE);
    }
    if uri.query().is_some() || uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("a URL with a query or a user name: put what the collector asks for into headers_file");
    }
    if uri.path() == "/" {
        return Err("the path is missing: collectors take spans at /v1/traces");
    }
    Ok(uri)
}

/// Refuses the table.
#[cfg(not(feature = "otlp"))]
pub(super) fn read(root: &Table<'_>, _: &Path) -> Option<SpanParams> {
    root.table("otlp")?;
    root.problem("otlp", "this program was built without it: build it with `--features otlp`, or leave this out");
    None
}

#[cfg(all(test, feature = "otlp"))]
mod tests {
    use super::*;

    const SECRET: &str = "hunter2";

    #[test]
    fn endpoints() {
        for good in ["http://127.0.0.1:4318/v1/traces", "https://otel.example.com/otlp/v1/traces", "http://[::1]:1/x"] {
            assert!(url(good).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("", "not a URL"),
            ("127.0.0.1:4318/v1/traces", "not a URL"),
            ("grpc://otel:4317/v1/traces", "not a URL"),
            ("http:///v1/traces", "not a URL"),
            ("http://otel/v1/traces#x", "not a URL"),
            ("http://otel:4318", "the path is missing"),
            ("http://otel/v1/traces?key=hunter2", "headers_file"),
            ("http://user:hunter2@otel/v1/traces", "headers_file"),
        ] {
            let problem = url(bad).unwrap_err();
            assert!(problem.contains(why) && !problem.contains(SECRET), "{bad}: {problem}");
        }
    }
}
