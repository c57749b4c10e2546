// A client on version 2 of the TypeScript SDK: Streamable HTTP, or HTTP+SSE with --sse.
// --revision 2026-07-28 accepts no other revision; `auto` lets the SDK probe and fall back.
import { Client, SSEClientTransport, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { progressRecorder, run } from './common.mjs';

function negotiation(revision) {
  if (revision === 'auto') return 'auto';
  return revision >= '2026-07-28' ? { pin: revision } : 'legacy';
}

await run(async ({ url, sse, revision, tool, progressTool, requestInit }) => {
  const Transport = sse ? SSEClientTransport : StreamableHTTPClientTransport;
  const transport = new Transport(url, { requestInit });
  const client = new Client(
    { name: 'peer-ts-v2', version: '1.0.0' },
    { versionNegotiation: { mode: negotiation(revision) } },
  );
  await client.connect(transport);
  const { tools } = await client.listTools();
  const call = await client.callTool(tool);
  const { progress, onprogress, since } = progressRecorder();
  await client.callTool(progressTool, { onprogress });
  const done_ms = since();
  const server = client.getServerVersion();
  const protocolVersion = client.getNegotiatedProtocolVersion();
  await transport.terminateSession?.();
  await client.close();
  return { server, protocolVersion, tools: tools.map(({ name }) => name), call, progress, done_ms };
});
