//! Where tokens come from: a file, a list over HTTP, or a look-up of one token at a time.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::units::{duration, size};
use crate::document::{Problem, Table};
use crate::source::{ClientParams, HttpParams, ListUrl, LookupParams, LookupUrl, Origin};
use crate::tls;
use crate::token::{HOLDS_A_TOKEN, Prefix};

/// The largest answer about one token, in bytes.
const MAX_LOOKUP: usize = 1024 * 1024;

/// The file that the text of a key names, which must be there unless it may be missing.
pub(super) fn there(table: &Table<'_>, key: &'static str, text: &str, base: &Path, missing: bool) -> Option<PathBuf> {
    path(text, base, missing).map_err(|why| table.problem(key, why)).ok()
}

fn path(text: &str, base: &Path, missing: bool) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("empty: name a file, or leave this out".to_owned());
    }
    let path = base.join(text);
    match path.metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound && !missing => {
            Err(format!("{} cannot be read ({error}): make it, or correct its name", path.display()))
        }
        _ => Ok(path),
    }
}

/// Reads the one source of `[tokens]`, whose `file` was read, over which `named` stands: a path, or the URL of a list.
/// A token file may be `missing` where it is yet to be made.
/// Mistakes in the file go to its document, others to `outside`.
pub(super) fn read(
    table: Option<&Table<'_>>,
    file: Option<&str>,
    base: &Path,
    named: Option<&str>,
    missing: bool,
    outside: &mut Vec<Problem>,
) -> Option<Origin> {
    let mut complain = |key, message| outside.push(Problem::outside(key, message));
    let is_url = |text: &&str| text.starts_with("http://") || text.starts_with("https://");
    let url = named.filter(is_url).map(ListUrl::parse).transpose();
    let url = url.map_err(|why| complain(NAMED, why)).ok()?;
    let checked = named.map(|text| match &url {
        _ if Prefix::default().is_in(text) => Err(HOLDS_A_TOKEN.to_owned()),
        Some(_) => Ok(()),
        None => path(text, Path::new(""), missing).map(drop),
    });
    checked.transpose().map_err(|why| complain(NAMED, why)).ok()?;

    // what stands in the file is read even if it does not count, so that mistakes in it are found
    // one that does not count need not be there
    let missing = missing || named.is_some();
    let file = table.zip(file);
    let file = file.map(|(table, text)| there(table, "file", text, base, missing).map(Origin::File));
    let http = table.and_then(|table| table.table("http"));
    let http = http.map(|table| Section { table: Some(&table), base }.http(url.clone(), &mut complain));
    let lookup = table.and_then(|table| table.table("lookup"));
    let lookup = lookup.map(|table| Section { table: Some(&table), base }.lookup(&mut complain));
    let set = [&file, &http, &lookup].into_iter().flatten().count();
    if let Some(table) = table
        && set > 1
    {
        table.problem("", "has several sources: set one of tokens.file, tokens.http and tokens.lookup");
        return None;
    }
    match (named, url) {
        (Some(_), Some(url)) => http.unwrap_or_else(|| Section { table: None, base }.http(Some(url), &mut complain)),
        (Some(path), None) => Some(Origin::File(path.into())),
        (None, _) => file.or(http).or(lookup).unwrap_or_else(|| {
            let message = "missing: name the token file, by --tokens, PATGATE_TOKENS or this key, \
                           or set tokens.http or tokens.lookup";
            complain("tokens.file", message.to_owned());
            None
        }),
    }
}

const NAMED: &str = "tokens (--tokens, PATGATE_TOKENS)";

/// A place for mistakes that stand in no file.
type Complain<'c> = &'c mut dyn FnMut(&'static str, String);

/// The table of a source; none if all of it is left to the defaults.
struct Section<'s> {
    table: Option<&'s Table<'s>>,
    base: &'s Path,
}

