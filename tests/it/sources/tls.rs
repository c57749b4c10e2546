//! A source over TLS: whom it must be, and who we are to it.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::{list, ok, readiness, record, serve, status};
use crate::harness::{Folder, Origin, eventually};

pub type Issuer = CertifiedIssuer<'static, KeyPair>;

pub fn authority() -> Issuer {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate and its key, both PEM.
pub fn certificate(issuer: &Issuer, name: &str) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([name.to_owned()]).unwrap();
    (params.signed_by(&key, issuer).unwrap(), key)
}

/// A source that shows a certificate for `name` and asks for one of the same authority.
fn source(issuer: &Issuer, name: &str) -> String {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(issuer.der().clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider)).build().unwrap();
    let (shown, key) = certificate(issuer, name);
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![shown.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            // a refused handshake is what some of these tests want
            thread::spawn(move || talk(StreamOwned::new(connection, stream)));
        }
    });
    format!("https://localhost:{port}/pats.json")
}

fn talk(mut stream: StreamOwned<ServerConnection, TcpStream>) -> std::io::Result<()> {
    loop {
        let mut reader = BufReader::with_capacity(1, &mut stream);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
        }
        stream.write_all(ok(&list(&[record("t1", "alices", "")])).as_bytes())?;
    }
}

#[test]
fn both_sides_prove_who_they_are() {
    let (ours, theirs) = (authority(), authority());
    let folder = Folder::new();
    folder.write("ca.pem", &ours.pem());
    folder.write("other-ca.pem", &theirs.pem());
    for (issuer, name) in [(&ours, "cert"), (&theirs, "other")] {
        let (certificate, key) = certificate(issuer, "patgate");
        folder.write(&format!("{name}.pem"), &certificate.pem());
        folder.write(&format!("{name}.key"), &key.serialize_pem());
    }
    let url = source(&ours, "localhost");
    let elsewhere = source(&ours, "elsewhere");
    let upstream = Origin::plain();
    for (url, ca, identity, trouble) in [
        (&url, "ca.pem", Some("cert"), None),
        (&url, "ca.pem", None, Some("received fatal alert: CertificateRequired")),
        (&url, "ca.pem", Some("other"), Some("received fatal alert")),
        (&url, "other-ca.pem", Some("cert"), Some("invalid peer certificate")),
        (&elsewhere, "ca.pem", Some("cert"), Some("invalid peer certificate")),
    ] {
        let identity =
            identity.map(|name| format!(", cert = \"{name}.pem\", key = \"{name}.key\"")).unwrap_or_default();
        let tokens = format!("http = {{ url = \"{url}\", refresh = \"100ms\", ca = \"{ca}\"{identity} }}");
        let proxy = serve(&folder, &upstream, &tokens);
        let expected = trouble.unwrap_or("ready\n");
        eventually(expected, || readiness(&proxy).body.contains(expected).then_some(()));
        let expected = if trouble.is_some() { 503 } else { 200 };
        assert_eq!((status(&proxy, "alices"), readiness(&proxy).status), (expected, expected), "{trouble:?}");
    }
}

#[test]
fn a_client_certificate_that_does_not_fit_its_key_is_found_by_the_check() {
    let issuer = authority();
    let folder = Folder::new();
    let ((certificate, _), (_, key)) = (certificate(&issuer, "a"), certificate(&issuer, "b"));
    folder.write("cert.pem", &certificate.pem());
    folder.write("key.pem", &key.serialize_pem());
    folder.write(
        "patgate.toml",
        "upstream = \"http://127.0.0.1:1\"\n[tokens]\n\
         http = { url = \"https://localhost/\", ca = \"cert.pem\", cert = \"cert.pem\", key = \"key.pem\" }\n",
    );
    let checked = folder.run(&["check", "--config", "patgate.toml"]);
    let told = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(
        checked.status.code() == Some(2) && told.contains("tokens.http: the certificate does not match its key"),
        "{told}"
    );
}
