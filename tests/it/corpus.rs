//! What fuzzing has found worth keeping, held against the same oracles on every run.

#[path = "../fuzz/oracles/mod.rs"]
mod oracles;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Stdio;

use crate::harness::patgate;
use oracles::service::House;

/// Holds every file of a target's corpus against `check`.
fn replay(target: &str, check: impl Fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let mut seen = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        let data = fs::read(&path).unwrap();
        let held = catch_unwind(AssertUnwindSafe(|| check(&data)));
        assert!(held.is_ok(), "{} does not meet its oracle", path.display());
        seen += 1;
    }
    assert!(seen >= 4, "only {seen} files for {target}");
}

#[test]
fn every_file_meets_its_oracle() {
    for target in oracles::TARGETS {
        replay(target, |data| oracles::check(target, data));
    }
}

#[test]
fn no_bytes_of_a_client_come_through_without_a_token() {
    let mut child = None;
    let house = House::open(|config| {
        let mut command = patgate();
        command.args(["serve", "--config"]).arg(config).stdout(Stdio::null()).stderr(Stdio::null());
        child = Some(command.spawn().unwrap());
    });
    let mut child = child.unwrap();
    let replayed = catch_unwind(AssertUnwindSafe(|| replay("service", |data| house.check(data))));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(replayed.is_ok());
}
