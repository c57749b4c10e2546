//! What the tests stand on: the program in a folder of its own, an origin that shows raw bytes, and
//! a client that sends them. Everything is on loopback, on ports that the system chose.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take that should be quick; only a broken product waits this long.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The program under test: the one that was built with the tests, or that which `PATGATE_PROGRAM` names. Tests that
/// start it by way of another program know the first one only.
pub fn patgate() -> Command {
    let mut command =
        Command::new(std::env::var_os("PATGATE_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_patgate").into()));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PATGATE_")) {
        command.env_remove(name);
    }
    command
}

/// Waits until `look` finds something.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

// --- A folder with a token file -------------------------------------------------------------

/// The tokens of a test's proxy.
const TOKENS: &str = "file = \"tokens.toml\"\n";

/// A folder for one test: configuration, tokens, audit log.
pub struct Folder {
    dir: TempDir,
}

impl Folder {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// The program, run in this folder to its end, which must come by itself.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.run_with(arguments, &[])
    }

    /// The same, with variables in its environment. Its output must be short.
    pub fn run_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        let mut command = patgate();
        command.current_dir(self.dir.path()).args(arguments).envs(variables.iter().copied());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while child.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                child.kill().unwrap();
                panic!("{arguments:?} does not end: {:?}", child.wait_with_output());
            }
            thread::sleep(Duration::from_millis(2));
        }
        child.wait_with_output().unwrap()
    }

    /// The program, run in this folder to its end, with something on standard input.
    pub fn feed(&self, input: &str, arguments: &[&str]) -> Output {
        let mut command = patgate();
        command.current_dir(self.dir.path()).args(arguments).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // a program that refuses without reading has closed its end
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    /// Makes a token for a user in `tokens.toml`, as an operator would.
    pub fn token(&self, user: &str, more: &[&str]) -> String {
        let mut arguments = vec!["token", "create", "--user", user, "--name", "a test", "--tokens", "tokens.toml"];
        arguments.extend(more);
        let output = self.run(&arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// Starts the proxy in front of `upstream` with `tokens.toml` and more configuration, if any.
    pub fn serve(&self, upstream: &str, more: &str) -> Proxy {
        self.configure(upstream, more);
        Proxy::start(self.dir.path(), &["--config", "patgate.toml"])
    }

    /// Starts the proxy in front of `upstream` with these keys of `[tokens]`.
    pub fn serve_tokens(&self, upstream: &str, tokens: &str) -> Proxy {
        self.configure_all(upstream, "", "", tokens);
        self.serve_with(&[], &[])
    }

    /// Starts the proxy in front of `upstream` with these keys of `[audit]` besides its path.
    pub fn serve_audit(&self, upstream: &str, audit: &str) -> Proxy {
        self.configure_all(upstream, "", audit, TOKENS);
        self.serve_with(&[], &[])
    }

    /// Writes `patgate.toml` without starting anything.
    pub fn configure(&self, upstream: &str, more: &str) -> PathBuf {
        self.configure_all(upstream, more, "", TOKENS)
    }

    fn configure_all(&self, upstream: &str, more: &str, audit: &str, tokens: &str) -> PathBuf {
        self.write(
            "patgate.toml",
            &format!(
                "listen = \"127.0.0.1:0\"\nupstream = \"{upstream}\"\nadmin = \"127.0.0.1:0\"\n{more}\n\
                 [audit]\npath = \"audit.jsonl\"\n{audit}\n[tokens]\n{tokens}"
            ),
        )
    }

    /// Starts the proxy with the configuration that was written, more arguments and variables.
    pub fn serve_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Proxy {
        let arguments = [&["--config", "patgate.toml"], arguments].concat();
        Proxy::start_with(self.dir.path(), &arguments, variables)
    }
}

// --- The proxy ------------------------------------------------------------------------------

/// A running proxy. Dropping it kills it.
pub struct Proxy {
    child: Child,
    folder: PathBuf,
    /// Where clients connect: `127.0.0.1:port` or `unix:/path`.
    pub address: String,
    /// Where health is told; empty if nowhere.
    pub admin: String,
    log: Arc<(Mutex<Vec<Value>>, Condvar)>,
}

impl Proxy {
    /// Starts `patgate serve` and waits until it listens.
    pub fn start(folder: &Path, arguments: &[&str]) -> Self {
        Self::start_with(folder, arguments, &[])
    }

    /// The same, with variables in its environment.
    pub fn start_with(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = patgate();
        command.arg("serve").args(arguments).envs(variables.iter().copied());
        Self::run(command, folder)
    }

    /// Starts `patgate serve` with the folder's configuration by a program that runs its arguments.
    pub fn start_by(program: &str, arguments: &[&str], folder: &Path) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).args(["serve", "--config", "patgate.toml"]);
        Self::run(command, folder)
    }

    fn run(mut command: Command, folder: &Path) -> Self {
        command.current_dir(folder);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let reader = BufReader::new(child.stderr.take().unwrap());
        let filling = Arc::clone(&log);
        thread::spawn(move || {
            for line in reader.lines().map_while(Result::ok) {
                let entry = serde_json::from_str(&line).unwrap_or(Value::String(line));
                filling.0.lock().unwrap().push(entry);
                filling.1.notify_all();
            }
        });
        let mut proxy = Self { child, folder: folder.to_owned(), address: String::new(), admin: String::new(), log };
        proxy.address = proxy.await_log("listening")["address"].as_str().unwrap().to_owned();
        if let Some(entry) = proxy.log().iter().find(|entry| entry["message"] == "health is told here") {
            proxy.admin = entry["address"].as_str().unwrap().to_owned();
        }
        proxy
    }

    /// The URL of an MCP endpoint behind this proxy.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Waits for a diagnostic with this message.
    pub fn await_log(&mut self, message: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(entry) = self.log().iter().find(|entry| entry["message"] == message) {
                return entry.clone();
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "no `{message}` in {:?}", self.log());
            let (lock, filled) = &*self.log;
            drop(filled.wait_timeout(lock.lock().unwrap(), Duration::from_millis(50)).unwrap());
        }
    }

    /// A diagnostic with this message, of a process that has ended.
    pub fn await_log_after_end(&self, message: &str) -> Value {
        eventually(message, || self.log().into_iter().find(|entry| entry["message"] == message))
    }

    /// All diagnostics so far.
    pub fn log(&self) -> Vec<Value> {
        self.log.0.lock().unwrap().clone()
    }

    /// The audit records, once there are at least `count` of them.
    pub fn audit(&self, count: usize) -> Vec<Value> {
        eventually(&format!("{count} audit records"), || {
            let records = self.audit_so_far();
            (records.len() >= count).then_some(records)
        })
    }

    /// The audit records of requests that have ended, at this moment.
    pub fn audit_so_far(&self) -> Vec<Value> {
        let mut records = self.audit_lines();
        records.retain(|record| record["event"] == "request");
        records
    }

    /// All lines of the audit log at this moment.
    pub fn audit_lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.folder.join("audit.jsonl")).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    /// The one audit record of a request, named by the id in its answer.
    pub fn record_of(&self, answer: &Answer) -> Value {
        let id = answer.header("x-request-id").expect("an answer has an id").to_owned();
        eventually("the audit record of an answer", || {
            self.audit_so_far().into_iter().find(|record| record["request_id"] == *id)
        })
    }

    /// Every audit record there will ever be: the proxy is told to stop and has stopped.
    pub fn last_audit(mut self) -> Vec<Value> {
        self.end();
        self.audit_so_far()
    }

    /// Tells the proxy to stop, which it must do well.
    pub fn end(&mut self) {
        self.signal("TERM");
        assert!(self.wait().success());
    }

    /// Asks the admin listener for a path.
    pub fn health(&self, path: &str) -> Answer {
        ask(&self.admin, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
    }

    /// Sends a signal by its name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success());
    }

    /// Waits for the end of the process.
    pub fn wait(&mut self) -> ExitStatus {
        eventually("the end of the proxy", || self.child.try_wait().unwrap())
    }

    /// The process id, for a look at `/proc`.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends one request and reads the answer to its end; the connection is closed after it.
    pub fn ask(&self, request: &str) -> Answer {
        ask(&self.address, request)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// --- A client of raw bytes ------------------------------------------------------------------

/// An HTTP/1.1 answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    /// The one value of a header; several are a failure of the test.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} occurs twice in {:?}", self.headers);
        value
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }
}

