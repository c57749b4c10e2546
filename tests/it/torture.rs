//! The token file under torture, with traffic: whatever happens to the file, nobody who is in every
//! version of it is refused, and nobody who is in none of them is let in.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::harness::{Folder, Origin, Proxy, eventually};

/// Asks without end, with a token that is always good and one that never is.
struct Traffic {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Traffic {
    fn start(proxy: &Proxy, good: &str) -> Self {
        let (stop, asked) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (address, good) = (proxy.address.clone(), good.to_owned());
        let (stopping, counting) = (Arc::clone(&stop), Arc::clone(&asked));
        let thread = thread::spawn(move || {
            let ask = |token: &str| {
                let request = format!("GET /mcp HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\r\n");
                crate::harness::ask(&address, &request).status
            };
            while !stopping.load(Ordering::Relaxed) {
                assert_eq!(ask(&good), 200, "a token that is in every version of the list");
                assert_eq!(ask("in-no-version-of-the-list"), 401, "a token that is in no version");
                counting.fetch_add(2, Ordering::Relaxed);
            }
        });
        Self { stop, asked, thread: Some(thread) }
    }

    /// Ends it; panics if a verdict was wrong.
    fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        assert!(self.asked.load(Ordering::Relaxed) > 20, "there was hardly any traffic");
    }
}

fn ask(proxy: &Proxy, token: &str) -> u16 {
    let host = &proxy.address;
    proxy.ask(&format!("GET /mcp HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n")).status
}

fn readiness(proxy: &Proxy) -> String {
    crate::harness::ask(&proxy.admin, "GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").body
}

/// A list with the good token and, in turn, one or the other of two more.
fn versions(folder: &Folder) -> (String, [String; 2], [String; 2]) {
    let good = folder.token("alice", &[]);
    let base = folder.read("tokens.toml");
    let first = folder.token("bob", &[]);
    let with_first = folder.read("tokens.toml");
    folder.write("tokens.toml", &base);
    let second = folder.token("carol", &[]);
    let with_second = folder.read("tokens.toml");
    (good, [first, second], [with_first, with_second])
}

#[test]
fn a_file_written_byte_by_byte_emptied_removed_or_locked_away_gives_no_wrong_verdict() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let (good, others, texts) = versions(&folder);
    let proxy = folder.serve(&origin.url(), "");
    let traffic = Traffic::start(&proxy, &good);
    let path = folder.path("tokens.toml");

    for round in 0..4 {
        let mut file = fs::File::create(&path).unwrap();
        for byte in texts[round % 2].as_bytes() {
            file.write_all(&[*byte]).unwrap();
        }
        drop(file);
        eventually("the new list", || (ask(&proxy, &others[round % 2]) == 200).then_some(()));
        assert_eq!(ask(&proxy, &others[(round + 1) % 2]), 401);
    }
    // emptied: a mishap, unless the operator has said that it may be
    fs::write(&path, "").unwrap();
    eventually("a complaint", || readiness(&proxy).contains("has become empty").then_some(()));
    // half a file
    fs::write(&path, &texts[0][..texts[0].len() - 30]).unwrap();
    eventually("a complaint with a line", || readiness(&proxy).contains("tokens.toml:").then_some(()));
    // gone
    fs::remove_file(&path).unwrap();
    eventually("a complaint", || readiness(&proxy).contains("cannot be read").then_some(()));
    // whole again
    fs::write(&path, &texts[0]).unwrap();
    eventually("peace", || (readiness(&proxy) == "ready\n").then_some(()));
    assert_eq!(ask(&proxy, &others[0]), 200);
    // locked away: root reads everything, so then there is nothing to complain of
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    let mut other = tempfile::NamedTempFile::new_in(folder.path("")).unwrap();
    other.write_all(texts[1].as_bytes()).unwrap();
    other.persist(&path).unwrap();
    eventually("the new list", || (ask(&proxy, &others[1]) == 200).then_some(()));
    traffic.end();
}

