//! The queries of docs/audit.md, run by the engines of log stores on a log that the program wrote: they find what
//! `patgate audit query` finds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::process::Command;

use serde_json::Value;

use crate::documentation::in_language;
use crate::harness::{Folder, Keep, Origin, eventually, get};
use crate::installed::{content_with, node, repository, tool};
use crate::stage::Line;

const PAGE: &str = include_str!("../../../docs/audit.md");

/// The token of the page's examples.
const TOKEN_ID: &str = "k3V9mQ2xTa";

/// A log in two files, one of them compressed, of a process that was killed: what was allowed, refusals of a token and
/// of nobody's, a stream that has ended, and one that was open.
struct Log {
    folder: Folder,
    token_id: String,
    open: String,
}

impl Log {
    fn written() -> Self {
        let origin = Origin::scripted(|_, stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n").map(|()| Keep::Open)
        });
        let folder = Folder::new();
        let (alice, bob) = (folder.token("alice", &[]), folder.token("bob", &[]));
        let token_id = alice[8..18].to_owned();
        let proxy = folder.serve(&origin.url(), "");
        let open = |token: &str| {
            let mut line = Line::to(&proxy.address);
            line.send(get(token, ""));
            (line.answer_head().header("x-request-id").unwrap().to_owned(), line)
        };
        let ((_, of_alice), (open, _of_bob)) = (open(&alice), open(&bob));
        let count = |event: &str| proxy.audit_lines().iter().filter(|record| record["event"] == event).count();
        eventually("two opening records", || (count("stream_opened") == 2).then_some(()));
        drop(of_alice);
        proxy.audit(1);
        let name = "audit.jsonl.20261122T080000.000000Z";
        fs::rename(folder.path("audit.jsonl"), folder.path(name)).unwrap();
        proxy.signal("HUP");
        eventually("a new file", || folder.path("audit.jsonl").exists().then_some(()));

        let revoked = folder.run(&["token", "revoke", &token_id, "--tokens", "tokens.toml"]);
        assert!(revoked.status.success());
        let lists = || proxy.log().iter().filter(|entry| entry["message"] == "the token list is in force").count();
        eventually("the revocation", || (lists() == 2).then_some(()));
        for token in [&alice, &alice, "unknown", "unknown"] {
            assert_eq!(proxy.ask(&get(token, "")).status, 401);
        }
        proxy.audit(4);
        drop(proxy);
        let plain = folder.path(name);
        let file = fs::File::create(plain.with_extension("000000Z.gz")).unwrap();
        let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        gzip.write_all(&fs::read(&plain).unwrap()).unwrap();
        gzip.finish().unwrap();
        fs::remove_file(&plain).unwrap();
        Self { folder, token_id, open }
    }

    /// What `patgate audit query` finds.
    fn find(&self, filter: &[&str]) -> Vec<Value> {
        let query = self.folder.run(&[&["audit", "query", "--config", "patgate.toml", "--json"], filter].concat());
        assert!(query.status.success(), "{query:?}");
        String::from_utf8(query.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// What a store finds.
    fn ask(&self, store: &str, query: &str) -> Vec<Value> {
        let mut command = tool("python");
        command.arg(repository().join("tests/tools/run_query.py")).arg(store).arg(self.folder.path(""));
        let rows = content_with(&mut command, &query.replace(TOKEN_ID, &self.token_id));
        rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn assert_are_the_refusals_of_the_token(&self, rows: &[Value]) {
        let found = self.find(&["--token-id", &self.token_id, "--outcome", "denied"]);
        assert!(found.len() >= 2 && found.len() < self.find(&["--outcome", "denied"]).len(), "{found:#?}");
        let essence = |rows: &[Value]| -> BTreeSet<String> {
            rows.iter().map(|row| format!("{} {} {}", row["request_id"], row["reason"], row["client_ip"])).collect()
        };
        assert_eq!(rows.len(), found.len());
        assert_eq!(essence(rows), essence(&found));
    }

    fn assert_are_the_refusals_a_minute(&self, rows: &[Value]) {
        let minute = |text: &Value| text.as_str().unwrap()[..16].replace(' ', "T");
        let mut expected = BTreeMap::new();
        for record in self.find(&["--outcome", "denied"]) {
            *expected.entry((minute(&record["ts"]), record["reason"].to_string())).or_default() += 1;
        }
        assert!(expected.len() >= 2, "{expected:?}");
        let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap();
        let found = rows.iter().map(|row| ((minute(&row["minute"]), row["reason"].to_string()), number(&row["count"])));
        assert_eq!(found.collect::<BTreeMap<_, u64>>(), expected);
    }
}

/// The examples in a language, which must be so many.
fn examples<const N: usize>(language: &str) -> [String; N] {
    in_language(PAGE, language).try_into().unwrap()
}

#[test]
fn sql_finds_what_the_program_finds() {
    let log = Log::written();
    let [duckdb, clickhouse, refusals, by_minute, open] = examples("sql");
    for (store, made) in [("duckdb", duckdb), ("clickhouse", clickhouse)] {
        let ask = |query: &str| log.ask(store, &format!("{made}{query}"));
        log.assert_are_the_refusals_of_the_token(&ask(&refusals));
        log.assert_are_the_refusals_a_minute(&ask(&by_minute));
        let streams = ask(&open);
        let [stream] = &streams[..] else { panic!("{store}: {streams:?}") };
        assert_eq!((&stream["request_id"], &stream["by"]), (&log.open.as_str().into(), &"bob".into()), "{store}");
    }
}

#[test]
fn search_bodies_find_what_the_program_finds() {
    let log = Log::written();
    let [refusals, by_minute] = examples("json");
    log.assert_are_the_refusals_of_the_token(&log.ask("opensearch", &refusals));
    log.assert_are_the_refusals_a_minute(&log.ask("opensearch", &by_minute));
}

#[test]
fn the_parser_of_loki_understands_every_query_and_its_labels_are_keys_of_a_record() {
    let examples: [String; 2] = examples("logql");
    let read = |query: &str| {
        let script = repository().join("tests/tools/read_logql.mjs");
        content_with(Command::new(node()).arg(script), query)
    };
    for example in examples {
        let labels = read(&example);
        let mut labels = labels.lines().filter(|label| *label != "app");
        assert!(labels.clone().count() >= 3, "{example}");
        assert!(labels.all(|label| PAGE.contains(&format!("`{label}`"))), "{example}");
    }
}
