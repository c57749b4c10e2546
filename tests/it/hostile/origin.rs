//! An origin that forgives nothing: it reads its connections byte by byte as RFC 9112 writes them, and
//! whatever is not exactly a request, or could be read as more than one, is kept as a fault.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// One request, as its head says.
#[derive(Clone, Debug)]
pub struct Arrived {
    pub target: String,
    /// The fields, in the order in which they came.
    pub fields: Vec<(String, String)>,
}

impl Arrived {
    /// The first segment of the target, and the number that is the second one.
    pub fn place(&self) -> (&str, usize) {
        let mut parts = self.target.split(['/', '?', ';']).skip(1);
        (parts.next().unwrap_or_default(), parts.next().and_then(|number| number.parse().ok()).unwrap_or(usize::MAX))
    }

    /// All values of a field; whatever is no letter and no digit counts as `-` in its name, as it does for
    /// upstreams in the tradition of CGI.
    pub fn values(&self, name: &str) -> Vec<&str> {
        let fields = self.fields.iter().filter(|(found, _)| folded(found) == folded(name));
        fields.map(|(_, value)| value.as_str()).collect()
    }
}

fn folded(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect()
}

/// What an origin has seen.
#[derive(Clone, Default)]
pub struct Log {
    arrived: Arc<Mutex<Vec<Arrived>>>,
    faults: Arc<Mutex<Vec<String>>>,
}

impl Log {
    pub fn arrived(&self) -> Vec<Arrived> {
        self.arrived.lock().unwrap().clone()
    }

    /// What was sent that is no request.
    pub fn faults(&self) -> Vec<String> {
        self.faults.lock().unwrap().clone()
    }
}

/// Starts an origin that answers each request with the user, the target and the body that it got.
pub fn start() -> (String, Log) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let log = Log::default();
    let keeping = log.clone();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let log = keeping.clone();
            thread::spawn(move || {
                if let Err(Fault(what)) = talk(stream, &log) {
                    log.faults.lock().unwrap().push(what);
                }
            });
        }
    });
    (url, log)
}

struct Fault(String);

/// A connection may end at any moment: that is no fault.
impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self(format!("unexpected {error}"))
    }
}

fn talk(stream: TcpStream, log: &Log) -> Result<(), Fault> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    while let Some(head) = read_head(&mut reader) {
        let arrived = parse(&head).map_err(|what| Fault(format!("{what} in {:?}", head.escape_ascii().to_string())))?;
        // what counts is that it came, whether its body does or not
        log.arrived.lock().unwrap().push(arrived.clone());
        let Some(body) = read_body(&mut reader, &arrived)? else { return Ok(()) };
        let text = format!("{}\n{}\n{}", arrived.values("x-auth-user").concat(), arrived.target, body.escape_ascii());
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", text.len());
        if writer.write_all((head + &text).as_bytes()).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// The bytes up to the empty line; `None` where the connection ends instead.
fn read_head(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if reader.read_until(b'\n', &mut head).unwrap_or(0) == 0 {
            return None;
        }
    }
    Some(head)
}

fn parse(head: &[u8]) -> Result<Arrived, &'static str> {
    let text: String = head.iter().map(|byte| char::from(*byte)).collect();
    let lines = text.strip_suffix("\r\n\r\n").ok_or("no end")?;
    if lines.replace("\r\n", "").contains(['\r', '\n', '\0']) {
        return Err("a line break of another kind, or a NUL");
    }
    let mut lines = lines.split("\r\n");
    let words: Vec<&str> = lines.next().ok_or("no request line")?.split(' ').collect();
    let [method, target, "HTTP/1.1"] = words[..] else { return Err("no request line") };
    if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Err("no method");
    }
    if !target.starts_with('/') || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("no target in origin form");
    }
    let mut fields = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or("a line without a colon")?;
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if name.is_empty() || !name.chars().all(is_token) {
            return Err("no field name");
        }
        if value.chars().any(|c| c.is_ascii_control() && c != '\t') {
            return Err("a control character in a value");
        }
        fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
    }
    let arrived = Arrived { target: target.to_owned(), fields };
    let (lengths, codings) = (arrived.values("content-length"), arrived.values("transfer-encoding"));
    if arrived.values("host").len() != 1 {
        return Err("not one Host");
    }
    if lengths.len() + codings.len() > 1 {
        return Err("more than one framing");
    }
    if lengths.iter().any(|length| length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err("a length that is no number");
    }
    if codings.iter().any(|coding| *coding != "chunked") {
        return Err("a coding that is not exactly chunked");
    }
    Ok(arrived)
}

/// The body; `None` where the connection ends before it does.
fn read_body(reader: &mut impl BufRead, arrived: &Arrived) -> Result<Option<Vec<u8>>, Fault> {
    if let Some(length) = arrived.values("content-length").first() {
        let length: usize = length.parse().map_err(|_| Fault("a length that is no number".to_owned()))?;
        let mut body = vec![0; length];
        return Ok(reader.read_exact(&mut body).ok().map(|()| body));
    }
    let mut body = Vec::new();
    if arrived.values("transfer-encoding").is_empty() {
        return Ok(Some(body));
    }
    loop {
        let mut line = Vec::new();
        if reader.read_until(b'\n', &mut line).unwrap_or(0) == 0 {
            return Ok(None);
        }
        let size = line.strip_suffix(b"\r\n").and_then(|size| str::from_utf8(size).ok());
        let plain = size.filter(|size| size.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let size = plain.and_then(|size| usize::from_str_radix(size, 16).ok());
        let size = size.ok_or_else(|| Fault(format!("a chunk of size {:?}", line.escape_ascii().to_string())))?;
        let mut chunk = vec![0; size + 2];
        if reader.read_exact(&mut chunk).is_err() {
            return Ok(None);
        }
        if chunk.split_off(size) != b"\r\n" {
            return Err(Fault("a chunk of another size than it says, or trailers".to_owned()));
        }
        if size == 0 {
            return Ok(Some(body));
        }
        body.extend(chunk);
    }
}
