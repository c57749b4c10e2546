//! Where clients come in: a TCP address shared by all workers, or a Unix socket.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdTcpListener, ToSocketAddrs};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use listenfd::ListenFd;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, UnixListener};

use super::stream::Transport;
use crate::proxy::Peer;

const BACKLOG: i32 = 1024;

/// How many bytes the system may hold that it cannot send because the client does not take them. By itself it takes
/// megabytes for each client, and a thousand that read slowly use up what the whole machine has for TCP.
const UNSENT: u32 = 128 * 1024;

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// `host:port`; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// `unix:/path`.
    Unix(PathBuf),
    /// `systemd`: a socket that was opened for us and handed over (sd_listen_fds(3)).
    HandedOver,
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unusable = || format!("`{text}` is not an address to listen on: write 127.0.0.1:8080 or unix:/path");
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') { Ok(Self::Unix(path.into())) } else { Err(unusable()) };
        }
        if text == "systemd" {
            return Ok(Self::HandedOver);
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Tcp(address));
        }
        // a name, such as localhost
        let mut found = text.to_socket_addrs().map_err(|_| unusable())?;
        found.next().map(Self::Tcp).ok_or_else(unusable)
    }
}

impl ListenAddress {
    /// Whether nobody can listen at both.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(one), Self::Tcp(two)) => {
                let all = |address: &SocketAddr, other: &SocketAddr| {
                    address.ip().is_unspecified() && (address.is_ipv6() || other.is_ipv4())
                };
                one.port() == two.port() && one.port() != 0 && (one.ip() == two.ip() || all(one, two) || all(two, one))
            }
            (Self::Unix(one), Self::Unix(two)) => one == two,
            _ => false,
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::HandedOver => f.write_str("systemd"),
        }
    }
}

/// Why nobody can come in.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else listens there.
    #[error("{0} is in use: another process listens there; stop it, or choose another address")]
    InUse(ListenAddress),
    /// Something else has the name of the socket.
    #[error("{0} is a {1} and no socket: remove it, or choose another path")]
    NotASocket(ListenAddress, &'static str),
    /// Nobody has opened a socket for us.
    #[error("no socket was handed over: `systemd` stands for the one of a socket unit; name an address instead")]
    NotHandedOver,
    /// It would be plain HTTP where the operator wants TLS.
    #[error("a Unix socket was handed over, and [tls] is not spoken there: hand over a socket of TCP, or leave it out")]
    NotForTls,
    /// The system says no.
    #[error("cannot listen on {0}: {1}{advice}", advice = advice(.0, .1))]
    Failed(ListenAddress, #[source] io::Error),
}

/// What to do about it, where that can be told.
fn advice(address: &ListenAddress, error: &io::Error) -> &'static str {
    match (address, error.kind()) {
        (ListenAddress::Tcp(_), io::ErrorKind::PermissionDenied) => {
            ": choose a port from 1024 on, or give the program the capability CAP_NET_BIND_SERVICE"
        }
        (ListenAddress::Tcp(_), io::ErrorKind::AddrNotAvailable) => {
            ": this machine has no such address; name one of its own, or 0.0.0.0 or [::] for all of them"
        }
        (ListenAddress::Unix(_), io::ErrorKind::PermissionDenied) => {
            ": let the user that patgate runs as write to its folder"
        }
        (ListenAddress::Unix(_), io::ErrorKind::NotFound) => ": make the folder that it is to be in",
        _ => "",
    }
}

/// A bound socket that has not been given to a worker yet.
#[derive(Debug)]
pub(super) enum Bound {
    Tcp(StdTcpListener),
    Unix(StdUnixListener),
}

