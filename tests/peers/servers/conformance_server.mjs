// The MCP server that the official conformance suite is run against: every tool, resource and
// prompt that its server scenarios ask for, on the published TypeScript SDK, at /mcp on loopback.
// One process serves 2025-11-25 (sessions, SSE with resumption) and 2026-07-28 (stateless).
// usage: PORT=0 conformance_server.mjs
import { randomUUID } from 'node:crypto';
import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  NodeStreamableHTTPServerTransport,
  localhostHostValidation,
  localhostOriginValidation,
  toNodeHandler,
  toWebRequest,
} from '@modelcontextprotocol/node';
import {
  McpServer,
  ResourceTemplate,
  acceptedContent,
  completable,
  createMcpHandler,
  createRequestStateCodec,
  fromJsonSchema,
  inputRequired,
  inputResponse,
  isInitializeRequest,
  isLegacyRequest,
} from '@modelcontextprotocol/server';
import { z } from 'zod';

const PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==';
const WAV = 'UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA=';
const RETRY_MS = 200;
const STEP_MS = 50;

// A test server: a fixed key keeps its answers the same from run to run.
const requestState = createRequestStateCodec({ key: 'conformance-server-request-state-key' });

const text = (value) => ({ type: 'text', text: value });
const image = { type: 'image', data: PNG, mimeType: 'image/png' };
const content = (...blocks) => ({ content: blocks });
const embedded = (uri, mimeType, value) => ({ type: 'resource', resource: { uri, mimeType, text: value } });
const objectSchema = (properties, required = []) => ({ type: 'object', properties, required });
const string = (description) => ({ type: 'string', description });

function buildServer(changed) {
  const server = new McpServer(
    { name: 'conformance-server', version: '1.0.0' },
    {
      capabilities: {
        tools: { listChanged: true },
        prompts: { listChanged: true },
        resources: { listChanged: true, subscribe: true },
        logging: {},
        completions: {},
      },
      requestState: { verify: requestState.verify },
    },
  );
  const tool = (name, description, handler, schema = objectSchema({})) =>
    server.registerTool(name, { description, inputSchema: fromJsonSchema(schema) }, handler);

  addContentTools(tool);
  addStreamingTools(tool, changed);
  addInputTools(tool);
  addSchemaTools(tool);
  addResources(server);
  addPrompts(server);
  return server;
}

function addContentTools(tool) {
  tool('test_simple_text', 'Answers with text', () =>
    content(text('This is a simple text response for testing.')));
  tool('test_image_content', 'Answers with an image', () => content(image));
  tool('test_audio_content', 'Answers with audio', () =>
    content({ type: 'audio', data: WAV, mimeType: 'audio/wav' }));
  tool('test_embedded_resource', 'Answers with an embedded resource', () =>
    content(embedded('test://embedded-resource', 'text/plain', 'This is an embedded resource content.')));
  tool('test_multiple_content_types', 'Answers with text, an image and a resource', () =>
    content(
      text('Multiple content types test:'),
      image,
      embedded('test://mixed-content-resource', 'application/json', JSON.stringify({ test: 'data', value: 123 })),
    ));
  tool('test_error_handling', 'Always fails', () => {
    throw new Error('This tool intentionally returns an error for testing');
  });
}

