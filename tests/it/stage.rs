//! A stage for a play with three parts: the test is the client and the origin, and the proxy stands
//! between them. Everything happens in the order in which it is written, in one thread.

use std::io::{self, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

use crate::harness::{
    Answer, Folder, PATIENCE, Proxy, Received, connect, eventually, read_answer, read_body, read_chunk, read_head,
    read_line,
};

/// A proxy in front of an origin that the test plays, and a token.
pub fn staged(more: &str) -> (Stage, Folder, String, Proxy) {
    let (origin, folder) = (Stage::new(), Folder::new());
    let token = folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), more);
    (origin, folder, token, proxy)
}

/// An address at which the test itself is the origin, connection by connection.
pub struct Stage {
    listener: TcpListener,
}

impl Stage {
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { listener }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.listener.local_addr().unwrap())
    }

    /// The next connection, which the proxy must open.
    pub fn accept(&self) -> Line {
        let (stream, _) = eventually("a connection to the origin", || self.listener.accept().ok());
        stream.set_nonblocking(false).unwrap();
        Line::new(stream)
    }

    /// Whether nobody has connected since the last one was accepted.
    pub fn is_quiet(&self) -> bool {
        self.listener.accept().is_err()
    }
}

/// One end of a connection, for reading and writing in turn.
pub struct Line(BufReader<TcpStream>);

impl Line {
    pub fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    /// A client's end.
    pub fn to(address: &str) -> Self {
        Self::new(connect(address))
    }

    pub fn reader(&mut self) -> &mut BufReader<TcpStream> {
        &mut self.0
    }

    pub fn socket(&self) -> &TcpStream {
        self.0.get_ref()
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// Sends one chunk of a chunked body; an empty one ends it.
    pub fn send_chunk(&mut self, chunk: &str) {
        self.send(format!("{:x}\r\n{chunk}\r\n", chunk.len()));
    }

    /// The head of a request that must come.
    pub fn request(&mut self) -> Received {
        Received::read_head(&mut self.0).unwrap().expect("a request, not the end of the connection")
    }

    /// An answer that must come whole.
    pub fn answer(&mut self) -> Answer {
        read_answer(&mut self.0)
    }

    /// The head of an answer, whose body is left to be read.
    pub fn answer_head(&mut self) -> Answer {
        read_head(&mut self.0)
    }

    /// One line that must come, without its end.
    pub fn line(&mut self) -> String {
        read_line(&mut self.0).unwrap()
    }

    /// One chunk that must come.
    pub fn chunk(&mut self) -> String {
        let chunk = read_chunk(&mut self.0).expect("a whole chunk").expect("a chunk, not the end of the body");
        String::from_utf8(chunk).unwrap()
    }

    /// Whether the chunked body ends properly here.
    pub fn end_of_chunks(&mut self) -> bool {
        matches!(read_chunk(&mut self.0), Ok(None))
    }

    /// The bytes of a whole answer's body.
    pub fn body(&mut self) -> Vec<u8> {
        let head = self.answer_head();
        read_body(&mut self.0, &head).expect("a whole body")
    }

    /// So many bytes that must come.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Reads on until the other side closes; a reset is an end, too.
    pub fn await_end(&mut self) {
        let mut rest = [0; 4096];
        loop {
            match self.0.read(&mut rest) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return,
                Err(error) => panic!("the connection did not end: {error}"),
            }
        }
    }
}
