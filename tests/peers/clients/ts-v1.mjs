// A client on version 1 of the TypeScript SDK: Streamable HTTP, or HTTP+SSE with --sse.
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { progressRecorder, run } from './common.mjs';

await run(async ({ url, sse, tool, progressTool, requestInit }) => {
  const Transport = sse ? SSEClientTransport : StreamableHTTPClientTransport;
  const transport = new Transport(url, { requestInit });
  // The transport is told the negotiated revision, and nothing else of the SDK exposes it.
  let protocolVersion;
  const setProtocolVersion = transport.setProtocolVersion.bind(transport);
  transport.setProtocolVersion = (version) => setProtocolVersion((protocolVersion = version));

  const client = new Client({ name: 'peer-ts-v1', version: '1.0.0' });
  await client.connect(transport);
  const { tools } = await client.listTools();
  const call = await client.callTool(tool);
  const { progress, onprogress, since } = progressRecorder();
  await client.callTool(progressTool, undefined, { onprogress });
  const done_ms = since();
  const server = client.getServerVersion();
  await transport.terminateSession?.();
  await client.close();
  return { server, protocolVersion, tools: tools.map(({ name }) => name), call, progress, done_ms };
});
