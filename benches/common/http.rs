//! As much HTTP/1.1 as both ends of a measurement need: whole messages, read one after the other
//! into one buffer.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Reads messages from a connection.
pub struct Reader<S> {
    stream: S,
    buffer: Vec<u8>,
    /// Where the message that was read last ends.
    end: usize,
}

/// A whole message.
pub struct Message<'b> {
    pub head: &'b str,
    pub body: &'b [u8],
}

impl Message<'_> {
    /// The second word of the first line: a request's target, an answer's status.
    pub fn subject(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }
}

/// The values of a field.
pub fn values<'h>(head: &'h str, name: &str) -> impl Iterator<Item = &'h str> {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    fields.filter(move |(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

impl<S: AsyncRead + Unpin> Reader<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::with_capacity(512 * 1024), end: 0 }
    }

    pub fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Reads the head of the next message; what was read of its body stays in the buffer.
    pub async fn head(&mut self) -> io::Result<usize> {
        self.buffer.drain(..self.end);
        self.end = 0;
        let mut seen = 0;
        loop {
            if let Some(at) = self.buffer[seen..].windows(4).position(|window| window == b"\r\n\r\n") {
                return Ok(seen + at + 4);
            }
            seen = self.buffer.len().saturating_sub(3);
            self.fill().await?;
        }
    }

    /// The head that was read last.
    pub fn text(&self, head: usize) -> io::Result<&str> {
        str::from_utf8(&self.buffer[..head]).map_err(io::Error::other)
    }

    /// Reads the next message, whose head may have been read already.
    pub async fn message(&mut self) -> io::Result<Message<'_>> {
        let head = self.head().await?;
        let text = self.text(head)?;
        let length = values(text, "content-length").next().and_then(|length| length.parse::<usize>().ok());
        let chunked = values(text, "transfer-encoding").next().is_some();
        self.end = match length {
            Some(length) => head + length,
            // no body that is sent here contains this
            None if chunked => loop {
                if self.buffer[head..].ends_with(b"\r\n0\r\n\r\n") {
                    break self.buffer.len();
                }
                self.fill().await?;
            },
            None => head,
        };
        while self.buffer.len() < self.end {
            self.fill().await?;
        }
        Ok(Message { head: self.text(head)?, body: &self.buffer[head..self.end] })
    }

    /// Waits until something has come behind the head, and throws it away.
    pub async fn skip_some(&mut self, head: usize) -> io::Result<()> {
        if self.buffer.len() <= head {
            self.fill().await?;
        }
        self.buffer.truncate(head);
        Ok(())
    }

    async fn fill(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}