function addStreamingTools(tool, changed) {
  const logThreeTimes = async (_args, ctx) => {
    await ctx.mcpReq.log('info', 'Tool execution started');
    await sleep(STEP_MS);
    await ctx.mcpReq.log('info', 'Tool processing data');
    await sleep(STEP_MS);
    await ctx.mcpReq.log('info', 'Tool execution completed');
    return content(text('Tool with logging executed successfully'));
  };
  tool('test_tool_with_logging', 'Sends three log messages', logThreeTimes);
  tool('test_logging_tool', 'Sends three log messages', logThreeTimes);

  tool('test_tool_with_progress', 'Reports progress three times', async (_args, ctx) => {
    const progressToken = ctx.mcpReq._meta?.progressToken;
    for (const progress of [0, 50, 100]) {
      if (progress > 0) await sleep(STEP_MS);
      if (progressToken === undefined) continue;
      await ctx.mcpReq.notify({ method: 'notifications/progress', params: { progressToken, progress, total: 100 } });
    }
    return content(text('Tool with progress executed successfully'));
  });

  tool('test_reconnection', 'Closes its SSE stream; the answer waits for the reconnection', async (_args, ctx) => {
    ctx.http?.closeSSE?.();
    await sleep(RETRY_MS / 2);
    return content(text('Reconnection test completed successfully'));
  });

  tool('test_trigger_tool_change', 'Announces a changed tool list', () => {
    changed.tools();
    return content(text('tool list changed'));
  });
  tool('test_trigger_prompt_change', 'Announces a changed prompt list', () => {
    changed.prompts();
    return content(text('prompt list changed'));
  });
}

