//! What a service manager is told: that we listen, read files again, or stop (sd_notify(3)).

use std::io;
use std::os::unix::net::UnixDatagram;

use rustix::time::{ClockId, clock_gettime};

/// We serve.
pub(super) const READY: &str = "READY=1\nSTATUS=serving";
/// We do not begin anything new.
pub(super) const STOPPING: &str = "STOPPING=1\nSTATUS=draining";

/// Tells the manager, if there is one that wants to know.
pub(super) fn notify(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(state, socket.as_encoded_bytes()) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

/// That files are about to be read again; the time tells the manager which of its signals is meant.
pub(super) fn reloading() -> String {
    let now = clock_gettime(ClockId::Monotonic);
    let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
    format!("RELOADING=1\nMONOTONIC_USEC={micros}")
}

fn send(state: &str, socket: &[u8]) -> io::Result<()> {
    let datagram = UnixDatagram::unbound()?;
    #[cfg(target_os = "linux")]
    if let Some(name) = socket.strip_prefix(b"@") {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::net::SocketAddr;
        return datagram.send_to_addr(state.as_bytes(), &SocketAddr::from_abstract_name(name)?).map(drop);
    }
    let path = std::path::Path::new(std::ffi::OsStr::new(str::from_utf8(socket).map_err(io::Error::other)?));
    datagram.send_to(state.as_bytes(), path).map(drop)
}
