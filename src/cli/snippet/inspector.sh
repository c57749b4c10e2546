npx -y @modelcontextprotocol/inspector@2.12.0 --cli --config <(printf '{ "mcpServers": { "patgate": {
  "type": "streamable-http",
  "url": "http://127.0.0.1:8080/mcp",
  "headers": { "Authorization": "Bearer %s" } } } }' "$PATGATE_TOKEN") --server patgate --method tools/list
