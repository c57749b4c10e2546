//! TLS on either side: what is spoken, who must prove who it is, and certificates that change.

use std::fs;
use std::io::{self, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use http::Request;
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, StreamOwned};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::harness::{Folder, Origin, Proxy, connect, eventually, get, post, read_answer};
use crate::http2::Client;
use crate::sources::tls::{authority, certificate as issued};

pub fn certificate() -> CertifiedKey<KeyPair> {
    generate_simple_self_signed(["localhost".to_owned()]).unwrap()
}

fn trusting(trusted: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.as_bytes()).unwrap()).unwrap();
    roots
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

pub fn client_config(trusted: &str, protocols: &[&str]) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(trusting(trusted)).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// A TLS client that has not shaken hands yet.
pub fn tls_client(address: &str, config: Arc<ClientConfig>) -> StreamOwned<ClientConnection, TcpStream> {
    client_on(connect(address), config)
}

/// A proxy that speaks TLS, with more configuration before its tables.
fn tls_proxy(folder: &Folder, origin: &Origin, own: &CertifiedKey<KeyPair>, more: &str) -> Proxy {
    folder.write("cert.pem", &own.cert.pem());
    folder.write("key.pem", &own.signing_key.serialize_pem());
    folder.serve(&origin.url(), &format!("{more}\n[tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n"))
}

/// A proxy that speaks TLS, and what a client needs to trust it.
pub fn proxy_and_client(folder: &Folder, origin: &Origin, more: &str) -> (Proxy, Arc<ClientConfig>) {
    let own = certificate();
    (tls_proxy(folder, origin, &own, more), client_config(&own.cert.pem(), &[]))
}

/// A TLS client on a connection that may have been used already.
pub fn client_on(stream: TcpStream, config: Arc<ClientConfig>) -> StreamOwned<ClientConnection, TcpStream> {
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(config, name).unwrap(), stream)
}

#[test]
fn the_listener_speaks_tls_with_http_1_and_http_2() {
    let (origin, folder, own) = (Origin::plain(), Folder::new(), certificate());
    let token = folder.token("alice", &[]);
    let proxy = tls_proxy(&folder, &origin, &own, "");

    for protocols in [&["http/1.1"][..], &[]] {
        let mut client = tls_client(&proxy.address, client_config(&own.cert.pem(), protocols));
        client.write_all(get(&token, "").as_bytes()).unwrap();
        client.flush().unwrap();
        let mut client = BufReader::new(client);
        assert_eq!(read_answer(&mut client).status, 200);
        let agreed = client.get_ref().conn.alpn_protocol().map(<[u8]>::to_vec);
        assert_eq!(agreed, protocols.first().map(|protocol| protocol.as_bytes().to_vec()));
    }

    let (config, address) = (client_config(&own.cert.pem(), &["h2", "http/1.1"]), proxy.address.clone());
    let mut client = Client::over(async move {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(config).connect(name, stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        stream
    });
    let request = Request::get("https://localhost/mcp").header("authorization", format!("Bearer {token}"));
    assert_eq!(client.ask(request).0.status, 200);
    assert_eq!(client.ask(Request::get("https://localhost/mcp")).0.status, 401);
    assert!(origin.received().iter().all(|received| received.values("x-forwarded-proto") == ["https"]));
    assert_eq!(origin.received().len(), 3);
}

#[test]
fn a_client_without_tls_gets_nowhere_on_a_tls_listener() {
    let (origin, folder, own) = (Origin::plain(), Folder::new(), certificate());
    let token = folder.token("alice", &[]);
    let proxy = tls_proxy(&folder, &origin, &own, "");
    let mut client = crate::stage::Line::to(&proxy.address);
    client.send(get(&token, ""));
    client.await_end();
    // nor does one that trusts somebody else
    let mut client = tls_client(&proxy.address, client_config(&certificate().cert.pem(), &[]));
    assert!(client.write_all(get(&token, "").as_bytes()).and_then(|()| client.flush()).is_err());
    assert!(origin.received().is_empty());
}

#[test]
fn silent_tls_clients_are_let_go_in_time() {
    let (origin, folder, own) = (Origin::plain(), Folder::new(), certificate());
    folder.token("alice", &[]);
    let deadlines = "[timeouts]\nhandshake = \"300ms\"\nhead = \"300ms\"";
    let proxy = tls_proxy(&folder, &origin, &own, deadlines);
    // before the handshake
    crate::stage::Line::to(&proxy.address).await_end();
    // and after it, whatever was agreed on
    for protocol in ["http/1.1", "h2"] {
        let mut client = tls_client(&proxy.address, client_config(&own.cert.pem(), &[protocol]));
        client.conn.complete_io(&mut client.sock).unwrap();
        let mut rest = Vec::new();
        let end = io::Read::read_to_end(&mut client, &mut rest);
        let kind = end.map_err(|error| error.kind());
        assert!(!matches!(kind, Err(io::ErrorKind::WouldBlock)), "a silent client of {protocol} stays");
    }
}

/// A TLS server that hands what it decrypts to a TCP address, from clients that these authorities know.
pub fn tls_in_front_of(address: String, own: &CertifiedKey<KeyPair>, clients: Option<&str>) -> u16 {
    let key = PrivateKeyDer::from_pem_slice(own.signing_key.serialize_pem().as_bytes()).unwrap();
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(trusting(ca).into(), provider());
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let config = builder.with_single_cert(vec![own.cert.der().clone()], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        runtime.block_on(async {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, address) = (acceptor.clone(), address.clone());
                tokio::spawn(async move {
                    let Ok(mut inner) = acceptor.accept(stream).await else { return };
                    let mut outer = tokio::net::TcpStream::connect(address).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut inner, &mut outer).await;
                });
            }
        });
    });
    port
}

