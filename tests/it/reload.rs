//! Changes of the token file while the proxy serves: they act on the next request once they are
//! whole and right, and never otherwise.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Folder, Origin, Proxy, eventually, get};

/// A proxy that hears of changes only by the system's notices.
fn noticing(folder: &Folder, origin: &Origin) -> Proxy {
    let path = folder.configure(&origin.url(), "");
    fs::write(path, folder.read("patgate.toml") + "poll = \"1h\"\n").unwrap();
    folder.serve_with(&[], &[])
}

fn status(proxy: &Proxy, token: &str) -> u16 {
    proxy.ask(&get(token, "")).status
}

/// Waits until a token gets this status; a change must act within a second or two.
fn await_status(proxy: &Proxy, token: &str, wanted: u16) {
    let since = Instant::now();
    eventually(&format!("status {wanted}"), || (status(proxy, token) == wanted).then_some(()));
    assert!(since.elapsed() < Duration::from_secs(4), "it took {:?}", since.elapsed());
}

fn await_ready(proxy: &Proxy, part: &str) {
    eventually(&format!("`{part}` in readiness"), || {
        let ready = proxy.health("/readyz");
        assert_eq!(ready.status, 200, "the last good list is in force");
        ready.body.contains(part).then_some(())
    });
}

/// Replaces a file as editors do: a new one beside it, renamed over it.
fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, text).unwrap();
    fs::rename(beside, path).unwrap();
}

#[test]
fn tokens_come_and_go_while_the_proxy_serves() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let alice = folder.token("alice", &[]);
    let proxy = noticing(&folder, &origin);
    assert_eq!(status(&proxy, &alice), 200);
    // one more, made by the program itself
    let bob = folder.token("bob", &[]);
    await_status(&proxy, &bob, 200);
    // a revocation, written in place
    let list = folder.read("tokens.toml");
    let revoked = list.replacen("user = \"alice\"", "user = \"alice\"\nrevoked_at = 2020-01-01T00:00:00Z", 1);
    folder.write("tokens.toml", &revoked);
    await_status(&proxy, &alice, 401);
    assert_eq!(status(&proxy, &bob), 200);
    let refused = proxy.ask(&get(&alice, ""));
    assert_eq!(proxy.record_of(&refused)["reason"], "revoked");
    // taken back, by a rename
    replace(&folder.path("tokens.toml"), &list);
    await_status(&proxy, &alice, 200);
    // removed for good, by a rename once more: the watch has not followed the old file
    let (_, only_bob) = list.split_once("\n[[tokens]]").unwrap();
    replace(&folder.path("tokens.toml"), &format!("[[tokens]]{only_bob}"));
    await_status(&proxy, &alice, 401);
    assert_eq!(status(&proxy, &bob), 200);
}

#[test]
fn a_change_acts_on_connections_that_are_already_open() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &["--scope", "mcp:read", "--scope", "mcp:write"]);
    let list = folder.read("tokens.toml");
    let proxy = noticing(&folder, &origin);
    let mut client = crate::stage::Line::to(&proxy.address);
    let mut ask = || {
        client.send(get(&token, ""));
        let record = proxy.record_of(&client.answer());
        let received = origin.received().pop().unwrap();
        (record["reason"].as_str().unwrap().to_owned(), received.values("x-auth-scopes").concat())
    };
    assert_eq!(ask(), ("ok".to_owned(), "mcp:read mcp:write".to_owned()));
    let user = "[[users]]\nid = \"alice\"\nroles = [\"reader\"]\n";
    let roles = "[roles.reader]\nscopes = [\"mcp:read\"]\n";
    for (change, reason, scopes) in [
        (format!("{user}{roles}"), "ok", "mcp:read"),
        (format!("{user}status = \"suspended\"\n{roles}"), "user_suspended", "mcp:read"),
        ("[[users]]\nid = \"bob\"\n".to_owned(), "user_unknown", "mcp:read"),
        (String::new(), "ok", "mcp:read mcp:write"),
    ] {
        folder.write("tokens.toml", &format!("{list}{change}"));
        eventually(reason, || (ask() == (reason.to_owned(), scopes.to_owned())).then_some(()));
    }
}

