//! The writer against destinations that fail, fill up, move and vanish.

use std::panic;
use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::audit::{AuditLog, OnLoss, OpenRecord, Rotation, Writer, siblings};
use crate::token::Prefix;
use crate::verdict::Ended;

/// Longer than anything takes here.
const PATIENCE: Duration = Duration::from_secs(20);

struct Scene {
    folder: TempDir,
    params: Params,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let destination = Destination::File(folder.path().join("in/log"));
        fs::create_dir(folder.path().join("in")).unwrap();
        let (rotation, prefix) = (Rotation::default(), Prefix::default());
        let (on_loss, patience) = (OnLoss::Count, PATIENCE);
        let params = Params {
            destination,
            queue: 1000,
            on_loss,
            patience,
            rotation,
            chain: true,
            prefix,
            by_token: false,
            spans: None,
        };
        Self { folder, params }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("in/log")
    }

    fn open(&self) -> (AuditLog, Writer) {
        AuditLog::open(&self.params).unwrap()
    }

    /// All lines, in the order of the files.
    fn lines(&self) -> Vec<Value> {
        let files = siblings(&self.path()).into_iter().chain([self.path()]);
        let text: String = files.map(|path| fs::read_to_string(path).unwrap_or_default()).collect();
        text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }
}

fn submit(log: &AuditLog, count: usize) {
    (0..count).for_each(|_| log.begin_unread(None, |_| {}).close(Ended::Complete));
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn no_record_waits_for_a_later_one() {
    let scene = Scene::new();
    let (log, writer) = scene.open();
    for (pause, count) in [(0, 1), (0, 1), (2, 1), (0, 2), (2, 30), (0, 1)] {
        // the writer gathers, or it waits to be told
        thread::sleep(pause * GATHER);
        submit(&log, count);
        eventually("the record to be written", || log.queued() == 0);
    }
    assert!(writer.finish(PATIENCE));
}

#[test]
fn what_cannot_be_written_waits_and_what_does_not_fit_is_told_of() {
    let mut scene = Scene::new();
    scene.params.queue = 10;
    let (log, writer) = scene.open();
    submit(&log, 1);
    // and all that follows from it: a file that goes while it is looked after is written anew
    eventually("the first record", || scene.lines().len() == 1 && log.queued() == 0);
    fs::remove_dir_all(scene.folder.path().join("in")).unwrap();
    submit(&log, 15);
    eventually("a loss", || log.lost() == 5);
    fs::create_dir(scene.folder.path().join("in")).unwrap();
    assert!(writer.finish(PATIENCE));
    let lines = scene.lines();
    let (waited, lost) = lines.split_at(10);
    assert!(waited.iter().all(|line| line["event"] == "request"), "{lines:#?}");
    // the writer may have come by while they were lost
    assert!(lost.iter().all(|line| line["event"] == "audit_lost"), "{lines:#?}");
    assert_eq!(lost.iter().filter_map(|line| line["lost"].as_u64()).sum::<u64>(), 5);
    assert_eq!(lost[0]["since"].as_str().map(str::len), Some(27));
    assert!((2..).zip(&lines).all(|(seq, line)| line["seq"] == seq), "{lines:#?}");
}

#[test]
fn what_has_waited_too_long_is_lost_and_told_of_and_the_chain_goes_on() {
    let mut scene = Scene::new();
    scene.params.patience = Duration::from_millis(300);
    let (log, writer) = scene.open();
    submit(&log, 1);
    // and all that follows from it: a file that goes while it is looked after is written anew
    eventually("the first record", || scene.lines().len() == 1 && log.queued() == 0);
    fs::rename(scene.path(), scene.folder.path().join("before")).unwrap();
    fs::remove_dir_all(scene.folder.path().join("in")).unwrap();
    submit(&log, 15);
    eventually("the loss of all", || log.lost() == 15);
    submit(&log, 2);
    eventually("the loss of those, too", || log.lost() == 17);
    fs::create_dir(scene.folder.path().join("in")).unwrap();
    submit(&log, 1);
    assert!(writer.finish(PATIENCE));
    let lines = scene.lines();
    let told: u64 =
        lines.iter().filter(|line| line["event"] == "audit_lost").filter_map(|line| line["lost"].as_u64()).sum();
    assert_eq!((told, lines.iter().filter(|line| line["event"] == "request").count()), (17, 1), "{lines:#?}");
    let before = fs::read_to_string(scene.folder.path().join("before")).unwrap();
    let all = before + &fs::read_to_string(scene.path()).unwrap();
    let sealed: Vec<_> = all.lines().map(|line| Sealed::read(line.as_bytes()).expect(&all)).collect();
    assert!(sealed.windows(2).all(|pair| pair[1].follows(&pair[0].head.hash)), "{all}");
}

#[test]
fn a_request_that_must_have_a_record_is_refused_while_there_is_no_room_for_one() {
    let mut scene = Scene::new();
    (scene.params.queue, scene.params.on_loss) = (3, OnLoss::Refuse);
    let (log, writer) = scene.open();
    let running: Vec<_> = (0..4).map(|_| log.begin_unread(None, |_| {})).collect();
    assert_eq!(running.iter().map(OpenRecord::has_room).collect::<Vec<_>>(), [true, true, true, false]);
    drop(running);
    eventually("three records", || scene.lines().len() >= 3);
    eventually("room", || log.begin_unread(None, |_| {}).has_room());
    fs::remove_dir_all(scene.folder.path().join("in")).unwrap();
    eventually("the failure to be noticed", || !log.begin_unread(None, |_| {}).has_room());
    fs::create_dir(scene.folder.path().join("in")).unwrap();
    eventually("the end of it", || log.begin_unread(None, |_| {}).has_room());
    assert!(writer.finish(PATIENCE));
}

#[test]
fn files_are_set_aside_under_load_and_the_chain_goes_through_all_of_them() {
    let mut scene = Scene::new();
    scene.params.queue = 100_000;
    scene.params.rotation.size = Some(PIECE as u64);
    for _ in 0..2 {
        let (log, writer) = scene.open();
        thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(|| submit(&log, 1000)))));
        assert!(writer.finish(PATIENCE));
    }
    assert!(siblings(&scene.path()).len() > 10);
    let lines = scene.lines();
    assert_eq!(lines.len(), 8000);
    assert!((1..).zip(&lines).all(|(seq, line)| line["seq"] == seq));
    let with_previous = lines.iter().filter(|line| line.get("prev").is_some()).count();
    // the second process went on with the file of the first
    assert_eq!(with_previous, siblings(&scene.path()).len() + 1);
}