/// A GET of `/mcp` with a token and more header lines, each with its line break.
pub fn get(token: &str, more: &str) -> String {
    format!("GET /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n{more}\r\n")
}

/// A POST to `/mcp` with a body of known length.
pub fn post(token: &str, body: &str) -> String {
    let length = body.len();
    get(token, &format!("Content-Type: application/json\r\nContent-Length: {length}\r\n")).replacen("GET", "POST", 1)
        + body
}

/// The head of a POST to `/mcp` whose body follows in chunks.
pub fn post_in_chunks(token: &str) -> String {
    get(token, "Transfer-Encoding: chunked\r\n").replacen("GET", "POST", 1)
}

/// Sends bytes to an address; the answer is read until the server closes or it is complete.
pub fn ask(address: &str, request: &str) -> Answer {
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).unwrap();
    read_answer(&mut BufReader::new(stream))
}

/// Connects with deadlines, so that a test fails instead of hanging.
pub fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Reads one answer: by `Content-Length`, in chunks, or to the end of the connection.
pub fn read_answer(stream: &mut impl BufRead) -> Answer {
    let mut answer = read_head(stream);
    let body = read_body(stream, &answer).unwrap();
    answer.body = String::from_utf8_lossy(&body).into_owned();
    answer
}

/// Reads the body that belongs to a head; an error is a broken body.
pub fn read_body(stream: &mut impl BufRead, head: &Answer) -> io::Result<Vec<u8>> {
    let length = head.header("content-length").map(|length| length.parse::<usize>().unwrap());
    let chunked = head.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
    let mut body = Vec::new();
    if chunked {
        while let Some(chunk) = read_chunk(stream)? {
            body.extend(chunk);
        }
    } else if let Some(length) = length {
        body.resize(length, 0);
        stream.read_exact(&mut body)?;
    } else if head.status != 204 && head.status != 304 {
        stream.read_to_end(&mut body)?;
    }
    Ok(body)
}

