//! What the TLS listener does not offer: asked for by raw bytes, and by sslyze.

use std::collections::BTreeSet;
use std::io::{Read, Write};

use serde_json::Value;

use crate::harness::{Folder, Origin, Proxy, connect};
use crate::installed::tool;
use crate::sources::tls::{authority, certificate};

/// A listener whose certificate has a key of the kind that is usual today.
fn listener(more: &str) -> (Proxy, Folder) {
    let (shown, key) = certificate(&authority(), "localhost");
    listener_with(&shown.pem(), &key.serialize_pem(), more)
}

/// A listener with a certificate and its key, and with more keys of `[tls]`; beside it, what a client
/// can show.
fn listener_with(shown: &str, key: &str, more: &str) -> (Proxy, Folder) {
    let (folder, clients) = (Folder::new(), authority());
    folder.token("alice", &[]);
    let (client, clients_key) = certificate(&clients, "client");
    for (name, text) in [
        ("cert.pem", shown),
        ("key.pem", key),
        ("clients.pem", &clients.pem()),
        ("client.pem", &client.pem()),
        ("client.key", &clients_key.serialize_pem()),
    ] {
        folder.write(name, text);
    }
    let tls = format!("[tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n{more}");
    (folder.serve(&Origin::plain().url(), &tls), folder)
}

/// Clients need no certificate, or they do.
const KINDS: [&str; 2] = ["", "client_ca = \"clients.pem\"\n"];

// --- By raw bytes ---------------------------------------------------------------------------

const TLS10: u16 = 0x0301;
const TLS12: u16 = 0x0303;
const TLS13: u16 = 0x0304;

/// What comes after a client's first words.
#[derive(Debug, PartialEq, Eq)]
enum Reply {
    /// The suite and the compression that the server chose.
    Hello { suite: u16, compression: u8 },
    /// Why it goes no further (RFC 8446 section 6).
    Alert(u8),
}

const HANDSHAKE_FAILURE: u8 = 40;
const PROTOCOL_VERSION: u8 = 70;

/// Bytes with their length before them, in so many bytes.
fn sized(bytes: usize, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&length[4 - bytes..], content].concat()
}

/// A ClientHello with these suites and compressions (RFC 8446 section 4.1.2).
fn client_hello(version: u16, suites: &[u16], compressions: &[u8]) -> Vec<u8> {
    let extension = |kind: u16, content: &[u8]| [&kind.to_be_bytes()[..], &sized(2, content)].concat();
    let numbers = |numbers: &[u16]| numbers.iter().flat_map(|number| number.to_be_bytes()).collect::<Vec<_>>();
    let mut extensions = [
        // curves, forms of points, signatures
        extension(10, &sized(2, &numbers(&[0x001d, 0x0017, 0x0018]))),
        extension(11, &sized(1, &[0])),
        extension(13, &sized(2, &numbers(&[0x0403, 0x0503, 0x0804, 0x0401, 0x0203, 0x0201]))),
    ]
    .concat();
    if version == TLS13 {
        // the server asks for a key then, and names the suite
        extensions.extend(extension(43, &sized(1, &numbers(&[TLS13]))));
        extensions.extend(extension(51, &sized(2, &[])));
    }
    let body = [
        &version.min(TLS12).to_be_bytes()[..],
        &[7; 32],
        &sized(1, &[]),
        &sized(2, &numbers(suites)),
        &sized(1, compressions),
        &sized(2, &extensions),
    ]
    .concat();
    let message = [vec![1], sized(3, &body)].concat();
    [&[22][..], &version.min(TLS10).to_be_bytes(), &sized(2, &message)].concat()
}

fn reply(proxy: &Proxy, hello: &[u8]) -> Reply {
    let mut stream = connect(&proxy.address);
    stream.write_all(hello).unwrap();
    let mut head = [0; 5];
    stream.read_exact(&mut head).unwrap();
    let mut record = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
    stream.read_exact(&mut record).unwrap();
    match head[0] {
        21 => Reply::Alert(record[1]),
        22 => {
            assert_eq!(record[0], 2, "a ServerHello comes first");
            let chosen = &record[39 + usize::from(record[38])..];
            Reply::Hello { suite: u16::from_be_bytes([chosen[0], chosen[1]]), compression: chosen[2] }
        }
        other => panic!("a record of type {other}"),
    }
}

/// All suites that there are and may be, as far as the server takes one.
fn suites(proxy: &Proxy, version: u16) -> BTreeSet<u16> {
    let all: Vec<u16> = (0..=u16::MAX).collect();
    let mut taken = BTreeSet::new();
    // as many as fit into a record
    for some in all.chunks(7000) {
        let mut some = some.to_vec();
        loop {
            match reply(proxy, &client_hello(version, &some, &[0])) {
                Reply::Hello { suite, compression: 0 } => {
                    assert!(taken.insert(suite) && some.contains(&suite));
                    some.retain(|other| *other != suite);
                }
                refused => {
                    assert_eq!(refused, Reply::Alert(HANDSHAKE_FAILURE));
                    break;
                }
            }
        }
    }
    taken
}

#[test]
fn of_all_suites_only_those_with_forward_secrecy_and_authenticated_encryption_are_taken() {
    for kind in KINDS {
        let (proxy, _folder) = listener(kind);
        // AES-128-GCM, AES-256-GCM and ChaCha20-Poly1305, with ECDHE
        assert_eq!(suites(&proxy, TLS12), BTreeSet::from([0xc02b, 0xc02c, 0xcca9]));
        assert_eq!(suites(&proxy, TLS13), BTreeSet::from([0x1301, 0x1302, 0x1303]));
    }
}