#[test]
fn an_upstream_is_reached_by_tls_only_if_its_certificate_is_trusted() {
    let (origin, own) = (Origin::plain(), certificate());
    let port = tls_in_front_of(origin.address.clone(), &own, None);
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let upstream = format!("https://localhost:{port}");
    folder.write("ca.pem", &own.cert.pem());
    folder.write("other.pem", &certificate().cert.pem());

    let proxy = folder.serve(&upstream, "[upstream_tls]\nca = \"ca.pem\"");
    for _ in 0..2 {
        assert_eq!(proxy.ask(&get(&token, "")).status, 200);
    }
    assert_eq!(origin.received()[0].values("host"), [format!("localhost:{port}")]);

    for (upstream, ca) in [(upstream.clone(), "other.pem"), (upstream.replace("localhost", "127.0.0.1"), "ca.pem")] {
        let proxy = folder.serve(&upstream, &format!("[upstream_tls]\nca = \"{ca}\""));
        let answer = proxy.ask(&post(&token, "{}"));
        assert_eq!(answer.status, 502);
        assert_eq!(proxy.record_of(&answer)["reason"], "upstream_unreachable");
        eventually("a diagnostic that names the certificate", || {
            format!("{:?}", proxy.log()).contains("certificate").then_some(())
        });
    }
    assert_eq!(origin.received().len(), 2, "nothing is said to a server that is not trusted");
}

#[test]
fn the_time_that_a_handshake_takes_is_not_taken_from_the_answer() {
    let (origin, own) = (Origin::plain(), certificate());
    let port = tls_in_front_of(origin.address.clone(), &own, None);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let slow = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let (inner, _) = listener.accept().unwrap();
        // longer than an answer may take
        thread::sleep(Duration::from_secs(2));
        let outer = connect(&format!("127.0.0.1:{port}"));
        let (mut from_inner, mut to_outer) = (inner.try_clone().unwrap(), outer.try_clone().unwrap());
        thread::spawn(move || io::copy(&mut from_inner, &mut to_outer));
        let _ = io::copy(&mut &outer, &mut &inner);
    });
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    folder.write("ca.pem", &own.cert.pem());
    let more = "[timeouts]\nupstream_head = \"1500ms\"\n[upstream_tls]\nca = \"ca.pem\"";
    let proxy = folder.serve(&format!("https://localhost:{slow}"), more);
    assert_eq!(proxy.ask(&get(&token, "")).status, 200);
}

#[test]
fn an_upstream_may_have_another_name_and_ask_for_a_certificate() {
    let (origin, own, clients) = (Origin::plain(), certificate(), authority());
    let port = tls_in_front_of(origin.address.clone(), &own, Some(&clients.pem()));
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    folder.write("ca.pem", &own.cert.pem());
    for (issuer, name) in [(&clients, "client"), (&authority(), "other")] {
        let (certificate, key) = issued(issuer, "patgate");
        folder.write(&format!("{name}.pem"), &certificate.pem());
        folder.write(&format!("{name}.key"), &key.serialize_pem());
    }
    let upstream = format!("https://127.0.0.1:{port}");
    let name = "name = \"localhost\"\n";
    for (name, client, status) in [
        (name, Some("client"), 200),
        (name, Some("other"), 502),
        (name, None, 502),
        ("", Some("client"), 502),
        ("name = \"elsewhere\"\n", Some("client"), 502),
    ] {
        let pair = client.map(|client| format!("cert = \"{client}.pem\"\nkey = \"{client}.key\"\n"));
        let table = format!("[upstream_tls]\nca = \"ca.pem\"\n{name}{}", pair.unwrap_or_default());
        let proxy = folder.serve(&upstream, &table);
        assert_eq!(proxy.ask(&get(&token, "")).status, status, "{table}");
    }
    assert_eq!(origin.received()[0].values("host"), [format!("127.0.0.1:{port}")]);
}

