//! Destinations that fail, block, fill up and vanish. No request waits, and nothing is lost in silence.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Folder, Origin, Proxy, eventually, get, patgate};
use crate::stage::Line;

/// Asks so often on one connection; each must be answered with this status.
fn ask(proxy: &Proxy, token: &str, count: usize, status: u16) {
    let mut line = Line::to(&proxy.address);
    for _ in 0..count {
        line.send(get(token, ""));
        assert_eq!(line.answer().status, status);
    }
}

/// A proxy whose audit log goes to this path.
fn serve(folder: &Folder, origin: &Origin, path: &str, more: &str) -> Proxy {
    folder.configure(&origin.url(), "");
    let text = folder.read("patgate.toml").replace("path = \"audit.jsonl\"", &format!("path = \"{path}\"\n{more}"));
    folder.write("patgate.toml", &text);
    folder.serve_with(&[], &[])
}

fn parse(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

fn make_fifo(folder: &Folder, name: &str) {
    assert!(Command::new("mkfifo").arg(folder.path(name)).status().unwrap().success());
}

#[test]
fn a_full_disk_costs_records_and_no_request() {
    let (origin, folder) = (Origin::plain(), Folder::new());
    let token = folder.token("alice", &[]);
    let mut proxy = serve(&folder, &origin, "/dev/full", "queue = 5");
    ask(&proxy, &token, 1, 200);
    let told = proxy.await_log("the audit log cannot be written: records wait in memory");
    assert!(told["error"].as_str().unwrap().contains("No space left"), "{told}");
    ask(&proxy, &token, 19, 200);
    proxy.await_log("audit records are lost from now on, and counted");
    proxy.signal("TERM");
    assert!(proxy.wait().success());
    assert_eq!(proxy.await_log_after_end("stopped")["audit_records_lost"], 20);
}

#[test]
fn giving_records_up_is_not_taken_for_writing_them() {
    let (origin, folder) = (Origin::plain(), Folder::new());
    let token = folder.token("alice", &[]);
    let mut proxy = serve(&folder, &origin, "/dev/full", "patience = \"100ms\"");
    let lost = || proxy.health("/metrics").body.contains("\npatgate_audit_records_lost_total 2\n");
    ask(&proxy, &token, 1, 200);
    thread::sleep(Duration::from_millis(800));
    ask(&proxy, &token, 1, 200);
    eventually("the second loss", || lost().then_some(()));
    thread::sleep(Duration::from_millis(800));
    proxy.signal("TERM");
    assert!(proxy.wait().success());
    proxy.await_log_after_end("stopped");
    let told = proxy.log().iter().filter(|entry| entry["message"] == "the audit log is written again").count();
    assert_eq!(told, 0, "{:?}", proxy.log());
}

#[test]
fn with_refuse_nothing_is_forwarded_while_the_log_cannot_be_written() {
    let (origin, folder) = (Origin::plain(), Folder::new());
    let token = folder.token("alice", &[]);
    fs::create_dir(folder.path("log")).unwrap();
    let mut proxy = serve(&folder, &origin, "log/audit.jsonl", "on_loss = \"refuse\"");
    ask(&proxy, &token, 3, 200);
    eventually("three records", || (folder.read("log/audit.jsonl").lines().count() == 3).then_some(()));
    fs::remove_dir_all(folder.path("log")).unwrap();
    ask(&proxy, &token, 1, 200);
    proxy.await_log("the audit log cannot be written: records wait in memory");
    let forwarded = origin.received().len();
    let mut line = Line::to(&proxy.address);
    line.send(get(&token, ""));
    let refused = line.answer();
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")));
    assert!(refused.body.contains("audit log"), "{refused:?}");
    // a bad token is not told from a good one, either
    ask(&proxy, "unknown", 3, 503);
    assert_eq!(origin.received().len(), forwarded);

    fs::create_dir(folder.path("log")).unwrap();
    proxy.await_log("the audit log is written again");
    ask(&proxy, &token, 1, 200);
    proxy.signal("TERM");
    assert!(proxy.wait().success());
    // what was written before the directory went is gone with it, unless the server was just looking what had become of
    // its last record; nothing that came later is
    let reasons: Vec<_> =
        parse(&folder.read("log/audit.jsonl")).iter().map(|record| record["reason"].clone()).collect();
    let first = reasons.iter().position(|reason| reason != "ok").unwrap();
    assert!((1..=4).contains(&first), "{reasons:?}");
    let later = ["audit_unavailable", "audit_unavailable", "audit_unavailable", "audit_unavailable", "ok"];
    assert_eq!(reasons[first..], later, "{reasons:?}");
}

#[test]
fn a_pipe_that_nobody_reads_holds_up_neither_start_nor_requests_nor_the_end() {
    let (origin, folder) = (Origin::plain(), Folder::new());
    let token = folder.token("alice", &[]);
    make_fifo(&folder, "pipe");
    let mut proxy = serve(&folder, &origin, "pipe", "queue = 400");
    ask(&proxy, &token, 100, 200);
    // a reader that goes away in the middle of a line, and one that reads nothing
    let mut first = [0; 100];
    std::io::Read::read_exact(&mut File::open(folder.path("pipe")).unwrap(), &mut first).unwrap();
    ask(&proxy, &token, 50, 200);
    let reader = File::open(folder.path("pipe")).unwrap();
    ask(&proxy, &token, 1500, 200);
    proxy.await_log("audit records are lost from now on, and counted");

    // a line or two are torn because their first reader left; the others are whole, and then it is told
    // what is missing
    let mut lines = BufReader::new(reader).lines().map_while(Result::ok);
    let (mut read, mut missing, mut torn) = (0, 0, 0);
    // the first reader has taken away what was in the pipe when it left, which is 64 KiB at most
    while read + missing < 1450 {
        match serde_json::from_str::<Value>(&lines.next().unwrap()) {
            Ok(record) if record["event"] == "audit_lost" => missing += record["lost"].as_u64().unwrap(),
            Ok(_) => read += 1,
            Err(_) => torn += 1,
        }
    }
    assert!(missing > 0 && read > 400 && torn <= 2 && read + missing <= 1650, "{missing} {read} {torn}");
    // nobody reads any more, and still it ends
    ask(&proxy, &token, 500, 200);
    let since = Instant::now();
    proxy.signal("TERM");
    assert!(proxy.wait().success());
    assert!(since.elapsed() < Duration::from_secs(15), "{:?}", since.elapsed());
}

#[test]
fn a_blocked_standard_output_does_not_hold_up_requests_or_the_end() {
    let (origin, folder) = (Origin::plain(), Folder::new());
    let token = folder.token("alice", &[]);
    let mut child = patgate()
        .current_dir(folder.path(""))
        .args(["serve", "--listen", "127.0.0.1:0", "--admin", "off", "--tokens", "tokens.toml", "--upstream"])
        .arg(origin.url())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let address = loop {
        let entry: Value = serde_json::from_str(&log.next().unwrap()).unwrap();
        if entry["message"] == "listening" {
            break entry["address"].as_str().unwrap().to_owned();
        }
    };
    let drained = thread::spawn(move || log.last());
    let mut line = Line::to(&address);
    for _ in 0..1000 {
        line.send(get(&token, ""));
        assert_eq!(line.answer().status, 200);
    }
    let since = Instant::now();
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    drop(line);
    let status = eventually("the end", || child.try_wait().unwrap());
    assert!(status.success() && since.elapsed() < Duration::from_secs(15));
    let last: Value = serde_json::from_str(&drained.join().unwrap().unwrap()).unwrap();
    assert_eq!(last["message"], "stopped");
    assert!(last["audit_records_lost"].as_u64().unwrap() > 0, "{last}");
}

#[test]
fn logrotate_moves_the_file_and_nothing_is_lost_or_written_twice() {
    let (origin, folder) = (Origin::plain(), Folder::new());
    let token = folder.token("alice", &[]);
    let proxy = folder.serve_audit(&origin.url(), "chain = true");
    thread::scope(|scope| {
        let asking = scope.spawn(|| (0..10).for_each(|_| ask(&proxy, &token, 100, 200)));
        let mut number = 0;
        while !asking.is_finished() {
            number += 1;
            // without the signal, it is noticed
            eventually("the file", || {
                fs::rename(folder.path("audit.jsonl"), folder.path(&format!("old.{number}"))).ok()
            });
            if number % 2 == 0 {
                proxy.signal("HUP");
            }
        }
        assert!(number > 5, "{number}");
    });
    proxy.signal("HUP");
    eventually("a new file", || folder.path("audit.jsonl").exists().then_some(()));
    let mut files: Vec<_> = fs::read_dir(folder.path("")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with("old."));
    drop(proxy.last_audit());
    files.push(folder.path("audit.jsonl"));
    let mut seqs: Vec<_> = files
        .iter()
        .flat_map(|path| parse(&fs::read_to_string(path).unwrap()))
        .map(|record| record["seq"].as_u64().unwrap())
        .collect();
    seqs.sort_unstable();
    assert!(seqs.into_iter().eq(1..=1000));
}

#[test]
fn files_that_are_set_aside_under_load_hold_every_record_once() {
    let (origin, folder) = (Origin::plain(), Folder::new());
    let token = folder.token("alice", &[]);
    let proxy = folder.serve_audit(&origin.url(), "chain = true\nrotate_size = \"64KiB\"");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| ask(&proxy, &token, 500, 200));
        }
    });
    drop(proxy.last_audit());
    let find = |command: &[&str]| {
        let mut program = patgate();
        program.arg("audit").args(command).args(["--config", "patgate.toml", "--json"]);
        let output = program.current_dir(folder.path("")).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let judged: Value = serde_json::from_str(&find(&["verify"])).unwrap();
    assert_eq!((&judged["intact"], &judged["first"], &judged["records"]), (&true.into(), &1.into(), &2000.into()));
    let records = parse(&find(&["query"]));
    let ids: std::collections::HashSet<_> = records.iter().map(|record| record["request_id"].to_string()).collect();
    assert_eq!((records.len(), ids.len()), (2000, 2000));
    let files = fs::read_dir(folder.path("")).unwrap().map(|entry| entry.unwrap().file_name());
    let set_aside = files.filter(|name| name.to_string_lossy().starts_with("audit.jsonl.")).count();
    assert!(set_aside >= 10, "{set_aside}");
}

