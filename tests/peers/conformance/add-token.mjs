// Preloaded into the conformance suite, which cannot be told a token: adds
// `Authorization: Bearer $TOKEN` to every request to $CONFORMANCE_ORIGIN, and to no other.
// The suite sends requests in three ways: fetch, undici's request, and node:http's request.
import http from 'node:http';
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);
// The suite's own copy of undici: any other copy would not be the one that it calls.
const undici = createRequire(require.resolve('@modelcontextprotocol/conformance/dist/index.js'))('undici');

const token = process.env.TOKEN;
const origin = process.env.CONFORMANCE_ORIGIN;

if (token && origin) {
  const authorization = `Bearer ${token}`;

  const { fetch } = globalThis;
  globalThis.fetch = (input, init) => {
    const url = new URL(input instanceof Request ? input.url : input);
    if (url.origin !== origin) return fetch(input, init);
    const headers = new Headers(init?.headers ?? (input instanceof Request ? input.headers : undefined));
    headers.set('authorization', authorization);
    return fetch(input, { ...init, headers });
  };

  const { request } = undici;
  undici.request = (url, options) =>
    new URL(url).origin === origin
      ? request(url, { ...options, headers: { ...options?.headers, authorization } })
      : request(url, options);

  const httpRequest = http.request;
  http.request = (options, ...rest) => {
    const isOurs = `http://${options.hostname}:${options.port}` === origin;
    return httpRequest(isOurs ? { ...options, headers: { ...options.headers, authorization } } : options, ...rest);
  };
}
