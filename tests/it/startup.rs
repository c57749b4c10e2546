//! Starting, or not: each mistake is named with its place and with what to do, and the exit code says
//! whose mistake it was.

use std::fs::Permissions;
use std::io::{BufReader, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};

use rcgen::generate_simple_self_signed;

use crate::harness::{Folder, Origin, Proxy, eventually, get, read_answer};

/// How a command ends: its exit code, standard output and standard error.
fn run(folder: &Folder, arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
    let output = folder.run_with(arguments, variables);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// A folder in which `serve` would start.
fn folder() -> Folder {
    let folder = Folder::new();
    folder.token("alice", &[]);
    folder.configure("http://127.0.0.1:9", "");
    folder
}

/// What `serve` and `check` say about something invalid: the same, and exit code 2.
fn refused(folder: &Folder) -> String {
    let (served, _, said) = run(folder, &["serve", "--config", "patgate.toml"], &[]);
    let (checked, printed, told) = run(folder, &["check", "--config", "patgate.toml"], &[]);
    assert_eq!((served, checked, printed.as_str()), (2, 2, ""), "{said}{told}");
    for line in said.lines() {
        assert!(line.starts_with("error: ") && told.contains(line), "{line:?} is not in {told}");
    }
    said
}

#[track_caller]
fn assert_names(said: &str, expected: &[&str]) {
    for text in expected {
        assert!(said.contains(text), "`{text}` is not in: {said}");
    }
}

// --- Invalid files: exit code 2 -------------------------------------------------------------

#[test]
fn a_malformed_token_file_is_named_with_line_and_column() {
    let folder = folder();
    let good = folder.read("tokens.toml");
    folder.write("tokens.toml", &format!("{good}\n[[tokens]]\nid = \"x\nuser = 1\n"));
    let line = good.lines().count() + 3;
    assert_names(&refused(&folder), &[&format!("tokens.toml:{line}:"), "not TOML"]);

    folder.write(
        "tokens.toml",
        "[[tokens]]\nid = \"x\"\nhash = \"mcp_pat_secret\"\nuser = \"a\"\nexpire_at = 2027-01-01\n",
    );
    let said = refused(&folder);
    assert_names(&said, &["tokens.toml:3:8: tokens[0].hash:", "tokens.toml:5:1: tokens[0].expire_at:", "`expires_at`"]);
    assert!(!said.contains("mcp_pat_secret"), "a token in the wrong place is not repeated");
}

#[test]
fn a_token_file_that_everybody_can_read_is_warned_of_or_refused() {
    let folder = folder();
    let warned = |mode| {
        std::fs::set_permissions(folder.path("tokens.toml"), Permissions::from_mode(mode)).unwrap();
        let proxy = folder.serve_with(&[], &[]);
        let logged = proxy.log().iter().any(|entry| entry["message"] == "a token file is exposed");
        let (code, _, said) = run(&folder, &["check", "--config", "patgate.toml"], &[]);
        assert_eq!(code, 0, "{said}");
        let advice = "tokens.toml: everybody on this machine can read or write it: take that right from others";
        assert_eq!(said.starts_with("warning: ") && said.contains(advice), logged, "{said}");
        logged
    };
    assert!(!warned(0o640) && warned(0o644) && warned(0o642));
    let config = folder.read("patgate.toml") + "refuse_exposed = true\n";
    folder.write("patgate.toml", &config);
    assert_names(&refused(&folder), &["tokens.toml: everybody on this machine can read or write it"]);
    assert!(!warned(0o600));
}

#[test]
fn files_that_cannot_be_read_are_named_with_what_to_do() {
    let folder = folder();
    std::fs::remove_file(folder.path("tokens.toml")).unwrap();
    assert_names(&refused(&folder), &["tokens.toml", "cannot be read", "make it"]);
    for missing in ["nowhere.toml", "."] {
        for command in ["serve", "check"] {
            let (code, _, said) = run(&folder, &[command, "--config", missing], &[]);
            assert_eq!(code, 2);
            assert_names(&said, &[missing, "cannot be read"]);
        }
    }
}

#[test]
fn every_mistake_of_a_configuration_is_reported_at_once() {
    let folder = folder();
    folder.write(
        "patgate.toml",
        "listn = \"127.0.0.1:0\"\nupstream = \"ftp://localhost\"\nadmin = 5\nworkers = 0\n\
         allowed_origins = [\"app.test\"]\n[timeouts]\ndrain = \"soon\"\n[limits]\nbody = \"much\"\n\
         [identity]\nuser = \"Authorization\"\n[nonsense]\n[rate]\nburst = 9\nguesses = 0\n[tokens]\nfile = \"tokens.toml\"\n",
    );
    let said = refused(&folder);
    let expected = [
        "patgate.toml:1:1: listn: unknown key: did you mean `listen`?",
        "patgate.toml:2:12: upstream:",
        "patgate.toml:3:9: admin: an integer where a string belongs",
        "patgate.toml:4:11: workers:",
        "patgate.toml:5:19: allowed_origins:",
        "patgate.toml:7:9: timeouts.drain: `soon` is not a duration",
        "patgate.toml:9:8: limits.body: `much` is not a size",
        "patgate.toml:11:8: identity.user:",
        "patgate.toml:12:2: nonsense: unknown key",
        "patgate.toml:14:9: rate.burst: limits nothing by itself",
        "patgate.toml:15:11: rate.guesses: `0` is no number",
    ];
    assert_names(&said, &expected);
    assert_eq!(said.lines().count(), expected.len(), "each mistake once: {said}");
}

#[test]
fn two_facts_about_a_user_do_not_share_a_header() {
    let folder = folder();
    for other in ["X-Who", "x-who", "X_Who", "X.Who"] {
        folder.configure("http://127.0.0.1:9", &format!("[identity]\nuser = \"X-Who\"\nname = \"{other}\""));
        assert_names(&refused(&folder), &["patgate.toml:6:8: identity.name:"]);
    }
    // nor with one that has its usual name
    folder.configure("http://127.0.0.1:9", "[identity]\nuser = \"X-Auth-Email\"");
    assert_names(&refused(&folder), &["patgate.toml:4:1: identity.email:"]);
}

#[test]
fn a_user_is_not_told_where_something_else_is() {
    let folder = folder();
    for taken in [
        "Authorization",
        "Cookie",
        "Forwarded",
        "Host",
        "TraceParent",
        "tracestate",
        "X-Forwarded-For",
        "x_forwarded_host",
        "X.Forwarded.Proto",
        "X_Request_Id",
    ] {
        folder.configure("http://127.0.0.1:9", &format!("[identity]\nuser = \"{taken}\""));
        assert_names(&refused(&folder), &["patgate.toml:5:8: identity.user: "]);
    }
    // a usual name for it
    folder.configure("http://127.0.0.1:9", "[identity]\nuser = \"X-Forwarded-User\"");
    assert!(folder.run(&["check", "--config", "patgate.toml"]).status.success());
}

#[test]
fn check_judges_the_token_file_whatever_is_wrong_with_the_configuration() {
    let folder = folder();
    folder.write("tokens.toml", "[[user]]\nid = \"alice\"\n");
    for (mistake, key) in [("listn = \"x\"", "listn"), ("[identity]\nuser = \"a b\"", "identity.user")] {
        folder.configure("http://127.0.0.1:9", mistake);
        let (code, _, said) = run(&folder, &["check", "--config", "patgate.toml"], &[]);
        assert_eq!(code, 2);
        assert_names(&said, &[key, "tokens.toml:1:3: user: unknown key: did you mean `users`?"]);
    }
}

#[test]
fn an_upstream_that_is_no_address_is_named_by_where_it_was_written() {
    let folder = folder();
    for address in ["localhost:3000", "http://", "http://localhost:0", "http://localhost?x", "unix:relative", ""] {
        folder.configure(address, "");
        assert_names(&refused(&folder), &["patgate.toml:2:12: upstream:", "http://host:port"]);
        let (code, _, said) = run(&folder, &["check", "--config", "patgate.toml", "--upstream", address], &[]);
        assert_eq!(code, 2, "{address}");
        assert_names(&said, &["--upstream", "PATGATE_UPSTREAM", "http://host:port"]);
    }
    folder.configure("http://alice:hunter2@localhost", "");
    assert!(!refused(&folder).contains("hunter2"));
    folder.write("patgate.toml", "[tokens]\nfile = \"tokens.toml\"");
    assert_names(&refused(&folder), &["upstream", "missing"]);
    let (code, _, said) = run(&folder, &["serve"], &[]);
    assert_eq!(code, 2);
    assert_names(&said, &["upstream", "tokens.file", "--tokens"]);
}

#[test]
fn a_host_for_the_upstream_is_a_name_and_a_port_at_most() {
    let folder = folder();
    for wrong in ["", "a b", "http://x/", "a/b?c#d", "alice@x", ":80", "x:", "x:0", "x:port", "x:70000", "é", "x, y"] {
        folder.configure("http://127.0.0.1:9", &format!("upstream_host = \"{wrong}\""));
        assert_names(&refused(&folder), &["patgate.toml:4:17: upstream_host: ", "write host or host:port"]);
    }
    for right in ["x", "x.example.com:8931", "127.0.0.1:80", "[::1]:80", "[::1]"] {
        folder.configure("http://127.0.0.1:9", &format!("upstream_host = \"{right}\""));
        assert_eq!(run(&folder, &["check", "--config", "patgate.toml"], &[]).0, 0, "{right}");
    }
}

#[test]
fn the_two_doors_are_not_one_address() {
    let folder = folder();
    let good = folder.read("patgate.toml");
    for (listen, admin) in [
        ("127.0.0.1:8471", "127.0.0.1:8471"),
        ("0.0.0.0:8471", "127.0.0.1:8471"),
        ("127.0.0.1:8471", "[::]:8471"),
        ("unix:/p.sock", "unix:/p.sock"),
    ] {
        let (listen_key, admin_key) = (format!("listen = \"{listen}\""), format!("admin = \"{admin}\""));
        let text = good.replace("listen = \"127.0.0.1:0\"", &listen_key);
        folder.write("patgate.toml", &text.replace("admin = \"127.0.0.1:0\"", &admin_key));
        let said = refused(&folder);
        assert_names(&said, &[&format!(": admin: {admin} is taken by listen ({listen})"), "patgate.toml:"]);
        folder.write("patgate.toml", &text);
        let (code, _, said) = run(&folder, &["check", "--config", "patgate.toml", "--admin", admin], &[]);
        assert_eq!(code, 2, "{said}");
        assert_names(&said, &["--admin", "PATGATE_ADMIN", "is taken by listen"]);
    }
    for (listen, admin) in [("127.0.0.1:8471", "127.0.0.2:8471"), ("[::1]:8471", "0.0.0.0:8471")] {
        let arguments = ["check", "--config", "patgate.toml", "--listen", listen, "--admin", admin];
        assert_eq!(run(&folder, &arguments, &[]).0, 0, "{listen} {admin}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named_by_its_key() {
    let folder = folder();
    let good = folder.read("patgate.toml");
    for (from, to, expected) in [
        ("path = \"audit.jsonl\"", "path = \"\"", ": audit.path: empty: name a file"),
        ("audit.jsonl", "gone/audit.jsonl", ": audit.path: there is no folder gone: make it"),
        ("file = \"tokens.toml\"", "file = \"\"", ": tokens.file: empty: name a file"),
        ("\"tokens.toml\"", "\"gone.toml\"", ": tokens.file: gone.toml cannot be read"),
        ("file =", "deny_list = \"\"\nfile =", ": tokens.deny_list: empty: name a file"),
        ("file =", "deny_list = \"gone.txt\"\nfile =", ": tokens.deny_list: gone.txt cannot be read"),
        (
            "file = \"tokens.toml\"",
            "http = { url = \"https://127.0.0.1:9/\", ca = \"gone.pem\" }",
            ": tokens.http.ca: cannot read gone.pem",
        ),
    ] {
        assert!(good.contains(from), "{from} not in {good}");
        folder.write("patgate.toml", &good.replacen(from, to, 1));
        let said = refused(&folder);
        assert_names(&said, &["error: patgate.toml:", expected]);
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    folder.write("patgate.toml", &good);
    for (named, expected) in [("", "empty: name a file"), ("gone.toml", "gone.toml cannot be read")] {
        for command in ["serve", "check"] {
            let (code, _, said) = run(&folder, &[command, "--config", "patgate.toml", "--tokens", named], &[]);
            assert_eq!(code, 2, "{said}");
            assert_names(&said, &["tokens (--tokens, PATGATE_TOKENS): ", expected]);
        }
    }
}

#[test]
fn a_bearer_token_that_is_not_there_stops_nobody_who_does_not_need_it() {
    let folder = folder();
    folder.token("alice", &[]);
    let good = folder.read("patgate.toml");
    for (source, key) in [
        ("http = { url = \"http://127.0.0.1:9/\"", "tokens.http.bearer_file"),
        ("lookup = { url = \"http://127.0.0.1:9/{sha256}\"", "tokens.lookup.bearer_file"),
    ] {
        let source = format!("{source}, bearer_file = \"gone\" }}");
        folder.write("patgate.toml", &good.replacen("file = \"tokens.toml\"", &source, 1));
        let (code, _, said) = run(&folder, &["check", "--config", "patgate.toml"], &[]);
        assert_eq!(code, 2, "{said}");
        assert_names(&said, &[&format!("{key}: gone cannot be read"), "make it, or correct its name"]);
        for command in [&["check"][..], &["token", "list"], &["user", "add", "alice"], &["user", "remove", "alice"]] {
            let arguments = [command, &["--config", "patgate.toml", "--tokens", "tokens.toml"]].concat();
            let (code, _, said) = run(&folder, &arguments, &[]);
            assert_eq!((code, said.contains("gone")), (0, false), "{command:?}: {said}");
        }
        let proxy = folder.serve_with(&["--tokens", "tokens.toml"], &[]);
        assert_eq!(proxy.health("/readyz").status, 200);
        assert!(!format!("{:?}", proxy.log()).contains("gone"));
        let mut proxy = folder.serve_with(&[], &[]);
        proxy.await_log("the token source cannot be asked yet");
    }
}

#[test]
fn a_certificate_that_does_not_match_its_key_is_refused() {
    let folder = folder();
    let pair = || generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (own, other) = (pair(), pair());
    folder.write("cert.pem", &own.cert.pem());
    folder.write("key.pem", &other.signing_key.serialize_pem());
    let table = "[tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"";
    folder.configure("http://127.0.0.1:9", table);
    assert_names(&refused(&folder), &["patgate.toml:", "tls.cert:", "does not match its key"]);
    folder.write("key.pem", &own.signing_key.serialize_pem());
    assert_eq!(run(&folder, &["check", "--config", "patgate.toml"], &[]).0, 0);

    // nobody is to believe that this was TLS
    folder.configure("http://127.0.0.1:9", &format!("{table}\n"));
    let text = folder.read("patgate.toml").replace("127.0.0.1:0\"\nupstream", "unix:/p.sock\"\nupstream");
    folder.write("patgate.toml", &text);
    assert_names(&refused(&folder), &["patgate.toml:4:1", "tls:", "not spoken on a Unix socket (unix:/p.sock)"]);
    folder.configure("http://127.0.0.1:9", table);

    folder.write("cert.pem", "no certificate");
    assert_names(&refused(&folder), &["no certificate found in", "cert.pem"]);
    folder.configure("http://127.0.0.1:9", &table.replace("key.pem", "nowhere.pem").replace("cert.pem", "key.pem"));
    assert_names(&refused(&folder), &["tls.", ".pem"]);
    folder.configure("http://127.0.0.1:9", "[tls]\ncert = \"cert.pem\"");
    assert_names(&refused(&folder), &["tls.key: missing"]);
    folder.configure("https://localhost", "[upstream_tls]\nca = \"nowhere.pem\"");
    assert_names(&refused(&folder), &["upstream_tls.ca:"]);
}

// --- The command line -----------------------------------------------------------------------

#[test]
fn wrong_usage_is_exit_code_2_and_help_is_0() {
    let folder = folder();
    for arguments in [
        &["serve", "--tokn", "x"][..],
        &["serve", "--token", "mcp_pat_x"],
        &["srve"],
        &[],
        &["check", "extra"],
        &["token"],
        &["token", "create", "--user", "alice"],
        &["serve", "--listen"],
    ] {
        let (code, printed, said) = run(&folder, arguments, &[]);
        assert_eq!((code, printed.as_str()), (2, ""), "{arguments:?}");
        assert!(said.contains("--help") || said.contains("Usage:"), "{said}");
    }
    for arguments in [&["--help"][..], &["serve", "--help"], &["token", "create", "--help"], &["--version"]] {
        let (code, printed, _) = run(&folder, arguments, &[]);
        assert!(code == 0 && printed.to_lowercase().contains("patgate"), "{arguments:?}");
    }
}

#[test]
fn a_flag_beats_the_environment_and_the_environment_beats_the_file() {
    let folder = folder();
    let socket = |name: &str| format!("unix:{}", folder.path(name).display());
    for (name, users) in [("file.toml", 1), ("environment.toml", 2), ("flag.toml", 3)] {
        let listing = "[[tokens]]\nid = \"{i}\"\nhash = \"sha256:{h}\"\nuser = \"a\"\n";
        let list: String = (0..users)
            .map(|index| listing.replace("{i}", &format!("t{index}")).replace("{h}", &format!("{index:064x}")))
            .collect();
        folder.write(name, &list);
    }
    folder.write(
        "patgate.toml",
        &format!(
            "listen = \"{}\"\nadmin = \"{}\"\nupstream = \"http://file:1\"\n[tokens]\nfile = \"file.toml\"\n",
            socket("file.sock"),
            socket("file-admin.sock")
        ),
    );
    let settings = |name: &str| {
        [
            ("listen", socket(&format!("{name}.sock"))),
            ("admin", socket(&format!("{name}-admin.sock"))),
            ("upstream", format!("http://{name}:1")),
            ("tokens", format!("{name}.toml")),
        ]
    };
    let variables: Vec<_> = settings("environment")
        .into_iter()
        .map(|(key, value)| (format!("PATGATE_{}", key.to_uppercase()), value))
        .collect();
    let variables: Vec<_> = variables.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let flags: Vec<_> = settings("flag").into_iter().flat_map(|(key, value)| [format!("--{key}"), value]).collect();
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();

    let file = [("PATGATE_CONFIG", "patgate.toml")];
    for (name, tokens, flags, variables) in [
        ("file", 1, &[][..], file.to_vec()),
        ("environment", 2, &[], [&file[..], &variables].concat()),
        ("flag", 3, &flags, [&file[..], &variables].concat()),
    ] {
        let mut proxy = Proxy::start_with(&folder.path(""), flags, &variables);
        let listening = proxy.await_log("listening");
        assert_eq!(listening["address"], socket(&format!("{name}.sock")));
        assert_eq!(proxy.admin, socket(&format!("{name}-admin.sock")));
        let upstream = listening["upstream"].as_str().unwrap();
        assert!(upstream.starts_with(&format!("http://{name}:1")), "{upstream}");
        assert_eq!(listening["tokens"], tokens, "{name}");
    }
}

// --- The system says no: exit code 1 --------------------------------------------------------

#[test]
fn an_address_in_use_is_a_failure_that_names_it() {
    let folder = folder();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    for flag in ["--listen", "--admin"] {
        let (code, _, said) = run(&folder, &["serve", "--config", "patgate.toml", flag, &taken], &[]);
        assert_eq!(code, 1, "{said}");
        assert_names(&said, &[&format!("{}: {taken}", &flag[2..]), "in use"]);
    }
    let in_folder = |name: &str| format!("unix:{}", folder.path(name).display());
    for (address, expected) in [
        (in_folder("patgate.toml"), "is a file and no socket: remove it"),
        (in_folder("."), "is a folder and no socket"),
        (in_folder("nowhere/p.sock"), "make the folder that it is to be in"),
        ("192.0.2.1:8080".to_owned(), "this machine has no such address"),
    ] {
        for flag in ["--listen", "--admin"] {
            let (code, _, said) = run(&folder, &["serve", "--config", "patgate.toml", flag, &address], &[]);
            assert_eq!(code, 1, "{said}");
            assert_names(&said, &[&format!("error: {}: ", &flag[2..]), &address, expected]);
        }
    }
    // two proxies do not share an address by accident
    let first = folder.serve_with(&[], &[]);
    let (code, _, said) = run(&folder, &["serve", "--config", "patgate.toml", "--listen", &first.address], &[]);
    assert_eq!(code, 1, "{said}");
    assert_names(&said, &[&first.address, "in use"]);
}

#[test]
fn an_audit_log_that_cannot_be_opened_is_a_failure_that_names_it() {
    let folder = folder();
    let text = folder.read("patgate.toml").replace("audit.jsonl", "nowhere");
    folder.write("patgate.toml", &text);
    std::fs::create_dir(folder.path("nowhere")).unwrap();
    let (code, _, said) = run(&folder, &["serve", "--config", "patgate.toml"], &[]);
    assert_eq!(code, 1, "{said}");
    assert_names(&said, &["audit.path: cannot open the audit log nowhere"]);
}

#[test]
fn check_starts_nothing_and_says_what_it_found() {
    let folder = folder();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let (code, printed, said) = run(&folder, &["check", "--config", "patgate.toml", "--listen", &taken], &[]);
    assert_eq!((code, said.as_str()), (0, ""));
    assert_names(&printed, &["valid", "1 token", "tokens.toml", "http://127.0.0.1:9"]);
    assert!(!folder.path("audit.jsonl").exists());
}

#[test]
fn a_socket_that_was_handed_over_is_served_by_every_worker() {
    let origin = Origin::plain();
    let folder = folder();
    let token = folder.token("bob", &[]);
    folder.configure(&origin.url(), "workers = 2");
    let (code, _, said) = run(&folder, &["serve", "--config", "patgate.toml", "--listen", "systemd"], &[]);
    assert_eq!(code, 1, "{said}");
    assert_names(&said, &["no socket was handed over"]);
    let (code, _, said) = run(&folder, &["serve", "--config", "patgate.toml", "--admin", "systemd"], &[]);
    assert_eq!(code, 2, "{said}");

    // as its third descriptor, which the child then has, too
    let path = folder.path("handed-over.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let program = env!("CARGO_BIN_EXE_patgate");
    let script = format!(
        "LISTEN_FDS=1 LISTEN_PID=$$ exec {program} serve --config patgate.toml --listen systemd 3<&0 0</dev/null"
    );
    let shell = || {
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).current_dir(folder.path("")).stdin(OwnedFd::from(listener.try_clone().unwrap()));
        shell
    };
    let mut child = shell().stderr(Stdio::null()).spawn().unwrap();
    for _ in 0..10 {
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(get(&token, "").as_bytes()).unwrap();
        assert_eq!(read_answer(&mut BufReader::new(client)).status, 200);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(path.exists(), "whoever opened it removes it");

    let own = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    folder.write("cert.pem", &own.cert.pem());
    folder.write("key.pem", &own.signing_key.serialize_pem());
    folder.configure(&origin.url(), "[tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"");
    let mut refused = shell().stderr(Stdio::piped()).spawn().unwrap();
    let status = eventually("a refusal", || refused.try_wait().unwrap());
    let said = String::from_utf8(refused.wait_with_output().unwrap().stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    assert_names(&said, &["a Unix socket was handed over, and [tls]"]);
}