#[test]
fn a_chain_goes_on_from_whichever_copy_can_be_read_and_begins_anew_where_none_can() {
    let scene = Scene::new();
    let run = || {
        let (log, writer) = scene.open();
        submit(&log, 1);
        assert!(writer.finish(PATIENCE));
        let line: Value = serde_json::from_str(&fs::read_to_string(scene.path()).unwrap()).unwrap();
        line["seq"].as_u64().unwrap()
    };
    let aside = |end: &str| scene.folder.path().join(format!("in/log.20261122T080000.000000Z{end}"));
    assert_eq!(run(), 1);
    fs::rename(scene.path(), aside("")).unwrap();
    let packed = zstd::encode_all(&*fs::read(aside("")).unwrap(), 1).unwrap();
    let half = &packed[..packed.len() / 2];
    fs::write(aside(".gz"), half).unwrap();
    assert_eq!(run(), 2);
    // one that was set aside without a record, as logrotate does, ends nothing
    fs::remove_file(scene.path()).unwrap();
    fs::write(scene.folder.path().join("in/log.20261122T080000.000001Z"), "").unwrap();
    assert_eq!(run(), 2);
    fs::remove_file(scene.path()).unwrap();
    fs::remove_file(aside("")).unwrap();
    assert_eq!(run(), 1);
    fs::remove_file(scene.path()).unwrap();
    fs::write(aside(".zst"), packed).unwrap();
    assert_eq!(run(), 2);
}