#[test]
fn older_versions_and_compression_are_refused() {
    for kind in KINDS {
        let (proxy, _folder) = listener(kind);
        // with the best of TLS 1.2, and what older versions had
        let suites = [0xc02b, 0xc009, 0xc00a, 0xc013, 0x0035, 0x002f, 0x000a, 0x0005];
        for older in [0x0300, TLS10, 0x0302] {
            assert_eq!(reply(&proxy, &client_hello(older, &suites, &[0])), Reply::Alert(PROTOCOL_VERSION), "{older:x}");
        }
        let taken = Reply::Hello { suite: 0xc02b, compression: 0 };
        assert_eq!(reply(&proxy, &client_hello(TLS12, &suites, &[1, 0])), taken);
        let only_compressed = reply(&proxy, &client_hello(TLS12, &suites, &[1]));
        assert!(matches!(only_compressed, Reply::Alert(_)), "{only_compressed:?}");
    }
}

// --- By sslyze ------------------------------------------------------------------------------

/// A certificate with a key of RSA, which some attacks need, and the key.
fn of_rsa() -> (String, String) {
    let make = "from cryptography.hazmat.primitives.asymmetric import rsa\n\
                from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat\n\
                key = rsa.generate_private_key(65537, 2048)\n\
                print(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())";
    let made = tool("python").args(["-c", make]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let key = String::from_utf8(made.stdout).unwrap();
    let pair = rcgen::KeyPair::from_pem(&key).unwrap();
    let shown = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&pair).unwrap();
    (shown.pem(), key)
}

const SCANS: [&str; 15] = [
    "--sslv2",
    "--sslv3",
    "--tlsv1",
    "--tlsv1_1",
    "--tlsv1_2",
    "--tlsv1_3",
    "--compression",
    "--early_data",
    "--elliptic_curves",
    "--ems",
    "--fallback",
    "--heartbleed",
    "--openssl_ccs",
    "--reneg",
    "--robot",
];

#[test]
fn a_scanner_finds_nothing_weak() {
    let (shown, key) = of_rsa();
    let (open, _folder) = listener_with(&shown, &key, KINDS[0]);
    let (strict, folder) = listener(KINDS[1]);
    let mut sslyze = tool("sslyze");
    sslyze.current_dir(folder.path("")).args(SCANS);
    sslyze.args(["--mozilla_config", "disable", "--cert", "client.pem", "--key", "client.key"]);
    sslyze.args(["--json_out", "report.json"]);
    sslyze.args([&open, &strict].map(|proxy| proxy.address.replace("127.0.0.1", "localhost")));
    let output = sslyze.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");

    let report: Value = serde_json::from_str(&folder.read("report.json")).unwrap();
    let servers = report["server_scan_results"].as_array().unwrap();
    assert_eq!(servers.len(), 2);
    for server in servers {
        assert_nothing_weak(&server["scan_result"]);
    }
}

fn assert_nothing_weak(scans: &Value) {
    let result = |scan: &str| {
        assert_eq!(scans[scan]["status"], "COMPLETED", "{scan}: {}", scans[scan]);
        &scans[scan]["result"]
    };
    let accepted = |version: &str| -> BTreeSet<&str> {
        let suites = result(&format!("{version}_cipher_suites"))["accepted_cipher_suites"].as_array().unwrap();
        suites.iter().map(|accepted| accepted["cipher_suite"]["name"].as_str().unwrap()).collect()
    };
    for version in ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"] {
        assert_eq!(result(&format!("{version}_cipher_suites"))["is_tls_version_supported"], false, "{version}");
        assert!(accepted(version).is_empty(), "{version}");
    }
    let (tls12, tls13) = (accepted("tls_1_2"), accepted("tls_1_3"));
    let is_strong = |name: &&str| {
        name.starts_with("TLS_ECDHE_") && (name.contains("_GCM_") || name.contains("_CHACHA20_POLY1305_"))
    };
    assert!(tls12.len() == 3 && tls12.iter().all(is_strong), "{tls12:?}");
    // TLS 1.3 has no others
    assert_eq!(tls13.len(), 3, "{tls13:?}");

    for (scan, finding, expected) in [
        ("tls_compression", "supports_compression", Value::from(false)),
        ("tls_1_3_early_data", "supports_early_data", false.into()),
        ("tls_extended_master_secret", "supports_ems_extension", true.into()),
        ("tls_fallback_scsv", "supports_fallback_scsv", true.into()),
        ("heartbleed", "is_vulnerable_to_heartbleed", false.into()),
        ("openssl_ccs_injection", "is_vulnerable_to_ccs_injection", false.into()),
        ("session_renegotiation", "supports_secure_renegotiation", true.into()),
        ("session_renegotiation", "is_vulnerable_to_client_renegotiation_dos", false.into()),
        ("robot", "robot_result", "NOT_VULNERABLE_RSA_NOT_SUPPORTED".into()),
    ] {
        assert_eq!(result(scan)[finding], expected, "{scan}");
    }
    let curves = result("elliptic_curves")["supported_curves"].as_array().unwrap();
    let curves: BTreeSet<_> = curves.iter().map(|curve| curve["name"].as_str().unwrap()).collect();
    assert_eq!(curves, BTreeSet::from(["X25519", "secp256r1", "secp384r1"]));
}
