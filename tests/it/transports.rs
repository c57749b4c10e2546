//! The ways in and the ways out besides plain TCP: Unix sockets and TLS on either side.

use std::io::{self, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use http::Request;
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::harness::{Answer, Folder, Origin, PATIENCE, Proxy, connect, eventually, get, post, read_answer};
use crate::http2::Client;

// --- Unix sockets ---------------------------------------------------------------------------

fn ask_by_socket(path: &Path, request: &str) -> Answer {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    read_answer(&mut BufReader::new(stream))
}

/// A socket whose connections lead to a TCP address.
fn socket_in_front_of(address: String, path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || {
        for inner in listener.incoming().map_while(Result::ok) {
            let outer = TcpStream::connect(&address).unwrap();
            let (mut from_inner, mut to_outer) = (inner.try_clone().unwrap(), outer.try_clone().unwrap());
            thread::spawn(move || io::copy(&mut from_inner, &mut to_outer));
            thread::spawn(move || io::copy(&mut &outer, &mut &inner));
        }
    });
}

#[test]
fn requests_come_in_and_go_out_by_unix_sockets() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let (inside, outside) = (folder.path("inside.sock"), folder.path("outside.sock"));
    socket_in_front_of(origin.address.clone(), &inside);
    folder.configure(&format!("unix:{}", inside.display()), "");
    let proxy = folder.serve_with(&["--listen", &format!("unix:{}", outside.display())], &[]);
    assert_eq!(proxy.address, format!("unix:{}", outside.display()));

    // there is no loopback address to protect: any name will do
    let request = get(&token, "X-Forwarded-For: 6.6.6.6\r\n").replace("localhost", "mcp.test");
    assert_eq!(ask_by_socket(&outside, &request).status, 200);
    assert_eq!(ask_by_socket(&outside, &post("unknown", "{}")).status, 401);
    let [received] = &origin.received()[..] else { panic!() };
    assert_eq!((received.values("x-auth-user"), received.values("host")), (vec!["alice"], vec!["localhost"]));
    assert!(received.values("x-forwarded-for").is_empty());
    assert!(proxy.audit(2).iter().all(|record| record.get("client_ip").is_none()));
    proxy.last_audit();
    assert!(!outside.exists(), "the socket is removed at the end");
}

#[test]
fn a_socket_that_was_left_behind_is_taken_over_and_one_in_use_is_not() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    folder.configure(&origin.url(), "");
    let path = folder.path("p.sock");
    drop(UnixListener::bind(&path).unwrap());
    let listen = format!("unix:{}", path.display());
    let _proxy = folder.serve_with(&["--listen", &listen], &[]);
    assert_eq!(ask_by_socket(&path, &get(&token, "")).status, 200);

    let second = folder.run(&["serve", "--config", "patgate.toml", "--listen", &listen]);
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("in use"));
    assert_eq!(ask_by_socket(&path, &get(&token, "")).status, 200, "the first one goes on");
    // what is no socket is nobody's to remove
    let file = folder.write("p.txt", "kept");
    let third = folder.run(&["serve", "--config", "patgate.toml", "--listen", &format!("unix:{}", file.display())]);
    assert_eq!((third.status.code(), folder.read("p.txt").as_str()), (Some(1), "kept"));
}

// --- TLS ------------------------------------------------------------------------------------

fn certificate() -> CertifiedKey<KeyPair> {
    generate_simple_self_signed(["localhost".to_owned()]).unwrap()
}

fn client_config(trusted: &str, protocols: &[&str]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// A TLS client that has not shaken hands yet.
fn tls_client(address: &str, config: Arc<ClientConfig>) -> StreamOwned<ClientConnection, TcpStream> {
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(config, name).unwrap(), connect(address))
}

/// A proxy that speaks TLS, with more configuration before its tables.
fn tls_proxy(folder: &Folder, origin: &Origin, own: &CertifiedKey<KeyPair>, more: &str) -> Proxy {
    folder.write("cert.pem", &own.cert.pem());
    folder.write("key.pem", &own.signing_key.serialize_pem());
    folder.serve(&origin.url(), &format!("{more}\n[tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n"))
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

/// A TLS server that hands what it decrypts to a TCP address.
fn tls_in_front_of(address: String, own: &CertifiedKey<KeyPair>) -> u16 {
    let key = PrivateKeyDer::from_pem_slice(own.signing_key.serialize_pem().as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_no_client_auth().with_single_cert(vec![own.cert.der().clone()], key).unwrap();
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
    let port = tls_in_front_of(origin.address.clone(), &own);
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
