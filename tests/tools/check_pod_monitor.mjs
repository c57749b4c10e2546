// Holds the PodMonitor on standard input to the schema of the Prometheus operator.
import { text } from 'node:stream/consumers';

const models = new URL('../../target/deployment/node_modules/@kubernetes-models/', import.meta.url);
const { PodMonitor } = await import(new URL('prometheus-operator/monitoring.coreos.com/v1/PodMonitor.js', models));
new PodMonitor(JSON.parse(await text(process.stdin))).validate();
