//! `patgate demo`: what it prints is true, can be pasted, and is coloured only where somebody reads it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{ask, eventually, patgate};

/// The last words of its introduction; audit records follow.
const LAST_WORDS: &str = "The audit log follows";

/// Runs a command on a terminal of its own and ends with the command's exit code.
const ON_TERMINAL: &str = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";

/// Does what the printed line asks of curl, where there is none.
const CURL: &str = r#"
command -v curl > /dev/null || curl() { python3 -c '
import sys, urllib.error, urllib.request as http
_, _, url, *flags = sys.argv
pairs = list(zip(flags[::2], flags[1::2]))
fields = [sys.stdin.read() if value == "@-" else value for flag, value in pairs if flag == "-H"]
headers = dict(field.split(": ", 1) for field in fields)
try:
    answer = http.urlopen(http.Request(url, dict(pairs)["-d"].encode(), headers))
except urllib.error.HTTPError as error:
    answer = error
print(answer.read().decode())
' "$@"; }
"#;

/// A running demonstration. Dropping it kills it.
pub struct Demo {
    child: Child,
    printed: Arc<Mutex<String>>,
}

impl Demo {
    /// Starts it with its output in a pipe and waits until it has introduced itself.
    pub fn start() -> Self {
        Self::spawn(patgate())
    }

    fn on_terminal() -> Self {
        let mut command = Command::new("python3");
        command.args(["-c", ON_TERMINAL]).arg(patgate().get_program());
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Self {
        for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "PATGATE_LISTEN", "PATGATE_LOG_LEVEL"] {
            command.env_remove(name);
        }
        command.env("TERM", "xterm").args(["demo", "--listen", "127.0.0.1:0"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let printed = Arc::<Mutex<String>>::default();
        let filling = Arc::clone(&printed);
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let mut printed = filling.lock().unwrap();
                printed.push_str(&line);
                printed.push('\n');
            }
        });
        let demo = Self { child, printed };
        demo.await_printed(LAST_WORDS);
        demo
    }

    fn printed(&self) -> String {
        self.printed.lock().unwrap().clone()
    }

    fn await_printed(&self, text: &str) {
        eventually(text, || self.printed().contains(text).then_some(()));
    }

    /// What stands after a word at the beginning of a line.
    fn fact(&self, name: &str) -> String {
        let printed = self.printed();
        let value = printed.lines().find_map(|line| line.trim_start().strip_prefix(name));
        value.unwrap_or_else(|| panic!("no {name} in {printed}")).trim().to_owned()
    }

    /// The address of the MCP endpoint behind the proxy.
    pub fn url(&self) -> String {
        self.fact("address ")
    }

    /// Alice's token.
    pub fn token(&self) -> String {
        self.fact("token ")
    }

    /// The printed command that begins with this word, with all its lines.
    fn command(&self, word: &str) -> String {
        let printed = self.printed();
        let paragraph = printed.split("\n\n").find(|paragraph| paragraph.starts_with(word));
        paragraph.unwrap_or_else(|| panic!("no {word} in {printed}")).to_owned()
    }

    fn wait(&mut self) -> Option<i32> {
        eventually("the end of the demonstration", || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a command line pasted into a shell prints.
fn paste(line: &str) -> Value {
    let output = Command::new("bash").args(["-c", &format!("{CURL}\n{line}")]).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout:?}, {stderr:?}, from {line}"))
}

#[test]
fn what_it_prints_can_be_pasted() {
    let demo = Demo::start();
    let (url, token) = (demo.url(), demo.token());
    let curl = demo.command("export PATGATE_TOKEN=");
    for line in [&curl, &demo.command("claude ")] {
        assert!(line.contains(&url), "{line}");
    }
    assert_eq!(demo.printed().matches(&token).count(), 2, "the token is told, and exported, and nowhere else");

    let answer = paste(&curl);
    let caller = &answer["result"]["structuredContent"];
    assert_eq!((&caller["user"], &caller["authorization_seen"]), (&"alice".into(), &false.into()), "{answer}");

    let answer = paste(&curl.replace(&token, "mcp_pat_wrong"));
    assert!(answer["error"]["message"].as_str().unwrap().contains("the token is not valid"), "{answer}");

    demo.await_printed("\"outcome\":\"allowed\"");
    demo.await_printed("\"outcome\":\"denied\"");
    assert!(!demo.printed().contains('\x1b'), "escapes in a pipe: {:?}", demo.printed());
}

#[test]
fn without_a_good_token_nobody_comes_in() {
    let demo = Demo::start();
    let url = demo.url();
    let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let knock =
        |credential: &str| ask(address, &format!("GET /{path} HTTP/1.1\r\nHost: {address}\r\n{credential}\r\n")).status;
    assert_eq!(knock(""), 401);
    assert_eq!(knock("Authorization: Bearer mcp_pat_wrong\r\n"), 401);
    // this one comes in, to a server that wants a POST
    assert_ne!(knock(&format!("Authorization: Bearer {}\r\n", demo.token())), 401);
}

#[test]
fn an_interrupt_ends_it_well() {
    let mut demo = Demo::start();
    paste(&demo.command("export PATGATE_TOKEN="));
    let begun = Instant::now();
    let kill = format!("kill -INT {}", demo.child.id());
    assert!(Command::new("bash").args(["-c", &kill]).status().unwrap().success());
    assert_eq!(demo.wait(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
}

#[test]
fn on_a_terminal_it_is_coloured_and_control_c_ends_it() {
    let mut demo = Demo::on_terminal();
    let printed = demo.printed();
    for text in ["An MCP server without a lock", "Ask the server who is calling", "Use it from Claude Code"] {
        let headline = printed.lines().find(|line| line.contains(text)).unwrap();
        assert!(headline.starts_with("\x1b[") && headline.ends_with("\x1b[0m"), "no colour: {headline:?}");
    }
    demo.child.stdin.as_mut().unwrap().write_all(b"\x03").unwrap();
    assert_eq!(demo.wait(), Some(0));
}
