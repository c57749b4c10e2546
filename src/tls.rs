//! Whom this program trusts by TLS and how it proves itself there, as a server and as a client, and
//! how both follow their files.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoClientAuth, NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, ConfigBuilder, InconsistentKeys, RootCertStore, ServerConfig, WantsVerifier};

use crate::watch::{Look, Reload, Watch};

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
    #[error("no certificate found in {}: name a PEM file that has at least one", .0.display())]
    Empty(PathBuf),
    /// No certificate authority in this system.
    #[error("this system has no certificate authorities: name a PEM file of your own")]
    NobodyToTrust,
    /// The two belong to different pairs.
    #[error("the certificate does not match its key: name the key that the certificate was made for")]
    Mismatch,
    /// A certificate or a key that cannot be used.
    #[error("unusable certificate or key: {0}")]
    Unusable(rustls::Error),
    /// Certificate authorities that cannot be used to judge clients.
    #[error("unusable certificate authorities: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

impl TlsError {
    /// The file that is at fault, where it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Pem { file, .. } | Self::Empty(file) => Some(file),
            _ => None,
        }
    }
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => Self::Mismatch,
            other => Self::Unusable(other),
        }
    }
}

/// A certificate of our own and its key, both PEM files.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate, with its chain.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// What is asked of clients.
#[derive(Clone, Debug)]
pub struct ClientAuth {
    /// The certificate authorities that may have signed their certificates, a PEM file.
    pub ca: PathBuf,
    /// Whether a client may have none.
    pub optional: bool,
}

// --- The two sides --------------------------------------------------------------------------

/// A server that shows `identity` and speaks TLS 1.2 and 1.3, with HTTP/2 and HTTP/1.1 by ALPN.
///
/// # Errors
/// The certificate, its key or the authorities for clients cannot be used.
pub fn server(identity: &Identity, client_auth: Option<&ClientAuth>) -> Result<ServerConfig, TlsError> {
    let verifier = match client_auth {
        None => Arc::new(NoClientAuth),
        Some(ClientAuth { ca, optional }) => {
            let builder = WebPkiClientVerifier::builder_with_provider(authorities(ca)?.into(), provider());
            if *optional { builder.allow_unauthenticated() } else { builder }.build()?
        }
    };
    let (chain, key) = identity.load()?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    if client_auth.is_some() {
        // a session that is resumed has its certificate from the first time, and it may have ended since
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(config)
}

/// A client that speaks TLS 1.2 and 1.3 and trusts the certificate authorities of `ca` (PEM), or those
/// of the system.
///
/// # Errors
/// There is nobody to trust, or the identity cannot be used.
pub fn client(ca: Option<&Path>, identity: Option<&Identity>) -> Result<ClientConfig, TlsError> {
    let roots = match ca {
        Some(file) => authorities(file)?,
        None => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(TlsError::NobodyToTrust);
            }
            roots
        }
    };
    let config = client_builder()?.with_root_certificates(roots);
    Ok(match identity {
        None => config.with_no_client_auth(),
        Some(identity) => {
            let (chain, key) = identity.load()?;
            config.with_client_auth_cert(chain, key)?
        }
    })
}

/// A client that trusts nobody, where no connection is by TLS.
///
/// # Errors
/// None that can be expected.
pub fn nobody() -> Result<ClientConfig, TlsError> {
    Ok(client_builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

fn client_builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, TlsError> {
    Ok(ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

impl Identity {
    fn load(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
        let chain = certificates(&self.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&self.key);
        Ok((chain, key.map_err(|source| TlsError::Pem { file: self.key.clone(), source })?))
    }
}

fn authorities(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

/// The certificates of a PEM file, at least one.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |source| TlsError::Pem { file: file.to_owned(), source };
    let certificates = CertificateDer::pem_file_iter(file).map_err(unreadable)?;
    let certificates = certificates.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    if certificates.is_empty() { Err(TlsError::Empty(file.to_owned())) } else { Ok(certificates) }
}

// --- Following files ------------------------------------------------------------------------

/// One side's configuration, built anew whenever one of its files changes. What cannot be used is never
/// put in the place of what can. Cheap to clone.
pub struct Live<C> {
    current: Arc<ArcSwap<C>>,
    files: Arc<[PathBuf]>,
    build: Arc<Build<C>>,
    trouble: Arc<ArcSwapOption<String>>,
}

type Build<C> = dyn Fn() -> Result<C, TlsError> + Send + Sync;

impl<C: Send + Sync + 'static> Live<C> {
    /// Builds it for the first time from these files.
    ///
    /// # Errors
    /// It cannot be built.
    pub fn open(
        files: Vec<PathBuf>,
        build: impl Fn() -> Result<C, TlsError> + Send + Sync + 'static,
    ) -> Result<Self, TlsError> {
        let current = Arc::new(ArcSwap::from_pointee(build()?));
        Ok(Self { current, files: files.into(), build: Arc::new(build), trouble: Arc::default() })
    }

    /// What is to be used for the next connection.
    pub fn current(&self) -> Arc<C> {
        self.current.load_full()
    }

    /// What is wrong with the files, while the last good ones are in use.
    pub fn trouble(&self) -> &Arc<ArcSwapOption<String>> {
        &self.trouble
    }

    /// Follows the files until the process ends; compares them every `poll` where the system tells nothing.
    pub async fn follow(self, poll: Duration, reload: Reload) {
        if self.files.is_empty() {
            return;
        }
        let watch = Watch::new(self.files.to_vec(), poll);
        // it may have changed since it was built
        self.renew();
        let looked = move |look| {
            if matches!(look, Look::Changed { .. }) {
                self.renew();
            }
        };
        watch.follow(reload, looked).await;
    }

    fn renew(&self) {
        match (self.build)() {
            Ok(config) => {
                self.current.store(Arc::new(config));
                self.trouble.store(None);
                tracing::info!(files = ?self.files, "certificates and keys are in force");
            }
            Err(error) => {
                let trouble = error.to_string();
                tracing::error!(trouble, "certificates and keys cannot be used: the last good ones stay in force");
                self.trouble.store(Some(Arc::new(trouble)));
            }
        }
    }
}

impl<C> Clone for Live<C> {
    fn clone(&self) -> Self {
        let Self { current, files, build, trouble } = self;
        Self {
            current: Arc::clone(current),
            files: Arc::clone(files),
            build: Arc::clone(build),
            trouble: Arc::clone(trouble),
        }
    }
}

impl<C> fmt::Debug for Live<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("files", &self.files).finish_non_exhaustive()
    }
}
