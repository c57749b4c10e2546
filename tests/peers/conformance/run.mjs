// Runs every server scenario of the official conformance suite for one revision, and prints
// {scenario: {check: status}} as sorted JSON. $TOKEN, if set, goes along as a bearer token.
// usage: run.mjs --url URL --revision 2025-11-25|2026-07-28 [--details DIR]
// Exit code 0: the suite ran, whatever its verdicts. --details keeps the suite's own reports.
import { spawn } from 'node:child_process';
import { mkdtemp, readFile, readdir, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';

const GIVE_UP_AFTER_MS = 120_000;

const { values: flags } = parseArgs({
  options: { url: { type: 'string' }, revision: { type: 'string' }, details: { type: 'string' } },
});
if (!flags.url || !flags.revision) throw new Error('usage: run.mjs --url URL --revision REVISION [--details DIR]');

const reports = flags.details ?? (await mkdtemp(path.join(tmpdir(), 'conformance-')));
try {
  const log = await runSuite();
  const results = await readReports();
  if (Object.keys(results).length === 0) throw new Error(`the suite ran no scenario:\n${log}`);
  console.log(JSON.stringify(results, null, 2));
} finally {
  if (!flags.details) await rm(reports, { recursive: true });
}

function runSuite() {
  const suite = createRequire(import.meta.url).resolve('@modelcontextprotocol/conformance/dist/index.js');
  const args = [
    '--import', new URL('add-token.mjs', import.meta.url).href,
    suite, 'server', '--suite', 'all',
    '--url', flags.url, '--spec-version', flags.revision, '--output-dir', reports,
  ];
  const child = spawn(process.execPath, args, {
    env: { ...process.env, CONFORMANCE_ORIGIN: new URL(flags.url).origin },
    timeout: GIVE_UP_AFTER_MS,
  });
  let log = '';
  child.stdout.on('data', (chunk) => (log += chunk));
  child.stderr.on('data', (chunk) => (log += chunk));
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    // 1 means that some check failed, which is a result like any other.
    child.on('close', (code, signal) =>
      code === 0 || code === 1 ? resolve(log) : reject(new Error(`the suite ended with ${code ?? signal}:\n${log}`)));
  });
}

// Each scenario's report is in a directory server-<scenario>-<timestamp>.
async function readReports() {
  const results = {};
  for (const directory of (await readdir(reports)).sort()) {
    const scenario = directory.replace(/^server-/, '').replace(/-\d{4}-\d{2}-\d{2}T.*$/, '');
    const checks = JSON.parse(await readFile(path.join(reports, directory, 'checks.json'), 'utf8'));
    results[scenario] = statusByCheck(checks);
  }
  return sorted(results);
}

// One check can be made several times in a scenario: the later ones are numbered from #2.
function statusByCheck(checks) {
  const seen = {};
  const statuses = {};
  for (const { id, name, status } of checks) {
    const key = `${id}/${name}`;
    seen[key] = (seen[key] ?? 0) + 1;
    statuses[seen[key] === 1 ? key : `${key}#${seen[key]}`] = status;
  }
  return sorted(statuses);
}

function sorted(object) {
  return Object.fromEntries(Object.entries(object).sort(([a], [b]) => (a < b ? -1 : 1)));
}
