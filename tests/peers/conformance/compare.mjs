// Compares two outputs of run.mjs. Exit code 0: equal and not empty; else the differing checks
// are printed, one a line. usage: compare.mjs A.json B.json
import { readFileSync } from 'node:fs';

const [a, b] = process.argv.slice(2, 4).map((file) => flatten(JSON.parse(readFileSync(file, 'utf8'))));
const checks = [...new Set([...a.keys(), ...b.keys()])].sort();
const differing = checks.filter((check) => a.get(check) !== b.get(check));

for (const check of differing) {
  console.log(`${check}: ${a.get(check) ?? 'absent'} | ${b.get(check) ?? 'absent'}`);
}
if (checks.length === 0) console.log('no check in either file');
process.exitCode = differing.length === 0 && checks.length > 0 ? 0 : 1;

function flatten(results) {
  return new Map(
    Object.entries(results).flatMap(([scenario, statuses]) =>
      Object.entries(statuses).map(([check, status]) => [`${scenario} ${check}`, status])),
  );
}
