//! The server behind the proxy. It trusts whatever reaches it, and notes who it was.

use std::cell::RefCell;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use crate::http::{Reader, values};

/// The user whose token the attacker has, where it has one.
pub const MALLORY: &str = "mallory";

/// Where an answer is longer than what systems keep for a client that does not read.
pub const LARGE: &str = "/large";
static LARGE_BODY: [u8; 1 << 20] = [b'x'; 1 << 20];

/// Who has come through.
#[derive(Debug, Default)]
pub struct Arrivals {
    pub honest: u64,
    pub mallory: u64,
    /// The heads of requests that name nobody, several, or carry a token.
    pub strangers: Vec<String>,
}

/// Starts it; it runs as long as the runtime does.
pub async fn start() -> io::Result<(SocketAddr, Rc<RefCell<Arrivals>>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let arrivals = Rc::<RefCell<Arrivals>>::default();
    let noted = Rc::clone(&arrivals);
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let arrivals = Rc::clone(&noted);
            // a connection that breaks is the other side's business, which will see it
            spawn_local(async move { drop(serve(stream, &arrivals).await) });
        }
    });
    Ok((address, arrivals))
}

/// Answers with the user's name.
async fn serve(stream: TcpStream, arrivals: &RefCell<Arrivals>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = Reader::new(stream);
    loop {
        // a request counts from its head on, however slow its body is
        let head = reader.head().await?;
        let (user, large) = {
            let head = reader.text(head)?;
            let users: Vec<_> = values(head, "x-auth-user").collect();
            let mut arrivals = arrivals.borrow_mut();
            match &users[..] {
                _ if values(head, "authorization").next().is_some() => arrivals.strangers.push(head.to_owned()),
                [MALLORY] => arrivals.mallory += 1,
                [_] => arrivals.honest += 1,
                _ => arrivals.strangers.push(head.to_owned()),
            }
            (users.concat(), head.contains(LARGE))
        };
        reader.message().await?;
        let body = if large { &LARGE_BODY[..] } else { user.as_bytes() };
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n", body.len());
        if large {
            reader.stream().write_all(head.as_bytes()).await?;
            reader.stream().write_all(body).await?;
        } else {
            reader.stream().write_all(&[head.as_bytes(), body].concat()).await?;
        }
    }
}
