//! What the process takes of its machine.

use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Measured at one moment. What a system does not tell is left out.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    /// Processor time of all threads since the start.
    pub cpu: Duration,
    /// Memory that is resident, in bytes.
    pub resident_memory: Option<u64>,
    /// File descriptors that are open.
    pub open_fds: Option<u64>,
    /// How many there may be; none if there is no limit.
    pub max_fds: Option<u64>,
}

impl Process {
    /// How many file descriptors are open.
    pub fn open_fds() -> Option<u64> {
        // the folder that is read here is open meanwhile, too
        std::fs::read_dir("/dev/fd").ok().map(|open| (open.count() as u64).saturating_sub(1))
    }

    /// Measures this process.
    pub fn measure() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        Self {
            cpu: Duration::try_from(cpu).unwrap_or_default(),
            resident_memory: resident_memory(),
            open_fds: Self::open_fds(),
            max_fds: getrlimit(Resource::Nofile).current,
        }
    }
}

/// The second number of `statm` (proc(5)), in pages.
fn resident_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_measured() {
        let held: Vec<_> = (0..10).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let memory = vec![1_u8; 64 * 1024 * 1024];
        let process = Process::measure();
        assert!(!process.cpu.is_zero(), "{process:?}");
        assert!(process.open_fds.is_some_and(|open| open > 10) && process.open_fds < process.max_fds, "{process:?}");
        if cfg!(target_os = "linux") {
            assert!(process.resident_memory.is_some_and(|bytes| bytes > 64 * 1024 * 1024), "{process:?}");
        }
        drop((held, memory));
    }
}