// Tools that need something from the client. On 2026-07-28 the SDK answers `input_required` and
// the client calls again; on 2025-11-25 the SDK turns the same return value into a request.
function addInputTools(tool) {
  const elicit = (message, requestedSchema) => inputRequired.elicit({ message, requestedSchema });
  const sample = (prompt, maxTokens) =>
    inputRequired.createMessage({ messages: [{ role: 'user', content: text(prompt) }], maxTokens });
  const ask = (inputRequests, state) => inputRequired({ inputRequests, requestState: state });
  const answer = (ctx, key) => inputResponse(ctx.mcpReq.inputResponses, key);
  const accepted = (ctx, key, schema) => acceptedContent(ctx.mcpReq.inputResponses, key, schema);

  const elicitationTool = (name, description, message, properties) =>
    tool(name, description, (_args, ctx) => {
      const response = answer(ctx, 'form');
      if (response.kind !== 'elicit') return ask({ form: elicit(message, objectSchema(properties)) });
      return content(
        text(`Elicitation completed: action=${response.action}, content=${JSON.stringify(response.content ?? {})}`));
    });

  tool('test_sampling', 'Asks the client to sample', ({ prompt }, ctx) => {
    const response = answer(ctx, 'sample');
    if (response.kind !== 'sampling') return ask({ sample: sample(prompt, 100) });
    return content(text(`LLM response: ${response.result.content.text}`));
  }, objectSchema({ prompt: string('The prompt to send to the LLM') }, ['prompt']));

  tool('test_missing_capability', 'Needs the sampling capability', (_args, ctx) =>
    answer(ctx, 'sample').kind === 'sampling' ? content(text('sampled')) : ask({ sample: sample('Hello', 10) }));

  tool('test_elicitation', 'Asks the user', ({ message }, ctx) => {
    const response = answer(ctx, 'user');
    if (response.kind !== 'elicit') {
      return ask({ user: elicit(message, objectSchema({ response: string("User's response") }, ['response'])) });
    }
    return content(
      text(`User response: action=${response.action}, content=${JSON.stringify(response.content ?? {})}`));
  }, objectSchema({ message: string('The message to show the user') }, ['message']));

  elicitationTool('test_streaming_elicitation', 'Asks the user', 'Please confirm', { ok: { type: 'boolean' } });

  elicitationTool('test_elicitation_sep1034_defaults', 'Asks with default values', 'Please review the defaults', {
    name: { type: 'string', description: 'User name', default: 'John Doe' },
    age: { type: 'integer', description: 'User age', default: 30 },
    score: { type: 'number', description: 'User score', default: 95.5 },
    status: { type: 'string', enum: ['active', 'inactive', 'pending'], default: 'active' },
    verified: { type: 'boolean', description: 'Verification status', default: true },
  });

  const titled = (titles) => titles.map((title, index) => ({ const: `value${index + 1}`, title }));
  const options = ['option1', 'option2', 'option3'];
  elicitationTool('test_elicitation_sep1330_enums', 'Asks with every kind of choice', 'Please select options', {
    untitledSingle: { type: 'string', enum: options },
    titledSingle: { type: 'string', oneOf: titled(['First Option', 'Second Option', 'Third Option']) },
    legacyEnum: {
      type: 'string',
      enum: ['opt1', 'opt2', 'opt3'],
      enumNames: ['Option One', 'Option Two', 'Option Three'],
    },
    untitledMulti: { type: 'array', minItems: 1, maxItems: 3, items: { type: 'string', enum: options } },
    titledMulti: {
      type: 'array',
      minItems: 1,
      maxItems: 3,
      items: { anyOf: titled(['First Choice', 'Second Choice', 'Third Choice']) },
    },
  });

  const nameForm = (message) => elicit(message, objectSchema({ name: { type: 'string' } }, ['name']));
  const okForm = elicit('Please confirm', objectSchema({ ok: { type: 'boolean' } }, ['ok']));

  tool('test_input_required_result_elicitation', 'Asks for a name', (_args, ctx) => {
    const user = accepted(ctx, 'user_name', z.object({ name: z.string() }));
    return user ? content(text(`Hello, ${user.name}!`)) : ask({ user_name: nameForm('What is your name?') });
  });

  tool('test_input_required_result_sampling', 'Asks for a sample', (_args, ctx) => {
    const response = answer(ctx, 'capital_question');
    if (response.kind === 'sampling') return content(text(response.result.content.text));
    return ask({ capital_question: sample('What is the capital of France?', 100) });
  });

  tool('test_input_required_result_list_roots', 'Asks for the roots', (_args, ctx) => {
    const response = answer(ctx, 'client_roots');
    if (response.kind !== 'roots') return ask({ client_roots: inputRequired.listRoots() });
    return content(text(response.roots.map(({ uri }) => uri).join(', ')));
  });

  const stateTool = (name) =>
    tool(name, 'Asks for a confirmation, with signed state', async (_args, ctx) => {
      const confirmed = accepted(ctx, 'confirm', z.object({ ok: z.boolean() }));
      if (confirmed && ctx.mcpReq.requestState()?.step === 'confirm') return content(text('state-ok'));
      return ask({ confirm: okForm }, await requestState.mint({ step: 'confirm' }));
    });
  stateTool('test_input_required_result_request_state');
  stateTool('test_input_required_result_tampered_state');

  tool('test_input_required_result_multiple_inputs', 'Asks for three things at once', async (_args, ctx) => {
    const user = accepted(ctx, 'user_name', z.object({ name: z.string() }));
    const greeting = answer(ctx, 'greeting');
    const roots = answer(ctx, 'client_roots');
    if (user && greeting.kind === 'sampling' && roots.kind === 'roots') {
      return content(text(`${greeting.result.content.text} ${user.name}: ${roots.roots.length} roots`));
    }
    return ask({
      user_name: nameForm('What is your name?'),
      greeting: sample('Generate a greeting', 50),
      client_roots: inputRequired.listRoots(),
    }, await requestState.mint({ step: 'all' }));
  });

  tool('test_input_required_result_multi_round', 'Asks in two rounds', async (_args, ctx) => {
    const state = ctx.mcpReq.requestState();
    const first = accepted(ctx, 'step1', z.object({ name: z.string() }));
    const second = accepted(ctx, 'step2', z.object({ color: z.string() }));
    if (state?.step === 2 && second) return content(text(`${state.name} likes ${second.color}`));
    if (state?.step === 1 && first) {
      const form = elicit('Step 2: What is your favorite color?',
        objectSchema({ color: { type: 'string' } }, ['color']));
      return ask({ step2: form }, await requestState.mint({ step: 2, name: first.name }));
    }
    return ask({ step1: nameForm('Step 1: What is your name?') }, await requestState.mint({ step: 1 }));
  });

  tool('test_input_required_result_capabilities', 'Asks only for what the client supports', (_args, ctx) => {
    if (ctx.mcpReq.inputResponses) return content(text('done'));
    const supported = ctx.mcpReq.envelope?.['io.modelcontextprotocol/clientCapabilities'] ?? {};
    return ask({
      ...(supported.sampling && { sample: sample('Hello', 10) }),
      ...(supported.elicitation && { confirm: okForm }),
      ...(supported.roots && { client_roots: inputRequired.listRoots() }),
    });
  });
}