#[test]
fn a_thousand_swaps_of_a_mounted_secret_are_followed_and_the_last_one_counts() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let (good, others, texts) = versions(&folder);
    // as the kubelet does it: tokens.toml → ..data/tokens.toml, and ..data → a folder of its own
    let mount = folder.path("mount");
    fs::create_dir(&mount).unwrap();
    let publish = |round: usize| {
        let version = format!("..v{round}");
        fs::create_dir(mount.join(&version)).unwrap();
        fs::write(mount.join(&version).join("tokens.toml"), &texts[round % 2]).unwrap();
        symlink(&version, mount.join("..data_tmp")).unwrap();
        fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
        if round > 0 {
            fs::remove_dir_all(mount.join(format!("..v{}", round - 1))).unwrap();
        }
    };
    publish(0);
    symlink("..data/tokens.toml", mount.join("tokens.toml")).unwrap();
    let proxy = folder.serve_tokens(&origin.url(), "file = \"mount/tokens.toml\"\nlast_used = \"off\"\n");
    let traffic = Traffic::start(&proxy, &good);
    for round in 1..=1000 {
        publish(round);
        if round % 100 == 0 {
            // every so often, each version must come into force
            eventually("this version", || (ask(&proxy, &others[round % 2]) == 200).then_some(()));
            assert_eq!(ask(&proxy, &others[(round + 1) % 2]), 401);
        } else {
            thread::sleep(Duration::from_micros(500));
        }
    }
    eventually("peace", || (readiness(&proxy) == "ready\n").then_some(()));
    assert_eq!((ask(&proxy, &others[0]), ask(&proxy, &others[1])), (200, 401));
    traffic.end();
}

#[test]
fn a_folder_of_token_files_is_one_list() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let (alices, bobs) = (folder.token("alice", &[]), folder.token("bob", &[]));
    let text = folder.read("tokens.toml");
    let (first, second) = text.split_at(text.rfind("[[tokens]]").unwrap());
    fs::create_dir(folder.path("tokens.d")).unwrap();
    folder.write("tokens.d/a.toml", first);
    folder.write("tokens.d/notes.txt", "not a list");
    let proxy = folder.serve_tokens(&origin.url(), "file = \"tokens.d\"\n");
    assert_eq!((ask(&proxy, &alices), ask(&proxy, &bobs)), (200, 401));
    folder.write("tokens.d/b.toml", second);
    eventually("the second file", || (ask(&proxy, &bobs) == 200).then_some(()));
    folder.write("tokens.d/c.toml", second);
    eventually("a complaint", || readiness(&proxy).contains("occurs in another file, too").then_some(()));
    fs::remove_file(folder.path("tokens.d/c.toml")).unwrap();
    fs::remove_file(folder.path("tokens.d/a.toml")).unwrap();
    eventually("the rest", || (ask(&proxy, &alices) == 401).then_some(()));
    assert_eq!(ask(&proxy, &bobs), 200);
}

#[test]
fn a_file_that_is_mounted_by_itself_is_warned_of_and_a_mounted_folder_is_not() {
    let (origin, folder) = (Origin::plain(), Folder::new());
    folder.token("alice", &[]);
    folder.configure(&origin.url(), "");
    // with mounts of its own, which need no rights on this machine
    let start = |mount: &str| {
        let script = format!("{mount} && exec \"$0\" \"$@\"");
        let arguments = ["-Urm", "sh", "-c", &script, env!("CARGO_BIN_EXE_patgate")];
        Proxy::start_by("unshare", &arguments, &folder.path(""))
    };
    let is_warning = |entry: &serde_json::Value| {
        entry["level"] == "WARN" && entry["message"].as_str().unwrap().contains("mounted by itself")
    };
    let proxy = start("mount --bind tokens.toml tokens.toml");
    let warning = eventually("a warning", || proxy.log().into_iter().find(is_warning));
    assert!(
        warning["path"].as_str().unwrap().ends_with("tokens.toml")
            && warning["message"].to_string().contains("subPath")
    );
    drop(proxy);

    let proxy = start("mount --bind . \"$PWD\" && cd \"$PWD\"");
    // what is seen of changes is seen from then on
    let token = folder.token("bob", &[]);
    eventually("a new token", || (proxy.ask(&crate::harness::get(&token, "")).status == 200).then_some(()));
    assert!(!proxy.log().iter().any(is_warning), "{:?}", proxy.log());
}