impl Section<'_> {
    fn http(&self, url: Option<ListUrl>, complain: Complain<'_>) -> Option<Origin> {
        let in_file = self.url(url.is_some()).and_then(|text| self.checked("url", ListUrl::parse(text)));
        let url = url.or(in_file);
        let refresh = self.duration("refresh", Duration::from_secs(5));
        let max_stale = self.duration("max_stale", Duration::from_mins(10));
        let max_size = self.size("max_size", 64 * 1024 * 1024);
        let client = self.client(url.as_ref().is_some_and(ListUrl::is_secure), max_size, complain);
        self.done();
        let client = client?;
        if max_stale <= refresh.mul_f64(1.1) + client.timeout {
            self.problem("max_stale", "too short: a list must not be too old before it is asked for again".to_owned());
        }
        Some(Origin::Http(HttpParams { url: url?, client, refresh, max_stale }))
    }

    fn lookup(&self, complain: Complain<'_>) -> Option<Origin> {
        let url = self.url(false).and_then(|text| self.checked("url", LookupUrl::parse(text)));
        let ttl = self.duration("ttl", Duration::from_secs(30));
        let negative_ttl = self.duration("negative_ttl", Duration::from_secs(5));
        let number = |key, default| self.table.and_then(|table| table.number(key, 1..=10_000_000)).unwrap_or(default);
        let (capacity, negative_capacity) = (number("capacity", 10_000), number("negative_capacity", 100_000));
        let parallel = number("parallel", 16);
        let client = self.client(url.as_ref().is_some_and(LookupUrl::is_secure), MAX_LOOKUP, complain);
        self.done();
        Some(Origin::Lookup(LookupParams {
            url: url?,
            client: client?,
            ttl,
            negative_ttl,
            capacity,
            negative_capacity,
            parallel: usize::try_from(parallel).unwrap_or(usize::MAX),
        }))
    }

    /// The way to a source.
    fn client(&self, secure: bool, max_size: usize, complain: Complain<'_>) -> Option<ClientParams> {
        let path = |key| self.table.and_then(|table| table.string(key)).map(|text| self.base.join(text));
        let (ca, certificate, key) = (path("ca"), path("cert"), path("key"));
        let bearer_file = self.table.and_then(|table| Some((table, table.string("bearer_file")?)));
        // somebody else may write it at any time, so whoever asks the source looks whether it is there
        let bearer_file = bearer_file.and_then(|(table, text)| there(table, "bearer_file", text, self.base, true));
        let timeout = self.duration("timeout", Duration::from_secs(2));
        for (name, set) in [("ca", ca.is_some()), ("cert", certificate.is_some()), ("key", key.is_some())] {
            if set && !secure {
                self.problem(name, "of no use without TLS: write an https URL, or leave this out".to_owned());
            }
        }
        if certificate.is_some() != key.is_some() {
            self.problem("", "a client certificate needs both cert and key".to_owned());
        }
        let paths = [("ca", ca.clone()), ("cert", certificate.clone()), ("key", key.clone())];
        let identity = certificate.zip(key).map(|(certificate, key)| tls::Identity { certificate, key });
        let tls = if secure { tls::client(ca.as_deref(), identity.as_ref()) } else { tls::nobody() };
        let tls = tls.map_err(|error| match self.table {
            Some(table) => {
                let named = paths.iter().find(|(_, path)| path.is_some() && path.as_deref() == error.file());
                table.problem(named.map_or("", |(name, _)| name), error.to_string());
            }
            None => complain(NAMED, error.to_string()),
        });
        Some(ClientParams { tls: tls.ok()?, bearer_file, timeout, max_size })
    }

    /// The URL in the file; it may be missing if another one stands above it.
    fn url(&self, may_be_missing: bool) -> Option<&str> {
        self.table.and_then(|table| if may_be_missing { table.string("url") } else { table.required("url") })
    }

    fn duration(&self, key: &'static str, default: Duration) -> Duration {
        self.table.and_then(|table| table.parsed(key, duration)).unwrap_or(default)
    }

    fn size(&self, key: &'static str, default: usize) -> usize {
        let text = self.table.and_then(|table| table.text(key));
        let size = text.and_then(|text| self.checked(key, size(&text)));
        size.map_or(default, |size| usize::try_from(size).unwrap_or(usize::MAX))
    }

    fn checked<T>(&self, key: &str, read: Result<T, String>) -> Option<T> {
        read.map_err(|why| self.problem(key, why)).ok()
    }

    fn problem(&self, key: &str, message: String) {
        if let Some(table) = self.table {
            table.problem(key, message);
        }
    }

    fn done(&self) {
        if let Some(table) = self.table {
            table.done();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Document;

    /// What `[tokens]` says, or every mistake in it.
    fn origin(text: &str, named: Option<&str>) -> Result<Origin, Vec<String>> {
        let document = Document::parse(Path::new("f.toml"), text).unwrap();
        let mut problems = Vec::new();
        let origin = {
            let root = document.root();
            let table = root.table("tokens");
            let file = table.as_ref().and_then(|table| table.string("file"));
            let origin = read(table.as_ref(), file, Path::new("/etc/patgate"), named, true, &mut problems);
            table.iter().for_each(Table::done);
            origin
        };
        problems.extend(document.finish().err().unwrap_or_default().0);
        match origin {
            Some(origin) if problems.is_empty() => Ok(origin),
            _ => Err(problems.iter().map(ToString::to_string).collect()),
        }
    }

    #[test]
    fn every_source_with_its_defaults() {
        let found = origin("[tokens]\nfile = \"t.toml\"\n", None).unwrap();
        assert_eq!(found.to_string(), "/etc/patgate/t.toml");

        let found = origin("[tokens]\nhttp = { url = \"http://iam/pats.json\" }\n", None).unwrap();
        let Origin::Http(http) = found else { panic!("{found}") };
        assert_eq!((http.refresh, http.max_stale), (Duration::from_secs(5), Duration::from_mins(10)));
        assert_eq!((http.client.timeout, http.client.max_size), (Duration::from_secs(2), 64 * 1024 * 1024));

        let found = origin("[tokens]\nlookup = { url = \"http://iam/{sha256}\" }\n", None).unwrap();
        let Origin::Lookup(lookup) = found else { panic!("{found}") };
        assert_eq!((lookup.ttl, lookup.negative_ttl), (Duration::from_secs(30), Duration::from_secs(5)));
        assert_eq!((lookup.capacity, lookup.negative_capacity, lookup.parallel), (10_000, 100_000, 16));
    }

    #[test]
    fn what_is_named_outside_stands_above_the_file() {
        let file = "[tokens]\nfile = \"t.toml\"\n";
        let http = "[tokens]\nhttp = { url = \"http://iam/a\", refresh = \"1s\" }\n";
        let found = |text, named| origin(text, Some(named)).unwrap();
        assert_eq!(found(http, "other.toml").to_string(), "other.toml");
        assert_eq!(found(file, "http://iam/b").to_string(), "http://iam/b");
        assert_eq!(found("", "http://iam/b").to_string(), "http://iam/b");
        let Origin::Http(both) = found(http, "http://iam/b") else { panic!() };
        assert_eq!((both.url.to_string(), both.refresh), ("http://iam/b".to_owned(), Duration::from_secs(1)));
        let Origin::Http(_) = found("[tokens]\nhttp = { refresh = \"1s\" }\n", "http://iam/b") else { panic!() };
    }

    #[test]
    fn mistakes_are_named() {
        for (text, named, expected) in [
            ("", None, "tokens.file: missing: name the token file"),
            ("", Some("http://iam/{sha256}"), "tokens (--tokens, PATGATE_TOKENS): `{sha256}` stands in"),
            ("file = \"t\"\nhttp = { url = \"http://iam/a\" }", None, "f.toml:1:1: tokens: has several sources"),
            ("file = \"t\"\nlookup = { url = \"http://iam/{sha256}\" }", Some("t"), "tokens: has several sources"),
            ("http = { refresh = \"1s\" }", None, "tokens.http.url: missing"),
            ("http = { url = \"iam/a\" }", None, "f.toml:2:16: tokens.http.url: not a URL of a source"),
            (
                "http = { url = \"http://iam/a\", refesh = \"1s\" }",
                None,
                "tokens.http.refesh: unknown key: did you mean `refresh`?",
            ),
            ("http = { url = \"http://iam/a\", refesh = \"1s\" }", Some("t.toml"), "tokens.http.refesh: unknown key"),
            ("http = { url = \"http://iam/a\", max_stale = \"7s\" }", None, "tokens.http.max_stale: too short"),
            (
                "http = { url = \"http://iam/a\", max_size = \"much\" }",
                None,
                "tokens.http.max_size: `much` is not a size",
            ),
            ("http = { url = \"http://iam/a\", ca = \"ca.pem\" }", None, "tokens.http.ca: of no use without TLS"),
            (
                "http = { url = \"https://iam/a\", ca = \"ca.pem\" }",
                None,
                "tokens.http.ca: cannot read /etc/patgate/ca.pem",
            ),
            ("file = \"t\"", Some(""), "tokens (--tokens, PATGATE_TOKENS): empty: name a file"),
            (
                "http = { url = \"http://iam/a\", bearer_file = \"\" }",
                None,
                "f.toml:2:46: tokens.http.bearer_file: empty: name a file",
            ),
            (
                "http = { url = \"https://iam/a\", cert = \"c.pem\" }",
                None,
                "tokens.http: a client certificate needs both",
            ),
            ("http = { url = \"http://iam/a\", bearer = \"x\" }", None, "tokens.http.bearer: unknown key"),
            ("lookup = { url = \"http://iam/a\" }", None, "tokens.lookup.url: write {sha256} once"),
            (
                "lookup = { url = \"http://iam/{sha256}\", capacity = 0 }",
                None,
                "tokens.lookup.capacity: 0 is out of range",
            ),
            (
                "lookup = { url = \"http://iam/{sha256}\", parallel = 0 }",
                None,
                "tokens.lookup.parallel: 0 is out of range",
            ),
        ] {
            let text = if text.is_empty() { String::new() } else { format!("[tokens]\n{text}\n") };
            let problems = origin(&text, named).expect_err(&text);
            assert!(problems.iter().any(|problem| problem.contains(expected)), "{expected} not in {problems:?}");
        }
    }
}