#[test]
fn a_broken_edit_changes_nothing_and_is_told_by_readiness() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let good = folder.read("tokens.toml");
    let proxy = noticing(&folder, &origin);
    await_ready(&proxy, "ready\n");
    for (broken, named) in [
        (format!("{good}[[tokens]]\nid = \"x"), "not TOML"),
        (format!("{good}[[tokens]]\nid = \"x\"\n"), "tokens[1].hash: missing"),
        (good.replace("expires_at", "expire_at"), "did you mean `expires_at`?"),
        (good[..good.len() / 2].to_owned(), "tokens.toml"),
    ] {
        folder.write("tokens.toml", &broken);
        await_ready(&proxy, named);
        assert!(proxy.health("/readyz").body.contains("last good list"));
        assert_eq!(status(&proxy, &token), 200);
        folder.write("tokens.toml", &good);
        eventually("readiness without a complaint", || (proxy.health("/readyz").body == "ready\n").then_some(()));
    }
    assert!(format!("{:?}", proxy.log()).contains("stays in force"));
}

#[test]
fn a_file_that_is_gone_for_a_while_changes_nothing() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = noticing(&folder, &origin);
    fs::rename(folder.path("tokens.toml"), folder.path("away.toml")).unwrap();
    await_ready(&proxy, "cannot be read");
    assert_eq!(status(&proxy, &token), 200);
    // the very same content returns
    fs::rename(folder.path("away.toml"), folder.path("tokens.toml")).unwrap();
    eventually("readiness without a complaint", || (proxy.health("/readyz").body == "ready\n").then_some(()));
}

#[test]
fn who_may_touch_a_file_counts_while_the_proxy_serves() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let alice = folder.token("alice", &[]);
    let proxy = folder.serve_tokens(&origin.url(), "file = \"tokens.toml\"\npoll = \"50ms\"\nrefuse_exposed = true\n");
    let allow = |mode| fs::set_permissions(folder.path("tokens.toml"), Permissions::from_mode(mode)).unwrap();
    let in_order = || eventually("readiness", || (proxy.health("/readyz").body == "ready\n").then_some(()));
    for mode in [0o604, 0o602] {
        // the content is the same all the time
        allow(mode);
        await_ready(&proxy, "everybody on this machine can read or write it");
        allow(0o640);
        in_order();
    }
    allow(0o604);
    await_ready(&proxy, "everybody on this machine can read or write it");
    let bob = folder.token("bob", &[]);
    // looked at several times, and complained of once
    let refused =
        || proxy.health("/metrics").body.contains("patgate_reloads_total{list=\"tokens\",result=\"failure\"} 4");
    eventually("the refusal of the new list", || refused().then_some(()));
    thread::sleep(Duration::from_millis(300));
    assert!(refused());
    assert_eq!((status(&proxy, &alice), status(&proxy, &bob)), (200, 401));
    allow(0o600);
    await_status(&proxy, &bob, 200);
    in_order();
}

#[test]
fn a_folder_in_the_place_of_the_deny_list_revives_nobody() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let denied = folder.write("revoked.txt", &format!("{}\n", patgate::token::TokenDigest::of(&token)));
    let proxy = folder.serve_tokens(&origin.url(), "file = \"tokens.toml\"\ndeny_list = \"revoked.txt\"\n");
    assert_eq!(status(&proxy, &token), 401);
    fs::remove_file(&denied).unwrap();
    fs::create_dir(&denied).unwrap();
    await_ready(&proxy, "revoked.txt: a folder where a deny list belongs: name one file");
    // nor one that has a list in it
    folder.write("revoked.txt/more.toml", "");
    await_ready(&proxy, "name one file");
    assert_eq!(status(&proxy, &token), 401);
    let check = folder.run(&["check", "--config", "patgate.toml"]);
    let said = String::from_utf8_lossy(&check.stderr).into_owned();
    assert!(
        check.status.code() == Some(2) && said.contains("revoked.txt: a folder where a deny list belongs"),
        "{said}"
    );
}

