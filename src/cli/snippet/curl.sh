printf 'Authorization: Bearer %s' "$PATGATE_TOKEN" |
  curl -s 'http://127.0.0.1:8080/mcp' -H @- \
  -H 'Content-Type: application/json' -H 'Accept: application/json, text/event-stream' \
  -d '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"curl","version":"1"}}}'
