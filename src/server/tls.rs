//! The listener's certificate and key.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// TLS 1.2 and 1.3 for the listener, with HTTP/2 and HTTP/1.1 by ALPN.
#[derive(Clone, Debug)]
pub struct ListenerTls(pub(super) Arc<ServerConfig>);

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read as PEM.
    #[error("cannot read {}: {source}", file.display())]
    Pem {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: rustls::pki_types::pem::Error,
    },
    /// No certificate in the file.
    #[error("no certificate found in {}: name a PEM file with the whole chain", .0.display())]
    NoCertificate(PathBuf),
    /// The two belong to different pairs.
    #[error("the certificate does not match its key: name the key that the certificate was made for")]
    Mismatch,
    /// A key or certificate that cannot be used.
    #[error("unusable certificate or key: {0}")]
    Unusable(rustls::Error),
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        match error {
            rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch) => Self::Mismatch,
            other => Self::Unusable(other),
        }
    }
}

impl ListenerTls {
    /// Reads a certificate chain and its key, both PEM, and makes sure that they belong together.
    ///
    /// # Errors
    /// They cannot be read or used, or do not match.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let pem = |file: &Path| {
            let file = file.to_owned();
            move |source| TlsError::Pem { file, source }
        };
        let chain = CertificateDer::pem_file_iter(certificate).map_err(pem(certificate))?;
        let chain = chain.collect::<Result<Vec<_>, _>>().map_err(pem(certificate))?;
        if chain.is_empty() {
            return Err(TlsError::NoCertificate(certificate.to_owned()));
        }
        let key = PrivateKeyDer::from_pem_file(key).map_err(pem(key))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config)))
    }
}
