// Starts @modelcontextprotocol/server-everything on loopback only; by itself it would listen on
// every interface. usage: PORT=0 everything.mjs streamableHttp|sse
import net from 'node:net';

const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
  this.once('listening', () => console.log(`listening 127.0.0.1:${this.address().port}`));
  return listen.call(this, { port: Number(port), host: '127.0.0.1' }, ...rest);
};

await import('@modelcontextprotocol/server-everything/dist/index.js');
