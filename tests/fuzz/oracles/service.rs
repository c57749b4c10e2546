//! The whole service, fed with raw bytes of a client.
//!
//! The origin behind it knows what an honest request looks like: it has the identity that only the proxy
//! can give, once, and no token. The user's name is drawn at the start, so no bytes can hold it. Where the
//! bytes hold no valid token, nothing at all may come.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use patgate::token::TokenDigest;

/// The token that bytes must hold to be let in.
const TOKEN: &[u8] = b"fuzz-token";

/// How long an answer may take before the client goes, so that it is not waited for where none is due.
const PATIENCE: Duration = Duration::from_millis(4);

/// A service between a client of raw bytes and an origin that judges what it gets.
pub struct House {
    socket: PathBuf,
    origin: Arc<Origin>,
    _folder: tempfile::TempDir,
}

impl House {
    /// `start` starts the service with a configuration file.
    pub fn open(start: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let user = format!("user-{:016x}", RandomState::new().build_hasher().finish());
        let origin = Arc::new(Origin { user, ..Origin::default() });
        let listener = UnixListener::bind(path("origin")).unwrap();
        let listening = Arc::clone(&origin);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let origin = Arc::clone(&listening);
                thread::spawn(move || origin.serve(stream));
            }
        });
        let (token, user) = (TokenDigest::of(str::from_utf8(TOKEN).unwrap()), &origin.user);
        let list = format!("[[tokens]]\nid = \"t1\"\nhash = \"{token}\"\nuser = \"{user}\"\n");
        fs::write(path("tokens.toml"), list).unwrap();
        let config = format!(
            "listen = \"unix:{0}/proxy\"\nupstream = \"unix:{0}/origin\"\nadmin = \"off\"\nworkers = 1\n\
             [tokens]\nfile = \"tokens.toml\"\n[audit]\npath = \"/dev/null\"\n",
            folder.path().display()
        );
        fs::write(path("patgate.toml"), config).unwrap();
        start(&path("patgate.toml"));
        let house = Self { socket: path("proxy"), origin, _folder: folder };
        house.await_start();
        house
    }

    /// Holds bytes against the oracles.
    pub fn check(&self, data: &[u8]) {
        if data.windows(TOKEN.len()).any(|window| window == TOKEN) {
            self.talk(data);
            self.settle();
        } else {
            // a request of earlier bytes may have been late: what is wrong is wrong each time
            let reached = (0..3).all(|_| self.settle() != self.talk(data));
            assert!(!reached, "a request without a token reached the origin: {:?}", self.origin.last());
        }
        if let Some(violation) = self.origin.violation.lock().unwrap().take() {
            panic!("{violation}");
        }
    }

    fn await_start(&self) {
        let token = String::from_utf8_lossy(TOKEN);
        let honest = format!("GET / HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n");
        let deadline = Instant::now() + Duration::from_secs(20);
        while connect(&self.socket).is_none() || self.talk(honest.as_bytes()) + self.settle() == 0 {
            assert!(Instant::now() < deadline, "the service does not let an honest request through");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends the bytes and reads what comes, until it ends or nothing more comes. Returns how many requests
    /// the origin has had by then.
    fn talk(&self, data: &[u8]) -> u64 {
        let Some(mut stream) = connect(&self.socket) else { panic!("the service is gone") };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
        // a service that refuses early closes its end
        let _ = stream.write_all(data);
        let mut rest = [0; 4096];
        loop {
            match stream.read(&mut rest) {
                Ok(1..) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => return self.origin.requests.load(Ordering::Acquire),
            }
        }
    }

    /// Lets requests that were let in come to their end. Returns how many the origin has had.
    fn settle(&self) -> u64 {
        let mut before = self.origin.requests.load(Ordering::Acquire);
        loop {
            thread::sleep(Duration::from_millis(2));
            let now = self.origin.requests.load(Ordering::Acquire);
            if now == before {
                return now;
            }
            before = now;
        }
    }
}

fn connect(path: &Path) -> Option<UnixStream> {
    UnixStream::connect(path).ok()
}

#[derive(Default)]
struct Origin {
    user: String,
    requests: AtomicU64,
    violation: Mutex<Option<String>>,
    last: Mutex<String>,
}

impl Origin {
    /// Reads requests one after the other, as strictly as it can, and answers each.
    fn serve(&self, stream: UnixStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut writer = stream;
        while let Some(head) = read_head(&mut reader) {
            self.requests.fetch_add(1, Ordering::AcqRel);
            self.judge(&head);
            *self.last.lock().unwrap() = head.clone();
            if read_body(&mut reader, &head).is_none() {
                return;
            }
            let answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
            if writer.write_all(answer).is_err() {
                return;
            }
        }
    }

    fn judge(&self, head: &str) {
        let values = |wanted: &str| {
            let fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
            let normal = |name: &str| name.trim().to_ascii_lowercase().replace('_', "-");
            fields
                .filter(|(name, _)| normal(name) == wanted)
                .map(|(_, value)| value.trim().to_owned())
                .collect::<Vec<_>>()
        };
        let honest = values("x-auth-user") == [self.user.as_str()]
            && values("x-auth-token-id") == ["t1"]
            && values("authorization").is_empty()
            && values("x-request-id").len() == 1
            && values("content-length").len() + values("transfer-encoding").len() <= 1
            && values("host").len() == 1;
        if !honest {
            *self.violation.lock().unwrap() = Some(format!("the origin received: {head:?}"));
        }
    }

    fn last(&self) -> String {
        self.last.lock().unwrap().clone()
    }
}

fn read_head(reader: &mut impl BufRead) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if reader.read_until(b'\n', &mut head).ok()? == 0 {
            return None;
        }
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

fn read_body(reader: &mut impl BufRead, head: &str) -> Option<()> {
    let lower = head.to_ascii_lowercase();
    if let Some(length) = lower.lines().find_map(|line| line.strip_prefix("content-length:")) {
        let mut body = reader.take(length.trim().parse().ok()?);
        std::io::copy(&mut body, &mut std::io::sink()).ok()?;
    } else if lower.contains("\r\ntransfer-encoding: chunked") {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let size = u64::from_str_radix(line.trim_end(), 16).ok()?;
            std::io::copy(&mut reader.by_ref().take(size), &mut std::io::sink()).ok()?;
            line.clear();
            reader.read_line(&mut line).ok()?;
            if size == 0 {
                break;
            }
        }
    }
    Some(())
}
