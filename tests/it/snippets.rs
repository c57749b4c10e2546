//! `patgate snippet`: what it prints connects the clients that can be installed here, and has the keys that
//! the others read.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::demo::Demo;
use crate::harness::{Folder, eventually, patgate};
use crate::installed::{node, peers, tools};

const ADDRESS: &str = "https://mcp.example.com/mcp";

/// Every client that the help names.
const CLIENTS: [&str; 9] =
    ["claude-code", "claude-desktop", "cursor", "vscode", "windsurf", "inspector", "curl", "python", "typescript"];

/// The tools of the demonstration, as clients list them.
const TOOLS: [&str; 3] = ["countdown", "echo", "whoami"];

fn snippet(client: &str, url: &str) -> String {
    let output = patgate().args(["snippet", "--client", client, "--url", url]).output().unwrap();
    assert!(output.status.success(), "{client}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(!output.stderr.is_empty(), "{client}: where does it belong?");
    String::from_utf8(output.stdout).unwrap()
}

/// A client with the token in its environment and a home of its own.
fn with_token(program: impl AsRef<Path>, token: &str, home: &Folder) -> Command {
    let mut command = Command::new(program.as_ref());
    let path = format!("{}:{}", node().parent().unwrap().display(), std::env::var("PATH").unwrap());
    command.env_clear().env("PATH", path).env("HOME", home.path("")).env("PATGATE_TOKEN", token);
    command.current_dir(home.path("")).stdin(Stdio::null());
    command
}

fn printed(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn assert_lists_the_tools(text: &str) {
    for tool in TOOLS {
        assert!(text.contains(tool), "no {tool} in {text}");
    }
}

#[test]
fn there_is_one_for_every_client() {
    let help = String::from_utf8(patgate().args(["snippet", "--help"]).output().unwrap().stdout).unwrap();
    for client in CLIENTS {
        assert!(help.contains(client), "{help}");
        assert!(snippet(client, ADDRESS).contains(ADDRESS));
    }
    let possible = help.split("possible values: ").nth(1).unwrap().split(']').next().unwrap();
    assert_eq!(possible.split(',').count(), CLIENTS.len(), "{possible}");
}

#[test]
fn editors_get_the_keys_that_they_read() {
    let read = |client: &str| -> Value { serde_json::from_str(&snippet(client, ADDRESS)).unwrap() };
    let authorization = |value: &str| json!({ "Authorization": value });
    assert_eq!(
        read("cursor")["mcpServers"]["patgate"],
        json!({ "url": ADDRESS, "headers": authorization("Bearer ${env:PATGATE_TOKEN}") })
    );
    assert_eq!(
        read("windsurf")["mcpServers"]["patgate"],
        json!({ "serverUrl": ADDRESS, "headers": authorization("Bearer ${env:PATGATE_TOKEN}") })
    );
    let vscode = read("vscode");
    assert_eq!(
        vscode["servers"]["patgate"],
        json!({ "type": "http", "url": ADDRESS, "headers": authorization("Bearer ${input:patgate-token}") })
    );
    let input = &vscode["inputs"][0];
    assert_eq!(
        (&input["type"], &input["id"], &input["password"]),
        (&json!("promptString"), &json!("patgate-token"), &json!(true))
    );
}

#[test]
fn curl_opens_a_session() {
    let (demo, home) = (Demo::start(), Folder::new());
    let script = snippet("curl", &demo.url());
    let output = with_token("sh", &demo.token(), &home).args(["-c", &script]).output().unwrap();
    let answer = printed(&output);
    assert!(answer.contains("\"protocolVersion\":\"2025-11-25\""), "{answer}");
}

#[test]
fn the_python_and_the_typescript_program_list_the_tools() {
    let (demo, home) = (Demo::start(), Folder::new());
    symlink(peers().join("node_modules"), home.path("node_modules")).unwrap();
    for (client, file, interpreter) in
        [("python", "client.py", peers().join("venv/bin/python")), ("typescript", "client.mts", node())]
    {
        home.write(file, &snippet(client, &demo.url()));
        let output = with_token(interpreter, &demo.token(), &home).arg(file).output().unwrap();
        let mut listed: Vec<String> = printed(&output).lines().map(str::to_owned).collect();
        listed.sort();
        assert_eq!(listed, TOOLS, "{client}");
    }
}

#[test]
fn the_inspector_lists_the_tools() {
    let (demo, home) = (Demo::start(), Folder::new());
    let inspector = tools().join("node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js");
    let called = format!("node '{}'", inspector.display());
    let script = snippet("inspector", &demo.url());
    let local = script.replace("npx -y @modelcontextprotocol/inspector@2.12.0", &called);
    assert!(local.starts_with("node "), "{script}");
    let output = with_token("bash", &demo.token(), &home).args(["-c", &local]).output().unwrap();
    assert_lists_the_tools(&printed(&output));
}

/// Claude Desktop starts the bridge as the snippet says and speaks to its standard input and output.
#[test]
fn the_bridge_for_claude_desktop_lists_the_tools() {
    let (demo, home) = (Demo::start(), Folder::new());
    let config: Value = serde_json::from_str(&snippet("claude-desktop", &demo.url())).unwrap();
    let server = &config["mcpServers"]["patgate"];
    let arguments: Vec<&str> =
        server["args"].as_array().unwrap().iter().map(|argument| argument.as_str().unwrap()).collect();
    assert_eq!((&server["command"], &arguments[..2]), (&json!("npx"), &["-y", "mcp-remote@0.15.1"][..]));

    let bridge = tools().join("node_modules/mcp-remote/dist/proxy.js");
    let authorization = server["env"]["PATGATE_AUTHORIZATION"].as_str().unwrap().replace("<token>", &demo.token());
    let mut command = with_token(node(), "", &home);
    command.arg(bridge).args(&arguments[2..]).env("PATGATE_AUTHORIZATION", authorization);
    let answers = home.path("answers");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(fs::File::create(&answers).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut say = |message: Value| writeln!(child.stdin.as_mut().unwrap(), "{message}").unwrap();
    let hello =
        json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
    say(json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello }));
    let told = |id: &str| {
        eventually(id, || {
            fs::read_to_string(&answers).unwrap().lines().find(|line| line.contains(id)).map(str::to_owned)
        })
    };
    told("\"id\":1");
    say(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
    say(json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/list" }));
    let listed = told("\"id\":2");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_lists_the_tools(&listed);
}

#[test]
fn claude_code_connects() {
    let (demo, home) = (Demo::start(), Folder::new());
    let claude = tools().join("node_modules/.bin/claude");
    let script = format!(
        "claude() {{ '{}' \"$@\"; }}\n{}claude mcp list\n",
        claude.display(),
        snippet("claude-code", &demo.url())
    );
    let mut shell = with_token("bash", &demo.token(), &home);
    shell.env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1").env("DISABLE_AUTOUPDATER", "1");
    let text = printed(&shell.args(["-euc", &script]).output().unwrap());
    assert!(text.lines().any(|line| line.starts_with("patgate: ") && line.ends_with("Connected")), "{text}");
    let kept = fs::read_to_string(home.path(".claude.json")).unwrap();
    assert!(kept.contains("Bearer ${PATGATE_TOKEN}") && !kept.contains(&demo.token()), "the token was written down");
}
