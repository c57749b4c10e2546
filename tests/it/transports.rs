//! The ways in and the ways out besides TCP: Unix sockets.

use std::io::{self, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

use crate::harness::{Answer, Folder, Origin, PATIENCE, eventually, get, post, read_answer, read_head};
use crate::revocation::streaming;

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
fn a_socket_that_the_next_process_has_taken_over_is_not_removed() {
    let origin = streaming();
    let (old, new) = (Folder::new(), Folder::new());
    let token = old.token("alice", &[]);
    new.token("bob", &[]);
    let path = old.path("p.sock");
    let serve = |folder: &Folder| {
        folder.configure(&origin.url(), "");
        folder.serve_with(&["--listen", &format!("unix:{}", path.display())], &[])
    };
    let mut first = serve(&old);
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(get(&token, "").as_bytes()).unwrap();
    assert_eq!(read_head(&mut BufReader::new(&client)).status, 200);
    // it goes on with that stream
    first.signal("TERM");
    eventually("the place to be free", || (!path.exists()).then_some(()));
    let _second = serve(&new);
    drop(client);
    assert!(first.wait().success());
    assert_eq!(ask_by_socket(&path, &get(&token, "")).status, 401);
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
