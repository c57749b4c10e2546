//! Tokens that come from elsewhere: a list over HTTP, a look-up of one token at a time, bcrypt hashes.

mod bcrypt;
mod list;
mod lookup;
pub mod tls;

use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use patgate::token::TokenDigest;

use crate::harness::{self, Answer, Folder, Keep, Origin, Proxy, Received, Script, eventually};

/// A source that does as it is told, and can be told anew at any time.
struct Source {
    origin: Origin,
    script: Arc<Mutex<Arc<Script>>>,
}

impl Source {
    fn new(script: impl Fn(&Received, &mut TcpStream) -> io::Result<Keep> + Send + Sync + 'static) -> Self {
        let script: Arc<Mutex<Arc<Script>>> = Arc::new(Mutex::new(Arc::new(script)));
        let present = Arc::clone(&script);
        let origin = Origin::scripted(move |received, stream| {
            let script = Arc::clone(&present.lock().unwrap());
            script(received, stream)
        });
        Self { origin, script }
    }

    /// From now on it does something else.
    fn does(&self, script: impl Fn(&Received, &mut TcpStream) -> io::Result<Keep> + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Arc::new(script);
    }

    /// From now on it gives the same answer, whatever is asked.
    fn answers(&self, answer: String) {
        self.does(move |_, stream| stream.write_all(answer.as_bytes()).map(|()| Keep::Open));
    }

    /// How often it was asked.
    fn asked(&self) -> usize {
        self.origin.received().len()
    }
}

/// A whole answer with a length.
fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

fn ok(body: &str) -> String {
    answer("200 OK", "content-type: application/json\r\n", body)
}

/// One token as a source tells of it; `more` is further members, each with a comma before it.
fn record(id: &str, token: &str, more: &str) -> String {
    format!(r#"{{"id":"{id}","hash":"{}","user":"alice"{more}}}"#, TokenDigest::of(token))
}

fn list(records: &[String]) -> String {
    format!(r#"{{"tokens":[{}]}}"#, records.join(","))
}

/// Starts the proxy with these lines in `[tokens]`. Guesses come as fast as they like: what holds without a
/// limit on them must hold by itself.
fn serve(folder: &Folder, upstream: &Origin, tokens: &str) -> Proxy {
    folder.write(
        "patgate.toml",
        &format!(
            "listen = \"127.0.0.1:0\"\nupstream = \"{}\"\nadmin = \"127.0.0.1:0\"\nworkers = 1\n\
             [audit]\npath = \"audit.jsonl\"\n[rate]\nguesses = \"off\"\n[tokens]\n{tokens}\n",
            upstream.url()
        ),
    );
    Proxy::start(folder.path("").as_path(), &["--config", "patgate.toml"])
}

fn asks(proxy: &Proxy, token: &str) -> Answer {
    let host = &proxy.address;
    proxy.ask(&format!("GET /mcp HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n"))
}

fn status(proxy: &Proxy, token: &str) -> u16 {
    asks(proxy, token).status
}

fn readiness(proxy: &Proxy) -> Answer {
    harness::ask(&proxy.admin, "GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
}

/// Waits for a record with this reason.
fn audited(proxy: &Proxy, reason: &str) -> serde_json::Value {
    let found = || proxy.audit_so_far().into_iter().find(|record| record["reason"] == reason);
    eventually(&format!("a record with the reason {reason}"), found)
}

/// Our own trouble: 503, when to come again, and nothing that looks like a wrong password.
fn assert_unavailable(answer: &Answer) {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.header("retry-after").is_some() && answer.header("www-authenticate").is_none(), "{answer:?}");
    assert!(answer.json()["id"].is_null());
}
