// What both TypeScript clients share: reading the flags, and printing the one JSON object that
// the tests read.
import { parseArgs } from 'node:util';

const GIVE_UP_AFTER_MS = 60_000;

/** Reads `<url> [--sse] [--revision R] [--tool T --args JSON] [--progress-tool T --progress-args JSON]`. */
export function readFlags() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      sse: { type: 'boolean', default: false },
      revision: { type: 'string', default: '2025-11-25' },
      tool: { type: 'string', default: 'echo' },
      args: { type: 'string', default: '{"message":"hello"}' },
      'progress-tool': { type: 'string', default: 'trigger-long-running-operation' },
      'progress-args': { type: 'string', default: '{"duration":1,"steps":5}' },
    },
  });
  if (positionals.length !== 1) throw new Error('usage: <client> <url> [flags]; see README.md');
  const token = process.env.TOKEN;
  return {
    url: new URL(positionals[0]),
    sse: values.sse,
    revision: values.revision,
    tool: { name: values.tool, arguments: JSON.parse(values.args) },
    progressTool: { name: values['progress-tool'], arguments: JSON.parse(values['progress-args']) },
    requestInit: { headers: token ? { Authorization: `Bearer ${token}` } : {} },
  };
}

/** Runs the exchange, prints what it returns or how it failed, and ends the process. */
export async function run(exchange) {
  setTimeout(() => fail(new Error(`no end after ${GIVE_UP_AFTER_MS} ms`)), GIVE_UP_AFTER_MS);
  try {
    print(await exchange(readFlags()), 0);
  } catch (error) {
    fail(error);
  }
}

/** Collects progress notifications, each with its arrival in ms since the call. */
export function progressRecorder() {
  const started = performance.now();
  const since = () => Math.round(performance.now() - started);
  const progress = [];
  const onprogress = ({ progress: value, total }) => progress.push({ progress: value, total, at_ms: since() });
  return { progress, onprogress, since };
}

function fail(error) {
  // Version 1 puts an HTTP status in `code`, version 2 in `status` with a string in `code`.
  const isHttp = ['StreamableHTTPError', 'SseError'].includes(error.constructor.name);
  const status = error.status ?? (isHttp ? error.code : undefined);
  const code = isHttp ? undefined : error.code;
  const message = [error.message, error.cause?.message].filter(Boolean).join(': ');
  print({ error: { message, code, status } }, 1);
}

function print(result, exitCode) {
  process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(exitCode));
}
