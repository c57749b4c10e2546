//! Making a connection to the upstream: TCP, TLS over it, or a Unix socket.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

use super::address::{Address, Endpoint};
use super::pool::Connection;
use super::{Counts, Failure, Params};
use crate::proxy::body::Inbound;
use crate::tls::{self, Identity, Live, TlsError};

/// The largest head of an answer, in bytes; a larger one is not passed on.
const MAX_HEAD: usize = 64 * 1024;

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
}

impl Connector {
    pub(super) fn new(params: &Params, counts: &Arc<Counts>) -> Self {
        let Params { address, tls, connect_timeout, .. } = params.clone();
        Self { address, tls, timeout: connect_timeout, counts: Arc::clone(counts) }
    }

    pub(super) async fn connect(&self) -> Result<Connection, Failure> {
        match tokio::time::timeout(self.timeout, self.open()).await {
            Ok(connection) => connection.map(|(sender, driver)| {
                self.counts.connected.inc();
                Connection::new(sender, driver, self.counts.open.hold())
            }),
            Err(_) => Err(Failure::Timeout("to accept a connection")),
        }
    }

    async fn open(&self) -> Result<Driven, Failure> {
        match self.address.endpoint() {
            Endpoint::Unix(path) => handshake(UnixStream::connect(path).await.map_err(Failure::Unreachable)?).await,
            Endpoint::Tcp { authority, port, .. } => {
                let host = authority.host().trim_start_matches('[').trim_end_matches(']');
                let stream = TcpStream::connect((host, *port)).await.map_err(Failure::Unreachable)?;
                stream.set_nodelay(true).map_err(Failure::Unreachable)?;
                match &self.tls {
                    Some(UpstreamTls { config, name }) if self.address.is_secure() => {
                        let name = match name {
                            Some(name) => name.clone(),
                            None => ServerName::try_from(host.to_owned()).map_err(|error| {
                                Failure::Unreachable(io::Error::new(io::ErrorKind::InvalidInput, error))
                            })?,
                        };
                        let connector = TlsConnector::from(config.current());
                        handshake(connector.connect(name, stream).await.map_err(Failure::Unreachable)?).await
                    }
                    None if !self.address.is_secure() => handshake(stream).await,
                    _ => Err(Failure::Invalid("an https upstream needs trust, and only that has a use for it")),
                }
            }
        }
    }
}

/// What sends over a connection, and the task that moves its bytes.
type Driven = (SendRequest<Inbound>, AbortHandle);

async fn handshake<S>(stream: S) -> Result<Driven, Failure>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut builder = http1::Builder::new();
    builder.max_header_size(MAX_HEAD);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(Failure::Broken)?;
    // its errors reach whoever holds the sender
    let driver = tokio::spawn(async move { drop(connection.await) });
    Ok((sender, driver.abort_handle()))
}
