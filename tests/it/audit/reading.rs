//! `patgate audit query` and `verify`, on logs that the program wrote.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::{Folder, Origin, get, patgate};
use crate::stage::Line;

/// A log with a chain: four requests of alice, two of bob, one without a token, in two files; and the
/// configuration that names it.
fn written() -> (Folder, String) {
    let (origin, folder) = (Origin::plain(), Folder::new());
    let (alice, bob) = (folder.token("alice", &[]), folder.token("bob", &[]));
    let proxy = folder.serve_audit(&origin.url(), "chain = true\nrotate_size = \"64KiB\"");
    let ask = |token: &str, path: &str| {
        proxy.ask(&get(token, "").replace("/mcp", path).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"))
    };
    assert_eq!(ask(&alice, "/mcp").status, 200);
    assert_eq!(ask(&alice, "/mcp/other").status, 200);
    proxy.audit(2);
    fs::rename(folder.path("audit.jsonl"), folder.path("audit.jsonl.20261122T080000.000000Z")).unwrap();
    proxy.signal("HUP");
    for token in [&alice, &alice, &bob, &bob, "unknown"] {
        ask(token, "/mcp");
    }
    drop(proxy.last_audit());
    (folder, alice)
}

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

fn say(folder: &Folder, line: &str) -> Said {
    let output = folder.run(&line.split_whitespace().collect::<Vec<_>>());
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

#[test]
fn records_are_found_by_what_is_in_them() {
    let (folder, alice) = written();
    let all = say(&folder, "audit query --config patgate.toml --json");
    assert_eq!((all.code, all.err.as_str()), (Some(0), ""));
    // unchanged, the oldest first
    assert_eq!(all.out, folder.read("audit.jsonl.20261122T080000.000000Z") + &folder.read("audit.jsonl"));
    let id = &alice[8..18];
    let request_id = serde_json::from_str::<Value>(all.out.lines().next().unwrap()).unwrap()["request_id"].clone();
    for (filter, count) in [
        (format!("--token-id {id}"), 4),
        ("--user bob".to_owned(), 2),
        ("--user bob --outcome denied".to_owned(), 0),
        ("--outcome denied".to_owned(), 1),
        ("--reason unknown_token".to_owned(), 1),
        ("--ip 127.0.0.1".to_owned(), 7),
        ("--ip ::1".to_owned(), 0),
        ("--since 1h".to_owned(), 7),
        ("--until 1h".to_owned(), 0),
        ("--since 2020-01-01 --until 2020-12-31".to_owned(), 0),
        (format!("--request-id {}", request_id.as_str().unwrap()), 1),
        ("--tool echo".to_owned(), 0),
        ("--session none".to_owned(), 0),
        ("--limit 3".to_owned(), 3),
        ("--last 2".to_owned(), 2),
    ] {
        let found = say(&folder, &format!("audit query --config patgate.toml --json {filter}"));
        assert_eq!((found.code, found.out.lines().count()), (Some(0), count), "{filter}: {}", found.err);
        assert_eq!(found.err.contains("no record matches"), count == 0);
    }
    let none = say(&folder, "audit query --config patgate.toml --json --limit 0");
    assert_eq!((none.code, none.out.as_str(), none.err.as_str()), (Some(0), "", ""));
    let last = say(&folder, "audit query --config patgate.toml --json --last 2");
    assert!(all.out.ends_with(&last.out));
}

#[test]
fn people_get_a_table_and_a_summary_of_each_token() {
    let (folder, alice) = written();
    let table = say(&folder, "audit query --config patgate.toml");
    let lines: Vec<_> = table.out.lines().collect();
    assert_eq!(lines.len(), 8);
    let columns = |line: &str| line.find("127.0.0.1").or_else(|| line.find("client"));
    assert!(lines.iter().all(|line| columns(line) == columns(lines[0])), "{}", table.out);
    assert!(lines[2].contains("GET /mcp/other"));

    let summary = say(&folder, "audit query --config patgate.toml --summary --json");
    let tokens: Vec<Value> = serde_json::from_str(&summary.out).unwrap();
    assert_eq!(tokens.len(), 3);
    let of_alice = tokens.iter().find(|token| token["token_id"] == alice[8..18]).unwrap();
    assert_eq!(
        (&of_alice["allowed"], &of_alice["user"], &of_alice["addresses"]["127.0.0.1"]),
        (&4.into(), &"alice".into(), &4.into())
    );
    assert!(of_alice["stopped_at"].is_null());
    assert_eq!((&tokens[2]["token_id"], &tokens[2]["denials"]["unknown_token"]), (&Value::Null, &1.into()));
    let summary = say(&folder, "audit query --config patgate.toml --summary");
    assert!(summary.out.contains("4 allowed, 0 denied, 0 failed"), "{}", summary.out);
}

#[test]
fn a_summary_tells_when_a_token_stopped_working() {
    let folder = Folder::new();
    let record = |minute: u32, outcome: &str, reason: &str, more: &str| {
        format!(
            "{{\"ts\":\"2026-11-22T08:{minute:02}:00.000000Z\",\"event\":\"request\",\"outcome\":\"{outcome}\",\
             \"reason\":\"{reason}\",\"pat_id\":\"k3V9mQ2xTa\"{more}}}\n"
        )
    };
    let tool = ",\"mcp_tool\":\"echo\",\"client_ip\":\"192.0.2.7\"";
    let log = [
        record(1, "denied", "not_yet_valid", ""),
        record(2, "allowed", "ok", tool),
        record(5, "denied", "revoked", ""),
        record(6, "denied", "revoked", ""),
        // begun before it was revoked, and ended later
        record(3, "allowed", "ok", tool),
    ];
    folder.write("log", &log.concat());
    let summary = say(&folder, "audit query log --summary --json");
    let token = &serde_json::from_str::<Value>(&summary.out).unwrap()[0];
    assert_eq!(
        (&token["stopped_at"], &token["stopped_for"]),
        (&"2026-11-22T08:05:00.000000Z".into(), &"revoked".into())
    );
    assert_eq!((&token["tools"]["echo"], &token["denials"]["revoked"]), (&2.into(), &2.into()));
    assert_eq!(token["first_seen"], "2026-11-22T08:01:00.000000Z");
    assert_eq!(token["last_seen"], "2026-11-22T08:06:00.000000Z");
    folder.write("log", &(log.concat() + &record(7, "allowed", "ok", "")));
    let summary = say(&folder, "audit query log --summary --json");
    assert!(serde_json::from_str::<Value>(&summary.out).unwrap()[0]["stopped_at"].is_null());
}

#[test]
fn lines_that_are_no_records_are_counted_and_terminals_are_safe_from_those_that_are() {
    let folder = Folder::new();
    let evil = "{\"ts\":\"2026-11-22T08:00:00.000000Z\",\"event\":\"request\",\"outcome\":\"allowed\",\"path\":\"/\\u001b[2J\u{9b}1m\u{202e}\",\"user\":\"a\\nb\"}\n";
    folder.write("log", &format!("noise\n{evil}\n{{}}\n{evil}{}", &evil[..40]));
    let table = say(&folder, "audit query log");
    assert_eq!(table.code, Some(0));
    assert_eq!(table.err, "warning: lines that are no audit records: 4, the first is log:1\n");
    assert_eq!(table.out.lines().count(), 3);
    assert!(!table.out.contains(['\u{1b}', '\u{9b}', '\u{202e}']), "{:?}", table.out);

    let missing = say(&folder, "audit query nowhere log");
    assert_eq!(missing.code, Some(1));
    assert!(missing.err.contains("nowhere cannot be read") && missing.out.lines().count() == 3, "{}", missing.err);
    assert_eq!(say(&folder, "audit query").code, Some(2));
}

#[test]
fn compressed_files_and_standard_input_are_read_like_plain_ones() {
    let (folder, _) = written();
    let all = say(&folder, "audit query --config patgate.toml --json").out;
    let old = folder.path("audit.jsonl.20261122T080000.000000Z");
    let mut gzip = flate2::write::GzEncoder::new(
        fs::File::create(old.with_extension("000000Z.gz")).unwrap(),
        flate2::Compression::fast(),
    );
    gzip.write_all(&fs::read(&old).unwrap()).unwrap();
    gzip.finish().unwrap();
    // a compressor may leave what it has read
    assert_eq!(say(&folder, "audit query --config patgate.toml --json").out, all);
    assert_eq!(say(&folder, "audit verify --config patgate.toml").code, Some(0));
    fs::remove_file(&old).unwrap();
    assert_eq!(say(&folder, "audit query --config patgate.toml --json").out, all);
    assert_eq!(say(&folder, "audit verify --config patgate.toml").code, Some(0));
    fs::write(folder.path("log.zst"), zstd::encode_all(all.as_bytes(), 1).unwrap()).unwrap();
    assert_eq!(say(&folder, "audit query log.zst --json").out, all);

    let mut child =
        patgate().args(["audit", "query", "-", "--json"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(all.as_bytes()).unwrap();
    assert_eq!(String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap(), all);
}

#[test]
fn a_reader_who_has_seen_enough_ends_a_query() {
    let folder = Folder::new();
    let (_, line) = (0, "{\"ts\":\"2026-11-22T08:00:00.000000Z\",\"event\":\"request\"}\n");
    folder.write("log", &line.repeat(100_000));
    for json in ["", "--json"] {
        let script = format!("'{}' audit query log {json} | head -n 2", env!("CARGO_BIN_EXE_patgate"));
        let output =
            Command::new("bash").args(["-o", "pipefail", "-c", &script]).current_dir(folder.path("")).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 2);
    }
}

#[test]
fn a_chain_is_verified_over_all_files_and_a_fault_is_named_with_its_place() {
    let (folder, _) = written();
    let verify = |more: &str| say(&folder, &format!("audit verify --config patgate.toml {more}"));
    let whole = verify("");
    assert_eq!(whole.code, Some(0), "{}", whole.out);
    assert!(
        whole.out.starts_with("7 records from 1 on, in 2 files: unaltered, complete and in order\nhead 7:"),
        "{}",
        whole.out
    );
    let judged: Value = serde_json::from_str(&verify("--json").out).unwrap();
    let head = judged["head"].as_str().unwrap();
    assert_eq!((&judged["intact"], &judged["records"]), (&true.into(), &7.into()));
    assert_eq!(verify(&format!("--head {head}")).code, Some(0));

    let text = folder.read("audit.jsonl");
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    let forged = text.replacen("\"user\":\"bob\"", "\"user\":\"eve\"", 1);
    let dropped = [&lines[..2], &lines[3..]].concat().concat();
    let swapped = [lines[0], lines[2], lines[1], lines[3], lines[4]].concat();
    for (text, said) in [
        (&*forged, "audit.jsonl:3: record 5 was altered\n"),
        (&*dropped, "audit.jsonl:3: record 5 is missing before 6\n"),
        (&*swapped, "audit.jsonl:2: record 5 stands where 4 belongs\n"),
        (&text[..text.len() - 9], "audit.jsonl:5: this is no whole record: torn by a crash, or altered\n"),
    ] {
        folder.write("audit.jsonl", text);
        let found = verify("");
        assert_eq!(found.code, Some(1));
        assert!(found.out.starts_with(said) && found.out.contains("NOT as they were written"), "{}", found.out);
    }
    // what was cut off can be seen only by who has noted the head
    folder.write("audit.jsonl", &lines[..4].concat());
    assert_eq!(verify("").code, Some(0));
    let cut = verify(&format!("--head {head}"));
    assert_eq!(cut.code, Some(1));
    assert!(cut.out.contains("the record 7 that was noted elsewhere is not there"), "{}", cut.out);
    folder.write("audit.jsonl", "{}\n");
    fs::remove_file(folder.path("audit.jsonl.20261122T080000.000000Z")).unwrap();
    assert!(verify("").out.contains("`audit.chain` was off"));
}

#[test]
fn the_head_is_told_when_others_set_the_file_aside_and_not_before_there_is_one() {
    let (origin, folder) = (Origin::plain(), Folder::new());
    let token = folder.token("alice", &[]);
    let mut proxy = folder.serve_audit(&origin.url(), "chain = true");
    proxy.signal("TERM");
    assert!(proxy.wait().success());
    proxy.await_log_after_end("stopped");
    assert!(!proxy.log().iter().any(|entry| entry["message"] == "the last audit record"));
    assert_eq!(say(&folder, "audit verify --config patgate.toml").code, Some(1));

    let mut proxy = folder.serve_audit(&origin.url(), "chain = true");
    assert_eq!(proxy.ask(&get(&token, "").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).status, 200);
    proxy.audit(1);
    fs::rename(folder.path("audit.jsonl"), folder.path("audit.jsonl.1")).unwrap();
    proxy.signal("HUP");
    let told = proxy.await_log("the last audit record before the log was moved");
    let head = told["head"].as_str().unwrap();
    assert!(head.starts_with("1:"), "{head}");
    assert_eq!(say(&folder, &format!("audit verify --config patgate.toml --head {head}")).code, Some(0));
    assert_eq!(say(&folder, &format!("audit verify --config patgate.toml --head 0:{}", "0".repeat(64))).code, Some(0));
}

#[test]
fn after_a_crash_the_torn_line_is_fenced_and_verify_names_it() {
    let (folder, token) = written();
    let text = folder.read("audit.jsonl");
    folder.write("audit.jsonl", &text[..text.len() - 30]);
    let origin = Origin::plain();
    let mut proxy = folder.serve_audit(&origin.url(), "chain = true");
    let mut line = Line::to(&proxy.address);
    line.send(get(&token, ""));
    assert_eq!(line.answer().status, 200);
    proxy.await_log("the last audit record is torn: it was not written to its end");
    proxy.signal("TERM");
    assert!(proxy.wait().success());
    let head = proxy.await_log_after_end("the last audit record")["head"].as_str().unwrap().to_owned();
    let verified = say(&folder, &format!("audit verify --config patgate.toml --head {head}"));
    assert_eq!(verified.code, Some(1));
    let lines: Vec<_> = verified.out.lines().collect();
    assert_eq!(lines[0], "audit.jsonl:5: this is no whole record: torn by a crash, or altered");
    assert!(lines[1].starts_with("8 records from 1 on, in 2 files: NOT"), "{}", verified.out);
    let torn: Value = serde_json::from_str(folder.read("audit.jsonl").lines().nth(5).unwrap()).unwrap();
    assert_eq!((&torn["event"], &torn["seq"]), (&"audit_torn".into(), &7.into()));
}

#[test]
fn of_a_chain_whose_file_is_not_there_nothing_is_said_but_that() {
    let (folder, _) = written();
    for command in ["verify", "verify --json"] {
        let none = say(&folder, &format!("audit {command} audit.jsonl gone other"));
        assert_eq!((none.code, none.out.as_str()), (Some(2), ""), "{command}");
        assert_eq!(
            none.err,
            "error: there is no file gone: correct its name\nerror: there is no file other: correct its name\n"
        );
    }
}
