//! `patgate demo`: an MCP server, a token and the proxy in one process, to see it work in a minute.

mod server;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use clap::Args;
use jiff::Timestamp;

use super::serve::House;
use super::snippet::{Client, Endpoint};
use super::{Exit, diagnostics, print};
use crate::access::{Directory, Generation};
use crate::audit;
use crate::config::{Config, Overrides};
use crate::server::Phase;
use crate::source::Published;
use crate::token::{Minted, Role, Scope, Status, TokenHash, TokenList, TokenRecord, User};

/// What the demonstration can be told.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Where the proxy listens; port 0 lets the system choose
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", env = "PATGATE_LISTEN")]
    listen: String,
    /// What to say on standard error; its own MCP library tells more than most users want to know
    #[arg(long, value_name = "FILTER", default_value = "info,rmcp=warn", env = "PATGATE_LOG_LEVEL")]
    log_level: String,
}

/// How long the demonstration's token lives.
const LIFETIME: Duration = Duration::from_hours(24);

pub(super) fn run(arguments: &Arguments) -> Result<(), Exit> {
    let failed = |error: std::io::Error| Exit::failure(format!("the demonstration's MCP server cannot start: {error}"));
    let listener = std::net::TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let upstream = format!("http://{}", listener.local_addr().map_err(failed)?);

    let overrides = Overrides {
        listen: Some(arguments.listen.clone()),
        upstream: Some(upstream),
        // never read, but there: the list is made below and lives in memory only
        tokens: Some("/dev/null".to_owned()),
        admin: Some("off".to_owned()),
        log_level: Some(arguments.log_level.clone()),
        ..Overrides::default()
    };
    let config = Config::load(&overrides)?;
    diagnostics::start(&config.diagnostics);
    let minted = config.policy.prefix.mint().map_err(|error| Exit::failure(format!("no random numbers: {error}")))?;
    let directory = Directory::new(
        &list(&minted, Timestamp::now() + LIFETIME)?,
        &Arc::new(config.policy.clone()),
        Generation(1),
        "demo",
    );
    let published = Published::fixed(directory);
    let audit = audit::Params { destination: audit::Destination::Stdout, ..config.audit.clone() };
    let house = House::open(&config.server, &config.proxy, &audit, &published)?;

    house.run(|house, _| {
        let over = house.drain.clone();
        // the proxy's streams end first; this server's own end then tells nobody anything
        tokio::spawn(async move {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => server::serve(listener, over.reached(Phase::Over)).await,
                Err(error) => tracing::error!(%error, "the demonstration's MCP server failed"),
            }
        });
        if let Err(exit) = introduce(&format!("http://{}{}", house.server.address(), server::PATH), &minted) {
            tracing::error!("no introduction: {}", exit.message);
        }
        None
    })
}

/// One user, one token, two scopes.
fn list(minted: &Minted, expires_at: Timestamp) -> Result<TokenList, Exit> {
    let scope = |text| Scope::parse(text).map_err(Exit::failure);
    let token = TokenRecord {
        id: minted.id.clone(),
        hash: TokenHash::Sha256(minted.token.digest()),
        prefix: None,
        user: "alice".into(),
        name: Some("demo".into()),
        tools: None,
        scopes: None,
        created_at: Some(Timestamp::now()),
        not_before: None,
        expires_at: Some(expires_at),
        revoked_at: None,
        revoked_reason: None,
        replaced_by: None,
    };
    let user = User {
        id: "alice".into(),
        email: Some("alice@example.com".into()),
        name: Some("Alice Doe".into()),
        org: Some("acme".into()),
        roles: vec!["developer".into()],
        status: Status::Active,
    };
    let role = Role { scopes: vec![scope("mcp:read")?, scope("mcp:write")?] };
    Ok(TokenList { tokens: vec![token], users: Some(vec![user]), roles: Some([("developer".into(), role)].into()) })
}

/// A call that needs no session before it (revision 2026-07-28), so that one line shows everything.
const CALL: &str = r#"-H 'MCP-Protocol-Version: 2026-07-28' -H 'Mcp-Method: tools/call' -H 'Mcp-Name: whoami' \
  -d '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"whoami","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}'"#;

/// The line for curl, with that call in place of a session's first one.
fn whoami(url: &Endpoint) -> String {
    let curl = Client::Curl.snippet(url);
    let before = curl.split_once("-d ").map_or("", |(before, _)| before);
    format!("{before}{CALL}\n")
}

fn introduce(address: &str, minted: &Minted) -> Result<(), Exit> {
    let url = &Endpoint::parse(address).map_err(Exit::failure)?;
    let head = Style::new().bold().fg_color(Some(AnsiColor::Green.into()));
    let code = Style::new().fg_color(Some(AnsiColor::Cyan.into()));
    let dim = Style::new().dimmed();
    let token = minted.token.expose();
    let (curl, claude) = (whoami(url), Client::ClaudeCode.snippet(url));
    let (curl, claude) = (curl.trim_end(), claude.trim_end());
    print::answer(format_args!(
        "{head}An MCP server without a lock, and patgate in front of it.{head:#}

  address  {code}{address}{code:#}
  token    {code}{token}{code:#}
  {dim}held by alice, good for 24 hours or until this process ends{dim:#}

{head}Ask the server who is calling:{head:#}

{code}export PATGATE_TOKEN='{token}'
{curl}{code:#}

{head}Use it from Claude Code, started where PATGATE_TOKEN is set:{head:#}

{code}{claude}{code:#}

{head}Or from another client, such as Claude Desktop, Cursor, VS Code, Windsurf or a program of yours:{head:#}

{code}patgate snippet --client cursor --url {address}{code:#}

{dim}Try it without the token, too. Ctrl-C ends it. The audit log follows, one record for each request:{dim:#}

"
    ))
}
