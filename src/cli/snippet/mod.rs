//! `patgate snippet`: what a client needs in order to connect, ready to be pasted.
//!
//! Each snippet is a file of this folder, written for the default address, so that it can be read and run
//! as it stands. None of them has a token in it, or puts one on a command line: where the client can, it
//! takes the token from the variable `PATGATE_TOKEN`.

use clap::{Args, ValueEnum};
use http::Uri;

use super::{Exit, print};
use crate::token::{HOLDS_A_TOKEN, Prefix};

/// What can be said about a snippet.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The client to be connected
    #[arg(long, value_name = "CLIENT")]
    client: Client,
    /// The address of the MCP endpoint behind the proxy
    #[arg(long, value_name = "URL", default_value = Endpoint::DEFAULT, value_parser = Endpoint::parse)]
    url: Endpoint,
}

/// The clients that there is a snippet for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Client {
    ClaudeCode,
    ClaudeDesktop,
    Cursor,
    Vscode,
    Windsurf,
    Inspector,
    Curl,
    Python,
    Typescript,
}

/// The address that a client is to connect to, of characters that mean nothing to a shell between quotes,
/// to JSON or to a programming language.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    text: String,
    /// Whether it is neither on this machine nor protected by TLS.
    exposed: bool,
}

impl Endpoint {
    /// The one that the files of this folder are written for.
    const DEFAULT: &str = "http://127.0.0.1:8080/mcp";

    /// Reads an address.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = "write an address such as https://mcp.example.com/mcp";
        if Prefix::default().is_in(text) {
            return Err(HOLDS_A_TOKEN.to_owned());
        }
        let uri: Uri = text.parse().map_err(|error| format!("{error}: {wrong}"))?;
        let (Some(scheme @ ("http" | "https")), Some(host)) = (uri.scheme_str(), uri.host()) else {
            return Err(wrong.to_owned());
        };
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(format!("no user and no password belongs there: {wrong}"));
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?=&%[]".contains(&byte);
        if let Some(odd) = text.chars().find(|c| !u8::try_from(*c).is_ok_and(plain)) {
            return Err(format!("`{odd}` must be percent-encoded here"));
        }
        let local = host == "localhost" || host == "[::1]" || host.starts_with("127.");
        Ok(Self { text: text.to_owned(), exposed: scheme == "http" && !local })
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Exit> {
    let Arguments { client, url } = arguments;
    print::remark(client.remark());
    if url.exposed {
        print::remark("warning: without https, everybody on the way can read the token");
    }
    print::answer(client.snippet(url))
}

impl Client {
    /// The snippet alone, with a line break at its end.
    pub(super) fn snippet(self, url: &Endpoint) -> String {
        let text = self.file().replace(Endpoint::DEFAULT, &url.text);
        if self == Self::ClaudeDesktop && url.exposed {
            // the bridge refuses such an address otherwise
            return text.replace("\"--header\",", "\"--allow-http\",\n        \"--header\",");
        }
        text
    }

    fn file(self) -> &'static str {
        match self {
            Self::ClaudeCode => include_str!("claude-code.sh"),
            Self::ClaudeDesktop => include_str!("claude-desktop.json"),
            Self::Cursor => include_str!("cursor.json"),
            Self::Vscode => include_str!("vscode.json"),
            Self::Windsurf => include_str!("windsurf.json"),
            Self::Inspector => include_str!("inspector.sh"),
            Self::Curl => include_str!("curl.sh"),
            Self::Python => include_str!("python.py"),
            Self::Typescript => include_str!("typescript.ts"),
        }
    }

    /// Where the snippet belongs, and where the client takes the token from.
    fn remark(self) -> &'static str {
        match self {
            Self::ClaudeCode => {
                "Run this in the folder of your project; the object in it can as well stand in .mcp.json under \
                 \"mcpServers\". The token is taken from PATGATE_TOKEN each time Claude Code starts."
            }
            Self::ClaudeDesktop => {
                "For claude_desktop_config.json. Claude Desktop sends no headers of its own, so the npm package \
                 mcp-remote stands between (Node.js 18 or later). Put the token in place of <token>: nothing expands \
                 variables there, so keep the file to yourself."
            }
            Self::Cursor => {
                "For ~/.cursor/mcp.json, or .cursor/mcp.json in a project. The token is taken from PATGATE_TOKEN, \
                 which must be set where Cursor is started."
            }
            Self::Vscode => {
                "For .vscode/mcp.json, or the mcp.json of your profile. VS Code asks for the token once and keeps it \
                 in its secret storage."
            }
            Self::Windsurf => {
                "For ~/.codeium/windsurf/mcp_config.json. The token is taken from PATGATE_TOKEN, which must be set \
                 where Windsurf is started."
            }
            Self::Inspector => {
                "For bash or zsh, with Node.js 22 and the token in PATGATE_TOKEN. Leave out --cli and --method to see \
                 the page instead."
            }
            Self::Curl => "For any shell, with the token in PATGATE_TOKEN. It never stands on curl's command line.",
            Self::Python => "With the packages mcp 2 and httpx2, and the token in PATGATE_TOKEN.",
            Self::Typescript => "With the package @modelcontextprotocol/sdk 1, and the token in PATGATE_TOKEN.",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_snippet_names_its_address_once_and_no_other() {
        let url = Endpoint::parse("https://mcp.example.com/team/mcp").unwrap();
        for client in Client::value_variants() {
            assert_eq!(client.file().matches(Endpoint::DEFAULT).count(), 1, "{client:?}");
            let snippet = client.snippet(&url);
            assert!(snippet.contains("https://mcp.example.com/team/mcp"), "{snippet}");
            assert!(!snippet.contains("127.0.0.1") && snippet.ends_with('\n'), "{snippet}");
        }
    }

    #[test]
    fn addresses_that_a_shell_or_a_parser_would_read_are_refused() {
        for wrong in [
            "",
            "/mcp",
            "localhost:8080",
            "ftp://localhost/mcp",
            "http://alice:secret@localhost/mcp",
            "http://localhost/mcp?a='b",
            "http://localhost/mcp?a=$(id)",
            "http://localhost/a\"b",
            "http://localhost/{x}",
            "http://localhost/é",
        ] {
            assert!(Endpoint::parse(wrong).is_err(), "{wrong}");
        }
        for right in ["http://localhost/", "https://[::1]:8443/mcp?team=a&b=%20", "http://10.0.0.7:8080/mcp"] {
            assert!(Endpoint::parse(right).is_ok(), "{right}");
        }
    }

    #[test]
    fn the_bridge_is_told_where_plain_http_leaves_this_machine() {
        let told =
            |url: &str| Client::ClaudeDesktop.snippet(&Endpoint::parse(url).unwrap()).contains("\"--allow-http\",\n");
        assert!(told("http://10.0.0.7:8080/mcp"));
        assert!(!told("http://localhost:8080/mcp") && !told("http://127.0.0.1/mcp") && !told("https://10.0.0.7/mcp"));
    }
}