// --- Clients that prove who they are --------------------------------------------------------

#[test]
fn clients_show_a_certificate_where_one_is_asked_for() {
    let (origin, folder, own) = (Origin::plain(), Folder::new(), certificate());
    let token = folder.token("alice", &[]);
    let (ours, theirs) = (authority(), authority());
    folder.write("clients.pem", &ours.pem());
    for (setting, without, with_theirs) in [("", false, false), ("client_auth = \"optional\"\n", true, false)] {
        folder.write("cert.pem", &own.cert.pem());
        folder.write("key.pem", &own.signing_key.serialize_pem());
        let table = "[tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\nclient_ca = \"clients.pem\"\n";
        let proxy = folder.serve(&origin.url(), &format!("{table}{setting}"));
        for (issuer, accepted) in [(Some(&ours), true), (Some(&theirs), with_theirs), (None, without)] {
            for version in [&TLS12, &TLS13] {
                let builder =
                    ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[version]).unwrap();
                let builder = builder.with_root_certificates(trusting(&own.cert.pem()));
                let config = match issuer {
                    None => builder.with_no_client_auth(),
                    Some(issuer) => {
                        let (certificate, key) = issued(issuer, "client");
                        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
                        builder.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap()
                    }
                };
                let config = Arc::new(config);
                // a certificate that was good once is looked at again
                for _ in 0..2 {
                    let mut client = tls_client(&proxy.address, Arc::clone(&config));
                    let status = client.write_all(get(&token, "").as_bytes()).and_then(|()| status_of(&mut client));
                    assert_eq!(status.ok(), accepted.then_some(200), "{setting} {version:?}");
                    assert_ne!(client.conn.handshake_kind(), Some(HandshakeKind::Resumed));
                }
            }
        }
    }
    // a certificate is no token
    let proxy = tls_proxy(&folder, &origin, &own, "");
    let mut client = tls_client(&proxy.address, client_config(&own.cert.pem(), &[]));
    client.write_all(get("unknown", "").as_bytes()).unwrap();
    assert_eq!(status_of(&mut client).unwrap(), 401);
}

#[test]
fn where_no_certificate_is_asked_for_clients_resume_their_sessions() {
    let (origin, folder) = (Origin::plain(), Folder::new());
    let token = folder.token("alice", &[]);
    let (proxy, config) = proxy_and_client(&folder, &origin, "");
    // not with the first ones, if the certificate is looked at again meanwhile
    let resumed = (0..5).filter(|_| {
        let mut client = tls_client(&proxy.address, Arc::clone(&config));
        client.write_all(get(&token, "").as_bytes()).unwrap();
        assert_eq!(status_of(&mut client).unwrap(), 200);
        client.conn.handshake_kind() == Some(HandshakeKind::Resumed)
    });
    assert!((2..=4).contains(&resumed.count()));
}

/// The status of an answer that may not come.
fn status_of(client: &mut StreamOwned<ClientConnection, TcpStream>) -> io::Result<u16> {
    let mut head = [0; 12];
    io::Read::read_exact(client, &mut head)?;
    Ok(String::from_utf8_lossy(&head[9..]).parse().unwrap())
}

// --- Certificates that change ---------------------------------------------------------------

/// What a client that trusts this certificate alone hears.
fn heard(proxy: &Proxy, trusted: &CertifiedKey<KeyPair>, token: &str) -> Option<u16> {
    let mut client = tls_client(&proxy.address, client_config(&trusted.cert.pem(), &[]));
    client.write_all(get(token, "").as_bytes()).ok()?;
    status_of(&mut client).ok()
}

