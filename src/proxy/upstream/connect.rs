//! Making a connection to the upstream: TCP, TLS over it, or a Unix socket.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::address::{Address, Endpoint};
use super::pool::{Connection, Socket};
use super::{Counts, Failure, Params};
use crate::descriptors::Descriptors;
use crate::tls::{self, Identity, Live, TlsError};

/// Bytes that an upstream has not taken note of for so long have met a machine that is gone without a
/// word, and so has silence after as many questions.
const UNHEARD: Duration = Duration::from_secs(20);

/// How an `https` upstream is spoken to.
#[derive(Clone, Debug)]
pub struct UpstreamTls {
    config: Live<ClientConfig>,
    name: Option<ServerName<'static>>,
}

impl UpstreamTls {
    /// Trust in the certificate authorities of `ca` (PEM), or in those of the system; a certificate of our
    /// own; the name that the upstream's certificate must have, if it is another than its address. The
    /// `files` among these are to be followed.
    ///
    /// # Errors
    /// There is nobody to trust, or the certificate cannot be used.
    pub fn open(
        files: Vec<PathBuf>,
        ca: Option<PathBuf>,
        identity: Option<Identity>,
        name: Option<ServerName<'static>>,
    ) -> Result<Self, TlsError> {
        let build = move || {
            let mut config = tls::client(ca.as_deref(), identity.as_ref())?;
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            Ok(config)
        };
        Ok(Self { config: Live::open(files, build)?, name })
    }

    /// What follows the files.
    pub fn live(&self) -> &Live<ClientConfig> {
        &self.config
    }
}

/// Opens connections to one address.
#[derive(Debug)]
pub(super) struct Connector {
    address: Address,
    tls: Option<UpstreamTls>,
    timeout: Duration,
    counts: Arc<Counts>,
    descriptors: Descriptors,
}

impl Connector {
    pub(super) fn new(params: &Params, counts: &Arc<Counts>, descriptors: &Descriptors) -> Self {
        let Params { address, tls, connect_timeout, .. } = params.clone();
        let (counts, descriptors) = (Arc::clone(counts), descriptors.clone());
        Self { address, tls, timeout: connect_timeout, counts, descriptors }
    }

    pub(super) async fn connect(&self) -> Result<Connection, Failure> {
        let place = self.descriptors.for_upstream().ok_or(Failure::Overloaded)?;
        match tokio::time::timeout(self.timeout, self.open()).await {
            Ok(socket) => socket.map(|socket| {
                self.counts.connected.inc();
                Connection::new(socket, place)
            }),
            Err(_) => Err(Failure::Timeout("to accept a connection")),
        }
    }

    async fn open(&self) -> Result<Box<dyn Socket>, Failure> {
        match self.address.endpoint() {
            Endpoint::Unix(path) => Ok(Box::new(UnixStream::connect(path).await.map_err(not_connected)?)),
            Endpoint::Tcp { authority, port, .. } => {
                let host = authority.host().trim_start_matches('[').trim_end_matches(']');
                let stream = TcpStream::connect((host, *port)).await.map_err(not_connected)?;
                stream.set_nodelay(true).and_then(|()| notice_its_end(&stream)).map_err(Failure::Unreachable)?;
                match &self.tls {
                    Some(UpstreamTls { config, name }) if self.address.is_secure() => {
                        let name = match name {
                            Some(name) => name.clone(),
                            None => ServerName::try_from(host.to_owned()).map_err(|error| {
                                Failure::Unreachable(io::Error::new(io::ErrorKind::InvalidInput, error))
                            })?,
                        };
                        let connector = TlsConnector::from(config.current());
                        Ok(Box::new(connector.connect(name, stream).await.map_err(Failure::Unreachable)?))
                    }
                    None if !self.address.is_secure() => Ok(Box::new(stream)),
                    _ => Err(Failure::Invalid("an https upstream needs trust, and only that has a use for it")),
                }
            }
        }
    }
}

/// Whose fault it is that there is no connection: for want of descriptors, it is our own.
fn not_connected(error: io::Error) -> Failure {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::MFILE | Errno::NFILE) => Failure::Overloaded,
        _ => Failure::Unreachable(error),
    }
}

/// An upstream whose machine vanishes closes nothing: its silence has to be noticed.
fn notice_its_end(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    let questions = TcpKeepalive::new().with_time(UNHEARD / 2).with_interval(UNHEARD / 6).with_retries(3);
    socket.set_tcp_keepalive(&questions)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNHEARD))?;
    Ok(())
}