#[test]
fn an_emptied_file_does_not_lock_everybody_out() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let token = folder.token("alice", &[]);
    let proxy = noticing(&folder, &origin);
    folder.write("tokens.toml", "");
    await_ready(&proxy, "last good list");
    assert_eq!(status(&proxy, &token), 200);
}

#[test]
fn links_that_are_swapped_as_kubernetes_does_are_followed() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let tokens = ["alice", "bob"].map(|user| {
        let _ = fs::remove_file(folder.path("tokens.toml"));
        let token = folder.token(user, &[]);
        fs::create_dir(folder.path(user)).unwrap();
        fs::rename(folder.path("tokens.toml"), folder.path(user).join("tokens.toml")).unwrap();
        token
    });
    let point_to = |user: &str| {
        symlink(user, folder.path("..tmp")).unwrap();
        fs::rename(folder.path("..tmp"), folder.path("..data")).unwrap();
    };
    point_to("alice");
    symlink("..data/tokens.toml", folder.path("tokens.toml")).unwrap();
    let proxy = noticing(&folder, &origin);
    let [alice, bob] = tokens;
    assert_eq!((status(&proxy, &alice), status(&proxy, &bob)), (200, 401));
    for _ in 0..5 {
        point_to("bob");
        await_status(&proxy, &bob, 200);
        assert_eq!(status(&proxy, &alice), 401);
        point_to("alice");
        await_status(&proxy, &alice, 200);
        assert_eq!(status(&proxy, &bob), 401);
    }
}

#[test]
fn a_file_whose_changes_nobody_notices_is_read_again_all_the_same() {
    let origin = Origin::plain();
    let (folder, elsewhere) = (Folder::new(), Folder::new());
    let alice = elsewhere.token("alice", &[]);
    // the folder that is watched holds only a link, and the link does not change
    symlink(elsewhere.path("tokens.toml"), folder.path("tokens.toml")).unwrap();
    let path = folder.configure(&origin.url(), "");
    fs::write(path, folder.read("patgate.toml") + "poll = \"200ms\"\n").unwrap();
    let proxy = folder.serve_with(&[], &[]);
    assert_eq!(status(&proxy, &alice), 200);
    let bob = elsewhere.token("bob", &[]);
    await_status(&proxy, &bob, 200);
}

#[test]
fn no_verdict_is_wrong_while_the_file_is_being_written() {
    let origin = Origin::plain();
    let folder = Folder::new();
    let (alice, bob) = (folder.token("alice", &[]), folder.token("bob", &[]));
    let list = folder.read("tokens.toml");
    let proxy = noticing(&folder, &origin);
    let writing = AtomicBool::new(true);
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..40 {
                // in place: emptied first, then written
                folder.write("tokens.toml", &format!("{list}# {round}\n"));
                thread::sleep(Duration::from_millis(20));
            }
            writing.store(false, Ordering::Release);
        });
        while writing.load(Ordering::Acquire) {
            assert_eq!((status(&proxy, &alice), status(&proxy, &bob)), (200, 200));
        }
    });
}

/// Processor time of a process so far, in clock ticks.
fn processor_time(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn following_a_file_that_nobody_changes_costs_nothing() {
    let origin = Origin::plain();
    let folder = Folder::new();
    folder.token("alice", &[]);
    let proxy = folder.serve(&origin.url(), "");
    let before = processor_time(proxy.pid());
    // the proxy's own reading must not wake it up to read again: there is nothing to wait for but time
    thread::sleep(Duration::from_secs(2));
    let spent = processor_time(proxy.pid()) - before;
    assert!(spent < 20, "{spent} ticks in two idle seconds");
}