#[test]
fn a_renewed_certificate_is_shown_at_once_and_one_that_does_not_fit_never_is() {
    let (origin, folder) = (Origin::plain(), Folder::new());
    let (first, second) = (certificate(), certificate());
    let token = folder.token("alice", &[]);
    let proxy = tls_proxy(&folder, &origin, &first, "");
    assert_eq!(heard(&proxy, &first, &token), Some(200));
    let mut open = BufReader::new(tls_client(&proxy.address, client_config(&first.cert.pem(), &[])));
    let mut ask_again = || {
        open.get_mut().write_all(get(&token, "").as_bytes()).unwrap();
        read_answer(&mut open).status
    };
    assert_eq!(ask_again(), 200);

    for (broken, told) in [
        (second.cert.pem(), "does not match its key"),
        ("garbage".to_owned(), "no certificate found in"),
        (first.cert.pem()[..200].to_owned(), "cert.pem"),
    ] {
        folder.write("cert.pem", &broken);
        let readiness =
            eventually(told, || Some(proxy.health("/readyz")).filter(|told_us| told_us.body.contains(told)));
        assert_eq!(readiness.status, 200, "{}", readiness.body);
        assert_eq!((heard(&proxy, &first, &token), heard(&proxy, &second, &token)), (Some(200), None));
    }
    fs::remove_file(folder.path("cert.pem")).unwrap();
    eventually("a complaint", || proxy.health("/readyz").body.contains("cannot read").then_some(()));
    assert_eq!(heard(&proxy, &first, &token), Some(200));

    folder.write("cert.pem", &second.cert.pem());
    eventually("a complaint", || proxy.health("/readyz").body.contains("does not match its key").then_some(()));
    folder.write("key.pem", &second.signing_key.serialize_pem());
    eventually("the new certificate", || (heard(&proxy, &second, &token) == Some(200)).then_some(()));
    assert_eq!(heard(&proxy, &first, &token), None);
    assert_eq!(proxy.health("/readyz").body, "ready\n");
    assert_eq!(ask_again(), 200, "a connection goes on with what it began with");
}

#[test]
fn on_sighup_files_are_read_that_nobody_gave_notice_of() {
    let (origin, folder) = (Origin::plain(), Folder::new());
    let (first, second) = (certificate(), certificate());
    let token = folder.token("alice", &[]);
    // the files themselves are elsewhere, where nobody watches
    fs::create_dir(folder.path("elsewhere")).unwrap();
    for name in ["cert.pem", "key.pem", "tokens.toml"] {
        symlink(folder.path("elsewhere").join(name), folder.path(&format!("{name}.link"))).unwrap();
    }
    folder.write("elsewhere/tokens.toml", &folder.read("tokens.toml"));
    folder.write("elsewhere/cert.pem", &first.cert.pem());
    folder.write("elsewhere/key.pem", &first.signing_key.serialize_pem());
    let tls = "[tls]\ncert = \"cert.pem.link\"\nkey = \"key.pem.link\"";
    folder.configure(&origin.url(), tls);
    let text = folder.read("patgate.toml").replace("tokens.toml", "tokens.toml.link");
    folder.write("patgate.toml", &format!("{text}poll = \"1h\"\nlast_used = \"off\"\n"));
    let mut proxy = folder.serve_with(&[], &[]);
    assert_eq!(heard(&proxy, &first, &token), Some(200));
    proxy.await_log("certificates and keys are in force");

    folder.write("elsewhere/tokens.toml", &folder.read("tokens.toml").replace("alice", "bob"));
    folder.write("elsewhere/cert.pem", &second.cert.pem());
    folder.write("elsewhere/key.pem", &second.signing_key.serialize_pem());
    proxy.signal("HUP");
    eventually("the new certificate", || (heard(&proxy, &second, &token) == Some(200)).then_some(()));
    eventually("the new list", || {
        heard(&proxy, &second, &token);
        (origin.received().last()?.values("x-auth-user") == ["bob"]).then_some(())
    });
}

#[test]
fn a_connection_too_many_is_closed_before_its_handshake() {
    let (origin, folder, own) = (Origin::plain(), Folder::new(), certificate());
    let token = folder.token("alice", &[]);
    let proxy = tls_proxy(&folder, &origin, &own, "[limits]\nconnections = 1");
    let held = tls_client(&proxy.address, client_config(&own.cert.pem(), &[]));
    let mut held = BufReader::new(held);
    held.get_mut().write_all(get(&token, "").as_bytes()).unwrap();
    assert_eq!(read_answer(&mut held).status, 200);
    assert_eq!(heard(&proxy, &own, &token), None);
    let records = proxy.audit(2);
    assert_eq!((&records[1]["reason"], records[1].get("status")), (&"too_many_connections".into(), None));
}