function addSchemaTools(tool) {
  const echo = (args) => content(text(JSON.stringify(args)));

  tool('test_header_parameter', 'Has a parameter that also travels as a header', echo,
    objectSchema({ region: { type: 'string', 'x-mcp-header': 'Region' } }));

  tool('json_schema_2020_12_tool', 'Tool with JSON Schema 2020-12 features', echo, {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    type: 'object',
    $defs: {
      address: {
        $anchor: 'addressDef',
        type: 'object',
        properties: { street: { type: 'string' }, city: { type: 'string' } },
      },
    },
    properties: {
      name: { type: 'string' },
      address: { $ref: '#/$defs/address' },
      contactMethod: { type: 'string', enum: ['phone', 'email'] },
      phone: { type: 'string' },
      email: { type: 'string' },
    },
    allOf: [{ anyOf: [{ required: ['phone'] }, { required: ['email'] }] }],
    if: { properties: { contactMethod: { const: 'phone' } }, required: ['contactMethod'] },
    then: { required: ['phone'] },
    else: { required: ['email'] },
    additionalProperties: false,
  });
}

function addResources(server) {
  const resource = (name, uri, mimeType, description, body) =>
    server.registerResource(name, uri, { description, mimeType }, () => ({ contents: [{ uri, mimeType, ...body }] }));

  resource('static-text', 'test://static-text', 'text/plain', 'A static text resource',
    { text: 'This is the content of the static text resource.' });
  resource('static-binary', 'test://static-binary', 'image/png', 'A static image', { blob: PNG });
  resource('watched-resource', 'test://watched-resource', 'text/plain', 'A resource to subscribe to',
    { text: 'Watched resource content' });
  server.registerResource(
    'template',
    new ResourceTemplate('test://template/{id}/data', { list: undefined }),
    { description: 'A resource template with one parameter', mimeType: 'application/json' },
    (uri, { id }) => ({
      contents: [{
        uri: uri.href,
        mimeType: 'application/json',
        text: JSON.stringify({ id, templateTest: true, data: `Data for ID: ${id}` }),
      }],
    }),
  );
  server.server.setRequestHandler('resources/subscribe', () => ({}));
  server.server.setRequestHandler('resources/unsubscribe', () => ({}));
}