#[test]
fn a_line_that_an_earlier_process_left_torn_is_fenced_and_reported() {
    let scene = Scene::new();
    for round in [1, 2] {
        let (log, writer) = scene.open();
        submit(&log, 1);
        assert!(writer.finish(PATIENCE));
        let text = fs::read_to_string(scene.path()).unwrap();
        assert_eq!(text.lines().count(), [1, 4][round - 1]);
        fs::write(scene.path(), text + "{\"ts\":\"2026-11").unwrap();
    }
    let text = fs::read_to_string(scene.path()).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[1], "{\"ts\":\"2026-11");
    let report: Value = serde_json::from_str(lines[2]).unwrap();
    assert_eq!((&report["event"], &report["torn_bytes"]), (&"audit_torn".into(), &14.into()));
    let sealed = [0, 2, 3].map(|index| Sealed::read(lines[index].as_bytes()).unwrap());
    assert!(sealed[1].follows(&sealed[0].head.hash) && sealed[2].follows(&sealed[1].head.hash));
}

#[test]
fn a_file_that_was_moved_is_left_and_one_that_was_removed_takes_nothing_with_it() {
    let scene = Scene::new();
    let (log, writer) = scene.open();
    submit(&log, 1);
    eventually("the record", || scene.lines().len() == 1);
    fs::rename(scene.path(), scene.folder.path().join("in/log.1")).unwrap();
    log.reopen();
    eventually("a new file", || scene.path().exists());
    submit(&log, 1);
    eventually("the next record", || scene.lines().len() == 2);
    // moved, and nobody said so: the record goes into either
    fs::rename(scene.path(), scene.folder.path().join("in/log.0")).unwrap();
    submit(&log, 1);
    eventually("the third record", || scene.lines().len() == 3);
    fs::remove_file(scene.path()).unwrap_or_default();
    submit(&log, 1);
    assert!(writer.finish(PATIENCE));
    assert_eq!(scene.lines().last().unwrap()["seq"], 4);
    assert_eq!(log.lost(), 0);
}

#[test]
fn whenever_a_file_is_moved_the_operators_word_brings_a_new_one() {
    let mut scene = Scene::new();
    scene.params.queue = 100_000;
    let (log, writer) = scene.open();
    for round in 0..100 {
        submit(&log, 500);
        // about when they are written, a little later each time
        thread::sleep(Duration::from_micros(100 * round));
        fs::rename(scene.path(), scene.folder.path().join("in/moved")).unwrap();
        log.reopen();
        eventually("a new file", || scene.path().exists());
    }
    assert!(writer.finish(PATIENCE));
    assert_eq!((log.accepted(), log.lost()), (50_000, 0));
}

#[test]
fn a_chain_has_one_writer() {
    let scene = Scene::new();
    let (_log, writer) = scene.open();
    assert!(AuditLog::open(&scene.params).unwrap_err().to_string().contains("another process"));
    assert!(writer.finish(PATIENCE));
    drop(scene.open());
}

#[test]
fn a_request_that_ends_in_a_panic_has_its_record_and_only_one() {
    let scene = Scene::new();
    let (log, writer) = scene.open();
    let record = log.begin_unread(None, |_| {});
    let panicked = panic::catch_unwind(panic::AssertUnwindSafe(move || {
        let _record = record;
        panic::resume_unwind(Box::new("a failure"));
    }));
    assert!(panicked.is_err() && writer.finish(PATIENCE));
    let lines = scene.lines();
    assert_eq!(lines.len(), 1);
    let facts = ["outcome", "reason", "ended"].map(|key| lines[0][key].as_str().unwrap());
    assert_eq!(facts, ["error", "internal_error", "failed"]);
}

#[test]
fn the_end_does_not_wait_for_a_destination_that_takes_nothing() {
    let mut scene = Scene::new();
    scene.params.destination = Destination::File("/dev/full".into());
    scene.params.chain = false;
    let (log, writer) = scene.open();
    submit(&log, 7);
    let since = Instant::now();
    assert!(!writer.finish(Duration::from_millis(300)));
    assert!(since.elapsed() < PATIENCE);
    assert_eq!(log.lost(), 7);
}
