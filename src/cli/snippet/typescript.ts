import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

const url = new URL('http://127.0.0.1:8080/mcp');
const headers = { Authorization: `Bearer ${process.env.PATGATE_TOKEN}` };

const client = new Client({ name: 'example', version: '1.0.0' });
await client.connect(new StreamableHTTPClientTransport(url, { requestInit: { headers } }));
for (const tool of (await client.listTools()).tools) {
  console.log(tool.name);
}
await client.close();
