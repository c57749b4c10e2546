//! What the tests need beside this program: released MCP peers, and tools that check files. The first test
//! that asks installs them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The folder of the MCP servers, clients and the conformance suite: `tests/peers/README.md`.
pub fn peers() -> &'static Path {
    static PEERS: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    found(PEERS.get_or_init(|| install("tests/peers/setup.sh", "target/peers")))
}

/// The folder of the clients for snippets, of what checks deployment files and TLS, and of log stores:
/// `tests/tools/setup.sh`.
pub fn tools() -> &'static Path {
    static TOOLS: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    found(TOOLS.get_or_init(|| install("tests/tools/setup.sh", "target/deployment")))
}

/// A program of the tools.
pub fn tool(name: &str) -> Command {
    let places = [tools().join("venv/bin").join(name), tools().join("bin").join(name)];
    Command::new(places.iter().find(|place| place.exists()).unwrap_or_else(|| panic!("{name} was not installed")))
}

/// What a checker prints; it must be content.
pub fn content(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}\n{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// The same of a checker that reads standard input.
pub fn content_with(command: &mut Command, input: &str) -> String {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(input.as_bytes()).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    content(command.stdin(Stdio::from(file)))
}

/// The Node.js that the peers and the clients are meant for.
pub fn node() -> PathBuf {
    peers().join("node_modules/.bin/node")
}

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn install(script: &str, folder: &str) -> Result<PathBuf, String> {
    let setup = Command::new("bash").arg(repository().join(script)).output();
    let setup = setup.map_err(|error| format!("bash: {error}"))?;
    if !setup.status.success() {
        return Err(String::from_utf8_lossy(&setup.stderr).into_owned());
    }
    Ok(repository().join(folder))
}

fn found(installed: &'static Result<PathBuf, String>) -> &'static Path {
    installed.as_deref().unwrap_or_else(|why| panic!("what the tests need cannot be installed: {why}"))
}