/// Binds `address` once for each of `workers`, and tells which address it came to be. Clients that say nothing are
/// asked every `keep_alive` whether they are still there.
pub(super) fn bind(
    address: &ListenAddress,
    workers: usize,
    keep_alive: Duration,
) -> Result<(Vec<Bound>, ListenAddress), BindError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse(address.clone()),
        _ => BindError::Failed(address.clone(), error),
    };
    match address {
        ListenAddress::Tcp(address) => {
            let first = bind_tcp(*address, Share::AfterBinding, keep_alive).map_err(failed)?;
            let actual = first.local_addr().map_err(failed)?;
            let mut sockets = vec![Bound::Tcp(first)];
            for _ in 1..workers {
                sockets.push(Bound::Tcp(bind_tcp(actual, Share::BeforeBinding, keep_alive).map_err(failed)?));
            }
            Ok((sockets, ListenAddress::Tcp(actual)))
        }
        ListenAddress::Unix(path) => {
            if let Some(kind) = not_a_socket(path) {
                return Err(BindError::NotASocket(address.clone(), kind));
            }
            let socket = Bound::Unix(bind_unix(path).map_err(failed)?);
            let copies: io::Result<Vec<_>> = (0..workers).map(|_| socket.share()).collect();
            Ok((copies.map_err(failed)?, address.clone()))
        }
        ListenAddress::HandedOver => {
            let mut handed_over = ListenFd::from_env();
            let (socket, address) = match handed_over.take_tcp_listener(0) {
                Ok(Some(listener)) => {
                    let address = listener.local_addr().map_err(failed)?;
                    tune(&SockRef::from(&listener), keep_alive).map_err(failed)?;
                    (Bound::Tcp(listener), ListenAddress::Tcp(address))
                }
                // no socket of TCP, perhaps another
                _ => match handed_over.take_unix_listener(0).map_err(failed)? {
                    Some(listener) => (Bound::Unix(listener), ListenAddress::HandedOver),
                    None => return Err(BindError::NotHandedOver),
                },
            };
            let copies: io::Result<Vec<_>> = (0..workers).map(|_| socket.share()).collect();
            Ok((copies.map_err(failed)?, address))
        }
    }
}

impl Bound {
    /// The same socket once more: whichever worker is first takes a connection.
    fn share(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                listener.try_clone().map(Self::Tcp)
            }
            Self::Unix(listener) => {
                listener.set_nonblocking(true)?;
                listener.try_clone().map(Self::Unix)
            }
        }
    }
}

/// When a socket begins to share its port. The first one binds alone, so that a second process meets
/// an error instead of taking half of the connections; only then may the other workers join it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Share {
    AfterBinding,
    BeforeBinding,
}

fn bind_tcp(address: SocketAddr, share: Share, keep_alive: Duration) -> io::Result<StdTcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share == Share::BeforeBinding)?;
    socket.bind(&address.into())?;
    socket.set_reuse_port(true)?;
    // before anybody can connect: who comes while the workers start must not go without
    tune(&SockRef::from(&socket), keep_alive)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Sets what each accepted socket inherits.
fn tune(socket: &SockRef<'_>, keep_alive: Duration) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    // the system counts in seconds
    let [time, interval] = [keep_alive, keep_alive / 3].map(|time| time.max(Duration::from_secs(1)));
    let keep_alive = TcpKeepalive::new().with_time(time).with_interval(interval).with_retries(3);
    socket.set_tcp_keepalive(&keep_alive)?;
    socket.set_tcp_notsent_lowat(UNSENT)
}

/// What has the name of the socket, if that is no socket.
fn not_a_socket(path: &Path) -> Option<&'static str> {
    let kind = path.symlink_metadata().ok()?.file_type();
    match kind {
        _ if kind.is_socket() => None,
        _ if kind.is_dir() => Some("folder"),
        _ if kind.is_symlink() => Some("link"),
        _ => Some("file"),
    }
}

/// A socket file that nobody listens on is left over from a process that was killed.
fn bind_unix(path: &Path) -> io::Result<StdUnixListener> {
    let is_socket = path.symlink_metadata().is_ok_and(|found| found.file_type().is_socket());
    if is_socket && StdUnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
        std::fs::remove_file(path)?;
    }
    StdUnixListener::bind(path)
}

/// A socket of one worker's own.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Takes a bound socket into the current runtime.
    pub(super) fn new(bound: Bound) -> io::Result<Self> {
        Ok(match bound {
            Bound::Tcp(listener) => Self::Tcp(TcpListener::from_std(listener)?),
            Bound::Unix(listener) => Self::Unix(UnixListener::from_std(listener)?),
        })
    }

    pub(super) async fn accept(&self) -> io::Result<(Transport, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                let local = stream.local_addr()?.ip().to_canonical();
                Ok((Transport::Tcp(stream), peer(Some(address.ip().to_canonical()), local.is_loopback())))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Transport::Unix(stream), peer(None, false)))
            }
        }
    }
}

/// As nothing has been said yet.
fn peer(ip: Option<IpAddr>, on_loopback: bool) -> Peer {
    Peer { ip, on_loopback, secure: false, names_nobody: false }
}
