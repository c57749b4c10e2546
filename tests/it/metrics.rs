//! What a scrape tells: in a form that a Prometheus parser reads, true, complete and documented.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::Stdio;

use patgate::verdict::{Ended, Reason};
use serde::Deserialize;
use strum::VariantArray;

use crate::harness::{Answer, Folder, Origin, Proxy, ask, eventually, get, post};
use crate::peers;
use crate::stage::{Line, staged};

const PAGE: &str = include_str!("../../docs/metrics.md");
const ALERTS: &str = include_str!("../../config/prometheus-alerts.yml");

// --- A scrape -------------------------------------------------------------------------------

/// One metric, as the parser of the Prometheus project's Python library understands it.
#[derive(Debug, Deserialize)]
struct Family {
    name: String,
    help: String,
    r#type: String,
    samples: Vec<Sample>,
}

#[derive(Debug, Deserialize)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: Option<f64>,
}

impl Family {
    /// Its name on the page.
    fn full_name(&self) -> String {
        if self.r#type == "counter" { format!("{}_total", self.name) } else { self.name.clone() }
    }

    /// The names of the labels of its samples; `le` belongs to the form.
    fn labels(&self) -> BTreeSet<&str> {
        let names = self.samples.iter().flat_map(|sample| sample.labels.keys());
        names.map(String::as_str).filter(|name| *name != "le").collect()
    }
}

fn scrape(proxy: &Proxy) -> Vec<Family> {
    let answer = proxy.health("/metrics");
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let mut parser = peers::script("clients/metrics.py");
    let mut parser = parser.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    parser.stdin.take().unwrap().write_all(answer.body.as_bytes()).unwrap();
    let parsed = parser.wait_with_output().unwrap();
    assert!(parsed.status.success(), "{}", answer.body);
    serde_json::from_slice(&parsed.stdout).unwrap()
}

/// The value of one line of a page, such as `patgate_x_total{a="b"}`, without a parser.
fn value(page: &str, line: &str) -> f64 {
    let found = page.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no {line} in {page}")).parse().unwrap()
}

/// The same of a whole number.
fn count(page: &str, line: &str) -> u64 {
    value(page, line).to_string().parse().unwrap()
}