/// A limit on the size of files stands for a full disk: it takes half a line.
#[test]
fn half_a_line_in_a_full_file_is_written_whole_in_the_next() {
    let (origin, folder) = (Origin::plain(), Folder::new());
    let token = folder.token("alice", &[]);
    folder.configure(&origin.url(), "");
    let program = env!("CARGO_BIN_EXE_patgate");
    let script = format!("trap '' XFSZ; ulimit -f 9; exec '{program}' \"$@\"");
    folder.write("limited.sh", &script);
    let mut proxy = Proxy::start_by("sh", &["limited.sh"], &folder.path(""));
    ask(&proxy, &token, 100, 200);
    proxy.await_log("the audit log cannot be written: records wait in memory");
    let (mut written, mut torn) = (String::new(), 0);
    let records = loop {
        // as full as it gets, or the last one
        let text = eventually("a full file", || {
            let text = folder.read("audit.jsonl");
            let whole = parse(&written).len() + text.matches('\n').count() >= 100;
            (whole || text.len() >= 9 * 512).then_some(text)
        });
        fs::rename(folder.path("audit.jsonl"), folder.path("old")).unwrap();
        written.push_str(&text[..=text.rfind('\n').unwrap()]);
        torn += usize::from(!text.ends_with('\n'));
        let records = parse(&written);
        if records.len() >= 100 {
            break records;
        }
        proxy.signal("HUP");
        eventually("the next file", || folder.path("audit.jsonl").exists().then_some(()));
    };
    let ids: std::collections::HashSet<_> = records.iter().map(|record| record["request_id"].to_string()).collect();
    assert_eq!((records.len(), ids.len()), (100, 100));
    assert!(torn > 0, "no line was written by half");
}
