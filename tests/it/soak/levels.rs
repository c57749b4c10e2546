//! What a running proxy holds: as the system sees it, and as it says itself.

use std::fs;

use crate::harness::{Proxy, eventually};

/// What a process holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Levels {
    pub descriptors: usize,
    /// The names of its threads, without those that the runtime starts to read files.
    pub threads: Vec<String>,
    pub readers: usize,
    /// What is not backed by a file, in KiB.
    pub memory: u64,
}

impl Levels {
    pub fn of(proxy: &Proxy) -> Self {
        let process = format!("/proc/{}", proxy.pid());
        let status = fs::read_to_string(format!("{process}/status")).unwrap();
        let memory = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        let tasks = fs::read_dir(format!("{process}/task")).unwrap();
        // one that ends meanwhile has no name any more
        let names = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok());
        let (readers, mut threads): (Vec<_>, Vec<_>) = names.partition(|name| name == "tokio-rt-worker\n");
        threads.sort();
        Self {
            descriptors: fs::read_dir(format!("{process}/fd")).unwrap().count(),
            threads,
            readers: readers.len(),
            memory: memory.split_whitespace().next().unwrap().parse().unwrap(),
        }
    }

    /// The levels of a proxy that has just started, once it has done so.
    pub fn at_rest(proxy: &Proxy) -> Self {
        let (mut last, mut same) = (Self::of(proxy), 0);
        eventually("levels that stay", || {
            let now = Self::of(proxy);
            same = if now.descriptors == last.descriptors && now.threads == last.threads { same + 1 } else { 0 };
            last = now.clone();
            (same == 50).then_some(now)
        })
    }

    /// The highest of each.
    pub fn max(self, other: Self) -> Self {
        Self {
            descriptors: self.descriptors.max(other.descriptors),
            threads: if self.threads.len() > other.threads.len() { self.threads } else { other.threads },
            readers: self.readers.max(other.readers),
            memory: self.memory.max(other.memory),
        }
    }
}

/// What the proxy itself says is open: connections of both sides, and answers.
pub fn open(page: &str) -> Vec<&str> {
    let names = ["patgate_open_connections ", "patgate_upstream_connections ", "patgate_open_streams "];
    page.lines().filter_map(|line| names.iter().find_map(|name| line.strip_prefix(name))).collect()
}