function addPrompts(server) {
  const messages = (...blocks) => ({ messages: blocks.map((block) => ({ role: 'user', content: block })) });

  server.registerPrompt('test_simple_prompt', { description: 'A prompt without arguments' }, () =>
    messages(text('This is a simple prompt for testing.')));
  server.registerPrompt('test_prompt_with_arguments', {
    description: 'A prompt with two required arguments',
    argsSchema: z.object({
      arg1: completable(z.string().describe('First test argument'), (value) =>
        ['paris', 'park', 'party'].filter((word) => word.startsWith(value))),
      arg2: z.string().describe('Second test argument'),
    }),
  }, ({ arg1, arg2 }) => messages(text(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`)));
  server.registerPrompt('test_prompt_with_embedded_resource', {
    description: 'A prompt with an embedded resource',
    argsSchema: z.object({ resourceUri: z.string().describe('URI of the resource to embed') }),
  }, ({ resourceUri }) =>
    messages(
      embedded(resourceUri, 'text/plain', 'Embedded resource content for testing.'),
      text('Please process the embedded resource above.'),
    ));
  server.registerPrompt('test_prompt_with_image', { description: 'A prompt with an image' }, () =>
    messages(image, text('Please analyze the image above.')));
  server.registerPrompt('test_input_required_result_prompt', { description: 'A prompt that asks the user' }, (ctx) => {
    const answer = acceptedContent(ctx.mcpReq.inputResponses, 'user_context', z.object({ context: z.string() }));
    if (answer) return messages(text(`Context: ${answer.context}`));
    const form = { message: 'What context should the prompt use?',
      requestedSchema: objectSchema({ context: { type: 'string' } }, ['context']) };
    return inputRequired({ inputRequests: { user_context: inputRequired.elicit(form) } });
  });
}

// Keeps every event, so that a client that reconnects with Last-Event-ID gets what it missed.
class MemoryEventStore {
  #events = [];

  async storeEvent(streamId, message) {
    this.#events.push({ streamId, message });
    return String(this.#events.length);
  }

  async getStreamIdForEventId(eventId) {
    return this.#events[Number(eventId) - 1]?.streamId;
  }

  async replayEventsAfter(lastEventId, { send }) {
    const streamId = await this.getStreamIdForEventId(lastEventId);
    for (const [index, event] of this.#events.entries()) {
      const isPriming = Object.keys(event.message).length === 0;
      if (index < Number(lastEventId) || event.streamId !== streamId || isPriming) continue;
      await send(String(index + 1), event.message);
    }
    return streamId;
  }
}

// 2025-11-25: one server and transport per session.
const sessions = new Map();

async function serveSession(req, res, body) {
  const sessionId = req.headers['mcp-session-id'];
  const known = sessions.get(sessionId);
  if (known) return known.handleRequest(req, res, body);
  if (sessionId) return refuse(res, 404, -32001, 'Session not found');
  if (!isInitializeRequest(body)) return refuse(res, 400, -32000, 'Mcp-Session-Id header is required');

  const transport = new NodeStreamableHTTPServerTransport({
    sessionIdGenerator: randomUUID,
    eventStore: new MemoryEventStore(),
    retryInterval: RETRY_MS,
    onsessioninitialized: (id) => sessions.set(id, transport),
    onsessionclosed: (id) => sessions.delete(id),
  });
  const server = buildServer({
    tools: () => server.sendToolListChanged(),
    prompts: () => server.sendPromptListChanged(),
  });
  await server.connect(transport);
  return transport.handleRequest(req, res, body);
}

function refuse(res, status, code, message) {
  res.writeHead(status, { 'content-type': 'application/json' });
  res.end(JSON.stringify({ jsonrpc: '2.0', id: null, error: { code, message } }));
}

// 2026-07-28: a fresh server for every request.
const stateless = createMcpHandler(
  () => buildServer({
    tools: () => stateless.notify.toolsChanged(),
    prompts: () => stateless.notify.promptsChanged(),
  }),
  { legacy: 'reject' },
);
const serveStateless = toNodeHandler(stateless);

const hostIsLocal = localhostHostValidation();
const originIsLocal = localhostOriginValidation();

async function serve(req, res) {
  if (!hostIsLocal(req, res) || !originIsLocal(req, res)) return;
  if (new URL(req.url, 'http://localhost').pathname !== '/mcp') {
    return refuse(res, 404, -32601, 'Not found: the endpoint is /mcp');
  }
  const probe = await toWebRequest(req);
  const isLegacy = await isLegacyRequest(probe);
  const body = await probe.json().catch(() => undefined);
  return isLegacy ? serveSession(req, res, body) : serveStateless(req, res, body);
}

const listener = http.createServer((req, res) => {
  serve(req, res).catch((error) => {
    console.error(error);
    if (res.headersSent) res.destroy();
    else refuse(res, 500, -32603, 'Internal server error');
  });
});
listener.listen(Number(process.env.PORT ?? 3000), '127.0.0.1', () => {
  console.log(`listening 127.0.0.1:${listener.address().port}`);
});
