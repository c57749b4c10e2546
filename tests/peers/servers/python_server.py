"""An MCP server on the Python SDK that refuses a foreign Host (421) and shows the identity it was sent.

usage: python_server.py --port N    (0 picks a free port); Streamable HTTP at /mcp, loopback only
"""

import argparse
import json
import socket

import anyio
import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.transport_security import TransportSecuritySettings

server = MCPServer("peer-python", version="1.0.0", log_level="WARNING")


@server.tool(structured_output=False)
def echo(text: str) -> str:
    """Answers with the text it was given."""
    return text


@server.tool(structured_output=False)
def whoami(ctx: Context) -> str:
    """The X-Auth-* headers of this request as JSON, and whether an Authorization header came too."""
    headers = ctx.headers or {}
    identity: dict[str, str] = {}
    for name, value in headers.items():  # a header sent twice comes twice
        if name.lower().startswith("x-auth-"):
            identity[name.lower()] = ", ".join(filter(None, [identity.get(name.lower()), value]))
    seen = any(name.lower() == "authorization" for name in headers)
    return json.dumps({"headers": identity, "authorization": seen}, sort_keys=True)


@server.tool(structured_output=False)
async def countdown(n: int, delay_ms: int, ctx: Context) -> str:
    """Reports progress n times, with a pause before each."""
    for step in range(1, n + 1):
        await anyio.sleep(delay_ms / 1000)
        await ctx.report_progress(step, n)
    return "done"


def main() -> None:
    flags = argparse.ArgumentParser()
    flags.add_argument("--port", type=int, required=True)
    listener = socket.create_server(("127.0.0.1", flags.parse_args().port))
    host = "127.0.0.1:%d" % listener.getsockname()[1]
    security = TransportSecuritySettings(allowed_hosts=[host], allowed_origins=[])
    app = server.streamable_http_app(transport_security=security)
    print(f"listening {host}", flush=True)  # the socket already queues connections
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


main()
