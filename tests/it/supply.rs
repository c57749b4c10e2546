//! What the program is built from: locked, from one registry, and nothing that it does not use. Licences,
//! sources, duplicates and known weaknesses are for `cargo deny`, which tests/run calls.

use std::fs;

use toml::{Table, Value};

use crate::installed::repository;

fn table(name: &str) -> Table {
    fs::read_to_string(repository().join(name)).unwrap().parse().unwrap()
}

/// All Rust below a folder.
fn code(folder: &str) -> String {
    let (mut text, mut folders) = (String::new(), vec![repository().join(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text += &fs::read_to_string(path).unwrap();
            }
        }
    }
    text
}

#[test]
fn everything_is_locked_with_a_checksum_and_comes_from_one_registry() {
    let lock = table("Cargo.lock");
    let packages = lock["package"].as_array().unwrap();
    assert!(packages.len() > 100);
    for package in packages.iter().filter(|package| package["name"].as_str() != Some("patgate")) {
        let is_hash = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        assert_eq!(package["source"].as_str(), Some("registry+https://github.com/rust-lang/crates.io-index"));
        assert!(is_hash(package["checksum"].as_str().unwrap()), "{package}");
    }
    // what would find more is not told to look away
    assert!(table("deny.toml")["advisories"].get("ignore").is_none());
}

#[test]
fn every_dependency_is_of_use() {
    let manifest = table("Cargo.toml");
    for (section, folders) in
        [("dependencies", &["src"][..]), ("dev-dependencies", &["src", "tests/it", "tests/fuzz/oracles", "benches"])]
    {
        let code: String = folders.iter().map(|folder| code(folder)).collect();
        let dependencies = manifest[section].as_table().unwrap();
        assert!(dependencies.len() > 4);
        for name in dependencies.keys() {
            assert!(code.contains(&format!("{}::", name.replace('-', "_"))), "nobody uses {name}: leave it out");
        }
    }
}

#[test]
fn no_code_of_ours_is_unsafe() {
    // `forbid` cannot be taken back further in
    assert_eq!(table("Cargo.toml")["lints"]["rust"]["unsafe_code"], Value::from("forbid"));
}
