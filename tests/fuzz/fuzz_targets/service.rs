#![no_main]

#[path = "../oracles/mod.rs"]
mod oracles;

use std::ffi::OsStr;
use std::path::Path;
use std::sync::OnceLock;

use clap::Parser;
use oracles::service::House;
use patgate::cli::Cli;

static HOUSE: OnceLock<House> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        // Rust does this before its own main, and this program's main is the fuzzer's
        // SAFETY: no thread runs yet, and to ignore a signal needs no handler
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    },
    |data: &[u8]| HOUSE.get_or_init(|| House::open(start)).check(data)
);

/// In this process, so that the fuzzer sees which code its bytes reach.
fn start(config: &Path) {
    let arguments = [OsStr::new("patgate"), OsStr::new("serve"), OsStr::new("--config"), config.as_os_str()];
    let program = Cli::parse_from(arguments);
    std::thread::spawn(|| program.run());
}
