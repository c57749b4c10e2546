// Reads the query of LogQL on standard input by Grafana's own parser; prints the labels that it asks for.
import { text } from 'node:stream/consumers';

const modules = new URL('../../target/deployment/node_modules/', import.meta.url);
const { parser } = await import(new URL('@grafana/lezer-logql/index.es.js', modules));

const query = await text(process.stdin);
parser.parse(query).iterate({
  enter(node) {
    const at = query.slice(node.from, node.to);
    if (node.type.isError) throw new Error(`this is not LogQL: ${query.slice(0, node.from)}<here>${query.slice(node.from)}`);
    if (node.name === 'Identifier') console.log(at);
  },
});