/// Reads the head of an answer and leaves its body unread.
pub fn read_head(stream: &mut impl BufRead) -> Answer {
    let status_line = read_line(stream).unwrap();
    let status = status_line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.unwrap_or_else(|| panic!("not a status line: {status_line:?}"));
    let mut headers = Vec::new();
    loop {
        let line = read_line(stream).unwrap();
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    Answer { status, headers, body: String::new() }
}

/// Reads one chunk of a chunked body; `None` is its proper end, an error a broken one.
pub fn read_chunk(stream: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let size = read_line(stream)?;
    let size = usize::from_str_radix(&size, 16).map_err(|_| io::ErrorKind::UnexpectedEof)?;
    let mut chunk = vec![0; size];
    stream.read_exact(&mut chunk)?;
    read_line(stream)?;
    Ok((size > 0).then_some(chunk))
}

/// Reads one line, without its end.
pub fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

// --- An origin of raw bytes -----------------------------------------------------------------

/// One request as the origin received it.
#[derive(Clone, Debug)]
pub struct Received {
    /// The bytes of the head, from the method to the empty line.
    pub head: String,
    pub body: Vec<u8>,
    /// Which connection it came by, counted from 0.
    pub connection: usize,
}

impl Received {
    /// All values of a header, whose name is compared with `_` read as `-`.
    pub fn values(&self, name: &str) -> Vec<&str> {
        let normal = |text: &str| text.trim().to_ascii_lowercase().replace('_', "-");
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.filter(|(found, _)| normal(found) == normal(name)).map(|(_, value)| value.trim()).collect()
    }

    pub fn request_line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// Reads the head of a request; `None` where the connection ends instead.
    pub fn read_head(stream: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head)? == 0 {
                return Ok(None);
            }
        }
        Ok(Some(Self { head, body: Vec::new(), connection: 0 }))
    }
}

/// What an origin does with a request: it writes whatever it likes to the connection and tells
/// whether to keep it.
pub type Script = dyn Fn(&Received, &mut TcpStream) -> io::Result<Keep> + Send + Sync;

/// Whether an origin keeps a connection after an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    Open,
    Close,
}

/// A server that keeps every request as it came.
pub struct Origin {
    pub address: String,
    received: Arc<Mutex<Vec<Received>>>,
    closed: Arc<Mutex<Vec<usize>>>,
}

impl Origin {
    /// Answers each request with `answer`, which must be a whole HTTP/1.1 answer with a length.
    pub fn answering(answer: &'static str) -> Self {
        Self::scripted(move |_, stream| stream.write_all(answer.as_bytes()).map(|()| Keep::Open))
    }

    /// Answers each request with a small JSON object.
    pub fn plain() -> Self {
        Self::answering("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")
    }

    pub fn scripted(script: impl Fn(&Received, &mut TcpStream) -> io::Result<Keep> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (received, closed) = (Arc::<Mutex<Vec<Received>>>::default(), Arc::<Mutex<Vec<usize>>>::default());
        let (script, keeping, closing) = (Arc::new(script), Arc::clone(&received), Arc::clone(&closed));
        thread::spawn(move || {
            for (connection, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                let (script, keeping, closing) = (Arc::clone(&script), Arc::clone(&keeping), Arc::clone(&closing));
                thread::spawn(move || {
                    // an origin's own broken connections are what tests ask for
                    let _ = Self::talk(connection, stream, &*script, &keeping);
                    closing.lock().unwrap().push(connection);
                });
            }
        });
        Self { address, received, closed }
    }

    fn talk(connection: usize, stream: TcpStream, script: &Script, keeping: &Mutex<Vec<Received>>) -> io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut writer = stream;
        loop {
            let Some(mut received) = Received::read_head(&mut reader)? else { return Ok(()) };
            received.connection = connection;
            if let Some(length) = received.values("content-length").first().and_then(|text| text.parse().ok()) {
                received.body.resize(length, 0);
                reader.read_exact(&mut received.body)?;
            } else if !received.values("transfer-encoding").is_empty() {
                while let Some(chunk) = read_chunk(&mut reader)? {
                    received.body.extend(chunk);
                }
            }
            keeping.lock().unwrap().push(received.clone());
            if script(&received, &mut writer)? == Keep::Close {
                return writer.shutdown(Shutdown::Both);
            }
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// The numbers of the connections that have ended.
    pub fn closed(&self) -> Vec<usize> {
        self.closed.lock().unwrap().clone()
    }
}