fn page(proxy: &Proxy) -> String {
    let answer = proxy.health("/metrics");
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

/// A proxy whose every metric is on.
fn with_everything(upstream: &str) -> (Folder, String, Proxy) {
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(upstream, "[metrics]\ntoken_ids = true\n");
    (folder, token, proxy)
}

// --- Its form -------------------------------------------------------------------------------

#[test]
fn a_prometheus_parser_reads_it_and_a_linter_has_nothing_to_say() {
    let origin = Origin::plain();
    let (_folder, token, proxy) = with_everything(&origin.url());
    assert_eq!(proxy.ask(&get(&token, "")).status, 200);
    let families = scrape(&proxy);
    assert!(families.len() > 30, "{families:#?}");
    for family in &families {
        let name = family.full_name();
        assert!(name.starts_with("patgate_"), "{name}");
        assert!(["counter", "gauge", "histogram"].contains(&family.r#type.as_str()), "{name} is a {}", family.r#type);
        assert!(family.help.ends_with('.') && family.help.len() > 10, "{name}: {:?}", family.help);
        assert!(!family.samples.is_empty(), "{name} has no value");
        // the rules of `promtool check metrics`
        assert_eq!(name.ends_with("_total"), family.r#type == "counter", "{name} is a {}", family.r#type);
        for unit in
            ["_ms", "milliseconds", "_minutes", "_hours", "_kb", "_mb", "kilobytes", "percent", "_count", "_sum"]
        {
            assert!(!name.ends_with(unit), "{name} is not in a base unit, or reserved");
        }
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'), "{name}");
        if family.r#type == "histogram" {
            assert!(name.ends_with("_seconds"), "{name}");
            for sample in family.samples.iter().filter(|sample| sample.name.ends_with("_count")) {
                let mut labels = sample.labels.clone();
                labels.insert("le".to_owned(), "+Inf".to_owned());
                let all = family.samples.iter().find(|bucket| bucket.labels == labels);
                assert_eq!(all.unwrap().value, sample.value, "{name}");
            }
        }
    }
    let names: BTreeSet<_> = families.iter().map(Family::full_name).collect();
    assert_eq!(names.len(), families.len(), "a metric stands in two places");
}

#[test]
fn every_metric_is_documented_and_every_documented_one_is_there() {
    let origin = Origin::plain();
    let (_folder, token, proxy) = with_everything(&origin.url());
    assert_eq!(proxy.ask(&get(&token, "")).status, 200);
    let there: BTreeSet<_> = scrape(&proxy)
        .iter()
        .map(|family| {
            let labels = family.labels().into_iter().collect::<Vec<_>>().join(", ");
            (family.full_name(), family.r#type.clone(), labels)
        })
        .collect();
    let rows = PAGE.lines().filter(|line| line.starts_with("| `patgate_"));
    let rows = rows.map(|row| row.split('|').map(|cell| cell.trim().replace('`', "")).collect::<Vec<_>>());
    // the other tables there are about expressions
    let documented: BTreeSet<_> = rows
        .filter(|cells| cells.len() == 7)
        .filter(|cells| cfg!(feature = "otlp") || !cells[4].contains("feature otlp"))
        .map(|cells| {
            assert!(!cells[4].is_empty(), "{cells:?}");
            (cells[1].clone(), cells[2].clone(), cells[3].clone())
        })
        .collect();
    let undocumented: Vec<_> = there.difference(&documented).collect();
    let missing: Vec<_> = documented.difference(&there).collect();
    assert!(undocumented.is_empty() && missing.is_empty(), "undocumented: {undocumented:#?}; missing: {missing:#?}");
}

#[test]
fn alerts_are_about_metrics_that_there_are() {
    let folder = Folder::new();
    folder.token("alice", &[]);
    let proxy = folder.serve("http://127.0.0.1:9", "");
    let page = page(&proxy);
    let expressions: Vec<_> = ALERTS.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).collect();
    assert!(expressions.len() >= 7, "{expressions:?}");
    for expression in expressions {
        let names = expression.match_indices("patgate_").map(|(at, _)| {
            expression[at..].split(|char: char| !char.is_ascii_alphanumeric() && char != '_').next().unwrap()
        });
        for name in names {
            assert!(page.contains(&format!("# TYPE {name} ")), "there is no {name}: {expression}");
        }
        for value in expression.split('"').skip(1).step_by(2).flat_map(|values| values.split('|')) {
            assert!(page.contains(&format!("=\"{value}\"")), "there is no {value}: {expression}");
        }
    }
}

#[test]
fn all_label_values_are_there_from_the_start() {
    let folder = Folder::new();
    folder.token("alice", &[]);
    let proxy = folder.serve("http://127.0.0.1:9", "");
    let page = page(&proxy);
    for reason in Reason::VARIANTS {
        let (outcome, reason): (&str, &str) = (reason.outcome().into(), reason.into());
        let line = format!("patgate_requests_total{{outcome=\"{outcome}\",reason=\"{reason}\"}}");
        assert_eq!(count(&page, &line), 0, "{line}");
    }
    for ended in Ended::VARIANTS {
        value(&page, &format!("patgate_requests_ended_total{{ended=\"{}\"}}", <&str>::from(ended)));
    }
    for status in ["revoked", "expired", "not_yet_valid", "suspended", "user_unknown", "over_max_lifetime"] {
        value(&page, &format!("patgate_tokens{{status=\"{status}\"}}"));
    }
    for reason in ["unreachable", "timeout", "broken_off", "invalid"] {
        value(&page, &format!("patgate_upstream_failures_total{{reason=\"{reason}\"}}"));
    }
}

#[test]
fn it_is_answered_like_health_is() {
    let folder = Folder::new();
    folder.token("alice", &[]);
    let proxy = folder.serve("http://127.0.0.1:9", "");
    let send = |method: &str| {
        ask(&proxy.admin, &format!("{method} /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
    };
    let refused = send("POST");
    assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD")));
    let mut line = Line::to(&proxy.admin);
    line.send("HEAD /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let head = line.answer_head();
    assert_eq!(head.status, 200);
    assert!(head.header("content-length").unwrap().parse::<usize>().unwrap() > 1000);
    line.await_end();
    assert!(proxy.health("/").body.contains("/metrics"));
    // not on the clients' port
    assert_eq!(proxy.ask("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 401);
}

// --- Its truth ------------------------------------------------------------------------------

#[test]
fn requests_are_counted_by_verdict_once_they_have_ended() {
    let (origin, _folder, token, proxy) = staged("");
    let verdict = |page: &str, outcome: &str, reason: &str| {
        count(page, &format!("patgate_requests_total{{outcome=\"{outcome}\",reason=\"{reason}\"}}"))
    };
    for (request, status) in [
        (get("unknown", ""), 401),
        (get("unknown", ""), 401),
        (get(&token, "").replace("Authorization", "X"), 401),
        (get(&token, "Origin: https://evil.example\r\n"), 403),
    ] {
        assert_eq!(proxy.ask(&request).status, status);
    }
    let mut client = Line::to(&proxy.address);
    client.send(post(&token, "12345"));
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    client.answer_head();
    // the connections of those before are closed by now, or soon
    let open = eventually("one open stream on the only connection", || {
        let page = page(&proxy);
        let levels = (count(&page, "patgate_open_streams"), count(&page, "patgate_open_connections"));
        (levels == (1, 1)).then_some(page)
    });
    assert_eq!(verdict(&open, "denied", "unknown_token"), 2);
    assert_eq!(verdict(&open, "denied", "missing_credential"), 1);
    assert_eq!(verdict(&open, "denied", "bad_origin"), 1);
    assert_eq!(verdict(&open, "allowed", "ok"), 0, "it has not ended");
    // but its head is there, and was counted at once
    assert_eq!(count(&open, "patgate_request_duration_seconds_count{outcome=\"allowed\"}"), 1);
    assert_eq!(count(&open, "patgate_request_duration_seconds_count{outcome=\"denied\"}"), 4);
    assert_eq!(count(&open, "patgate_upstream_duration_seconds_count"), 1);
    assert_eq!(count(&open, "patgate_stream_duration_seconds_count"), 0);
    assert_eq!(count(&open, "patgate_upstream_connections"), 1);
    assert_eq!(count(&open, "patgate_connections_total"), 5);

    upstream.send_chunk("0123456789");
    upstream.send_chunk("");
    client.chunk();
    assert!(client.end_of_chunks());
    let ended = eventually("the end of the stream", || {
        let page = page(&proxy);
        (count(&page, "patgate_open_streams") == 0).then_some(page)
    });
    assert_eq!(verdict(&ended, "allowed", "ok"), 1);
    assert_eq!(count(&ended, "patgate_requests_ended_total{ended=\"complete\"}"), 5);
    assert_eq!(count(&ended, "patgate_request_duration_seconds_count{outcome=\"allowed\"}"), 1);
    assert_eq!(count(&ended, "patgate_stream_duration_seconds_count"), 1);
    assert_eq!(count(&ended, "patgate_request_bytes_total"), 5);
    assert!(value(&ended, "patgate_response_bytes_total") > 10.0);
    assert_eq!(count(&ended, "patgate_audit_records_total"), 5);
    assert_eq!(count(&ended, "patgate_audit_records_lost_total"), 0);
}

#[test]
fn failures_of_the_upstream_are_counted_by_kind() {
    let (origin, folder, token, proxy) = staged("[timeouts]\nupstream_head = \"200ms\"");
    let failures =
        |page: &str, reason: &str| count(page, &format!("patgate_upstream_failures_total{{reason=\"{reason}\"}}"));
    let play = |part: &dyn Fn(&mut Line)| -> Answer {
        let mut client = Line::to(&proxy.address);
        client.send(get(&token, "Connection: close\r\n"));
        let mut upstream = origin.accept();
        upstream.request();
        part(&mut upstream);
        client.answer()
    };
    assert_eq!(play(&|upstream| upstream.send("HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n")).status, 502);
    assert_eq!(play(&|upstream| upstream.socket().shutdown(std::net::Shutdown::Both).unwrap()).status, 502);
    assert_eq!(play(&|_| ()).status, 504);
    let counted = page(&proxy);
    for reason in ["invalid", "broken_off", "timeout"] {
        assert_eq!(failures(&counted, reason), 1, "{reason}");
    }
    assert_eq!(count(&counted, "patgate_upstream_connections_total"), 3);

    let unreachable = folder.serve("http://127.0.0.1:9", "");
    assert_eq!(unreachable.ask(&get(&token, "")).status, 502);
    let counted = page(&unreachable);
    assert_eq!(failures(&counted, "unreachable"), 1);
    assert_eq!(count(&counted, "patgate_requests_total{outcome=\"error\",reason=\"upstream_unreachable\"}"), 1);
    assert_eq!(count(&counted, "patgate_upstream_duration_seconds_count"), 0);
}

#[test]
fn lost_audit_records_are_told() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    folder.configure(&origin.url(), "");
    let text = folder.read("patgate.toml").replace("audit.jsonl", "/dev/full");
    folder.write("patgate.toml", &text);
    let proxy = folder.serve_with(&[], &[]);
    for _ in 0..3 {
        assert_eq!(proxy.ask(&get(&token, "")).status, 200);
    }
    // they wait for a while, in vain
    eventually("three lost records", || (count(&page(&proxy), "patgate_audit_records_lost_total") == 3).then_some(()));
}

#[test]
fn tokens_are_counted_by_how_they_stand_and_when_they_were_used() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let used = folder.token("alice", &["--expires", "never"]);
    folder.token("alice", &["--expires", "7d"]);
    folder.token("alice", &["--expires", "1y"]);
    let revoked = folder.token("bob", &[]);
    let id = revoked.strip_prefix("mcp_pat_").unwrap().split('_').next().unwrap();
    assert!(folder.run(&["token", "revoke", id, "--tokens", "tokens.toml"]).status.success());
    let proxy = folder.serve(&origin.url(), "");
    assert_eq!(count(&page(&proxy), "patgate_tokens_never_used"), 3);
    assert_eq!(proxy.ask(&get(&used, "")).status, 200);
    let page = page(&proxy);
    assert_eq!(count(&page, "patgate_tokens{status=\"active\"}"), 3);
    assert_eq!(count(&page, "patgate_tokens{status=\"revoked\"}"), 1);
    assert_eq!(count(&page, "patgate_tokens_expiring_within_30_days"), 1);
    assert_eq!(count(&page, "patgate_tokens_used_last_day"), 1);
    assert_eq!(count(&page, "patgate_tokens_never_used"), 2);
    assert!(!page.contains("token_id"), "ids are told only to who asks for them");
}

#[test]
fn token_ids_are_told_of_tokens_that_were_used_if_the_operator_asks() {
    let origin = Origin::plain();
    let (folder, token, proxy) = with_everything(&origin.url());
    let unused = folder.token("bob", &[]);
    let id = |token: &str| token.strip_prefix("mcp_pat_").unwrap().split('_').next().unwrap().to_owned();
    assert!(!page(&proxy).contains("token_id="));
    assert_eq!(proxy.ask(&get(&token, "")).status, 200);
    let page = page(&proxy);
    let line = format!("patgate_token_last_used_timestamp_seconds{{token_id=\"{}\"}}", id(&token));
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    assert!((now - value(&page, &line)).abs() < 60.0, "{page}");
    assert!(!page.contains(&id(&unused)));
    // an id is told, the secret behind it is not
    assert!(!page.contains(token.rsplit('_').next().unwrap()));
}

#[test]
fn requests_are_counted_by_token_while_it_is_in_the_list() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let [alice, bob] = ["alice", "bob"].map(|user| folder.token(user, &[]));
    let proxy = folder.serve(&origin.url(), "[metrics]\ntoken_ids = true\n");
    let id = |token: &str| token[8..18].to_owned();
    let counts = |page: &str, token: &str| {
        let of = |outcome: &str| {
            let line = format!("patgate_token_requests_total{{token_id=\"{}\",outcome=\"{outcome}\"}}", id(token));
            count(page, &line)
        };
        ["allowed", "denied", "error"].map(of)
    };
    let ask = |token: &str, status: u16| assert_eq!(proxy.ask(&get(token, "")).status, status);
    for (token, status) in [(&*alice, 200), (&alice, 200), (&bob, 200), ("unknown", 401)] {
        ask(token, status);
    }
    proxy.audit(4);
    let told = page(&proxy);
    assert_eq!((counts(&told, &alice), counts(&told, &bob)), ([2, 0, 0], [1, 0, 0]));
    assert_eq!(told.matches("patgate_token_requests_total{").count(), 6, "nobody else is counted");

    // a dead token is counted as long as it is listed; and what was counted outlives a new list
    let lists = || proxy.log().iter().filter(|entry| entry["message"] == "the token list is in force").count();
    assert!(folder.run(&["token", "revoke", &id(&alice), "--tokens", "tokens.toml"]).status.success());
    eventually("the revocation", || (lists() == 2).then_some(()));
    ask(&alice, 401);
    proxy.audit(5);
    let told = page(&proxy);
    assert_eq!((counts(&told, &alice), counts(&told, &bob)), ([2, 1, 0], [1, 0, 0]));

    let list = folder.read("tokens.toml");
    let (rest, gone): (Vec<_>, Vec<_>) = list.split_inclusive("\n\n").partition(|entry| !entry.contains(&id(&alice)));
    assert_eq!(gone.len(), 1, "{list}");
    folder.write("tokens.toml", &rest.concat());
    eventually("the removal", || (lists() == 3).then_some(()));
    let told = page(&proxy);
    assert!(!told.contains(&id(&alice)), "{told}");
    assert_eq!(counts(&told, &bob), [1, 0, 0]);
}

#[test]
fn the_process_and_its_readiness_are_told() {
    let (origin, _folder, token, proxy) = staged("");
    let told = page(&proxy);
    assert_eq!(count(&told, "patgate_ready"), 1);
    assert_eq!(count(&told, "patgate_draining"), 0);
    assert_eq!(count(&told, &format!("patgate_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))), 1);
    assert!(value(&told, "patgate_process_resident_memory_bytes") > 1_000_000.0);
    assert!(value(&told, "patgate_process_open_fds") > 5.0);
    assert!(value(&told, "patgate_process_cpu_seconds_total") > 0.0);
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    assert!((0.0..60.0).contains(&(now - value(&told, "patgate_process_start_time_seconds"))));

    let mut held = Line::to(&proxy.address);
    held.send(get(&token, ""));
    let mut upstream = origin.accept();
    upstream.request();
    proxy.signal("TERM");
    let told = eventually("the drain", || {
        let page = page(&proxy);
        (count(&page, "patgate_draining") == 1).then_some(page)
    });
    assert_eq!(count(&told, "patgate_ready"), 0);
}

#[test]
fn reloads_are_counted_and_so_is_how_long_a_revocation_takes() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    folder.write("revoked.txt", "");
    let tokens = "file = \"tokens.toml\"\npoll = \"100ms\"\ndeny_list = \"revoked.txt\"\n";
    let proxy = folder.serve_tokens(&origin.url(), tokens);
    let reloads = |page: &str, list: &str, result: &str| {
        count(page, &format!("patgate_reloads_total{{list=\"{list}\",result=\"{result}\"}}"))
    };
    let page_when =
        |what: &str, fits: &dyn Fn(&str) -> bool| eventually(what, || Some(page(&proxy)).filter(|page| fits(page)));
    // in one step, so that nothing half-written is seen
    let put = |name: &str, text: &str| std::fs::rename(folder.write("next", text), folder.path(name)).unwrap();
    let first = page(&proxy);
    assert_eq!((reloads(&first, "tokens", "success"), reloads(&first, "tokens", "failure")), (1, 0));
    assert_eq!(reloads(&first, "deny_list", "success"), 1);
    assert_eq!(count(&first, "patgate_reload_duration_seconds_count"), 1);
    assert_eq!(count(&first, "patgate_revocation_lag_seconds_count"), 0, "nothing has changed yet");

    let good = folder.read("tokens.toml");
    put("tokens.toml", "[[tokens]]\n");
    let bad = page_when("a bad list", &|page| count(page, "patgate_token_source_troubled") == 1);
    assert_eq!(reloads(&bad, "tokens", "failure"), 1);
    assert_eq!(count(&bad, "patgate_token_list_generation"), count(&first, "patgate_token_list_generation"));
    // looking at what is no good confirms nothing
    page_when("the list to age", &|page| value(page, "patgate_token_list_age_seconds") > 0.5);

    put("tokens.toml", &good);
    let mended = page_when("a good list", &|page| count(page, "patgate_token_source_troubled") == 0);
    assert_eq!((reloads(&mended, "tokens", "success"), reloads(&mended, "tokens", "failure")), (2, 1));
    page_when("the list to be confirmed", &|page| value(page, "patgate_token_list_age_seconds") < 0.1);

    let id = token.strip_prefix("mcp_pat_").unwrap().split('_').next().unwrap();
    put("revoked.txt", id);
    // it is observed last
    let denied = page_when("a denied token", &|page| count(page, "patgate_revocation_lag_seconds_count") == 2);
    assert_eq!(proxy.ask(&get(&token, "")).status, 401);
    assert_eq!(reloads(&denied, "deny_list", "success"), 2);
    // the second look at the file, at least
    assert!(value(&denied, "patgate_revocation_lag_seconds_sum") > 0.06, "{denied}");
    assert!(count(&denied, "patgate_token_list_generation") > count(&mended, "patgate_token_list_generation"));
}

#[test]
fn what_is_known_of_tokens_is_told_apart_from_what_had_to_be_worked_out() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let hash = bcrypt::hash("legacy_pat_one", 4).unwrap();
    let record = format!("[[tokens]]\nid = \"t1\"\nhash = \"{hash}\"\nprefix = \"legacy_pat\"\nuser = \"alice\"\n");
    folder.write("tokens.toml", &record);
    let proxy = folder.serve(&origin.url(), "");
    for (token, status) in [("legacy_pat_one", 200), ("legacy_pat_one", 200), ("legacy_pat_two", 401)] {
        assert_eq!(proxy.ask(&get(token, "")).status, status);
    }
    let page = page(&proxy);
    let cache = |what: &str| count(&page, &format!("patgate_cache_{what}"));
    assert_eq!(cache("requests_total{cache=\"bcrypt\",result=\"hit\"}"), 1);
    assert_eq!(cache("requests_total{cache=\"bcrypt\",result=\"miss\"}"), 2);
    assert_eq!(cache("entries{cache=\"bcrypt\",kind=\"found\"}"), 1);
    assert_eq!(cache("entries{cache=\"bcrypt\",kind=\"nothing\"}"), 1);
    assert!(!page.contains("cache=\"lookup\""), "there is no such source");
}

#[test]
fn a_session_is_counted_as_soon_as_it_is_there() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nMcp-Session-Id: s1\r\ncontent-length: 0\r\n\r\n");
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "");
    assert_eq!(count(&page(&proxy), "patgate_sessions"), 0);
    assert_eq!(proxy.ask(&get(&token, "")).status, 200);
    assert_eq!(count(&page(&proxy), "patgate_sessions"), 1);
}
