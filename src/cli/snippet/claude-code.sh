claude mcp add-json patgate '{
  "type": "http",
  "url": "http://127.0.0.1:8080/mcp",
  "headers": { "Authorization": "Bearer ${PATGATE_TOKEN}" }
}'
