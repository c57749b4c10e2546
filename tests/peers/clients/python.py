"""A client on the Python SDK: Streamable HTTP, or HTTP+SSE with --sse. Flags and output as the others."""

import argparse
import json
import os
import sys
import time
from typing import Any

import anyio
from mcp import Client, MCPError
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

GIVE_UP_AFTER_S = 60


def read_flags() -> argparse.Namespace:
    flags = argparse.ArgumentParser()
    flags.add_argument("url")
    flags.add_argument("--sse", action="store_true")
    flags.add_argument("--revision", default="2025-11-25")
    flags.add_argument("--tool", default="echo")
    flags.add_argument("--args", type=json.loads, default={"message": "hello"})
    flags.add_argument("--progress-tool", default="trigger-long-running-operation")
    flags.add_argument("--progress-args", type=json.loads, default={"duration": 1, "steps": 5})
    return flags.parse_args()


def whole(value: float | None) -> float | int | None:
    """The SDK reads every number as a float; 1.0 is printed as 1, as the other clients print it."""
    return int(value) if value is not None and value.is_integer() else value


def plain(model: Any) -> Any:
    return model and model.model_dump(mode="json", by_alias=True, exclude_none=True)


class Exchange:
    def __init__(self, flags: argparse.Namespace) -> None:
        self.flags = flags
        self.last_status: int | None = None

    def http_client(self, headers: Any = None, **options: Any) -> Any:
        token = os.environ.get("TOKEN")
        authorization = {"Authorization": f"Bearer {token}"} if token else {}
        client = create_mcp_http_client(headers={**(headers or {}), **authorization}, **options)
        client.event_hooks["response"].append(self.note_status)
        return client

    async def note_status(self, response: Any) -> None:
        self.last_status = response.status_code

    async def run(self) -> dict[str, Any]:
        flags = self.flags
        # The SDK's own `auto` mode asks server/discover first; a pinned revision would skip that.
        mode = "legacy" if flags.revision < "2026" else "auto"
        if flags.sse:
            return await self.talk(sse_client(flags.url, httpx_client_factory=self.http_client), mode)
        async with self.http_client() as http_client:
            return await self.talk(streamable_http_client(flags.url, http_client=http_client), mode)

    async def talk(self, transport: Any, mode: str) -> dict[str, Any]:
        flags = self.flags
        progress: list[dict[str, Any]] = []
        async with Client(transport, mode=mode) as client:
            if flags.revision != "auto" and client.protocol_version != flags.revision:
                raise RuntimeError(f"wanted revision {flags.revision}, server speaks {client.protocol_version}")
            tools = await client.list_tools()
            call = await client.call_tool(flags.tool, flags.args)

            started = time.monotonic()

            def since() -> int:
                return round((time.monotonic() - started) * 1000)

            async def on_progress(value: float, total: float | None, message: str | None) -> None:
                progress.append({"progress": whole(value), "total": whole(total), "at_ms": since()})

            await client.call_tool(flags.progress_tool, flags.progress_args, progress_callback=on_progress)
            return {
                "server": plain(client.server_info),
                "protocolVersion": client.protocol_version,
                "tools": [tool.name for tool in tools.tools],
                "call": plain(call),
                "progress": progress,
                "done_ms": since(),
            }


def first_cause(error: BaseException) -> BaseException:
    """Task groups wrap what went wrong in exception groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def main() -> int:
    exchange = Exchange(read_flags())

    async def bounded() -> dict[str, Any]:
        with anyio.fail_after(GIVE_UP_AFTER_S):
            return await exchange.run()

    try:
        print(json.dumps(anyio.run(bounded)))
        return 0
    except Exception as error:
        cause = first_cause(error)
        report: dict[str, Any] = {"message": str(cause) or type(cause).__name__}
        if isinstance(cause, MCPError):
            report["code"] = cause.code
        if exchange.last_status is not None and exchange.last_status >= 400:
            report["status"] = exchange.last_status
        print(json.dumps({"error": report}))
        return 1


sys.exit(main())
