import asyncio
import os

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

URL = "http://127.0.0.1:8080/mcp"
HEADERS = {"Authorization": f"Bearer {os.environ['PATGATE_TOKEN']}"}
# a server may think for long, and then stream for longer
TIMEOUT = httpx2.Timeout(30, read=300)


async def main() -> None:
    async with httpx2.AsyncClient(headers=HEADERS, timeout=TIMEOUT) as http:
        async with Client(streamable_http_client(URL, http_client=http)) as client:
            for tool in (await client.list_tools()).tools:
                print(tool.name)


asyncio.run(main())
