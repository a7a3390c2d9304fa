// A small API gateway for the tests: what a company writes itself where no gateway is at hand. It asks about every token on
// every request, and takes whatever is no answer for "cannot tell". The path that it looks at is the one that it passes on. Which library asks is up to the caller.
import http from 'node:http';
import { brief } from './brief.mjs';

const routes = [['/reports/', 'reports.read'], ['/billing/', 'billing.write']];

// serve lets requests through for which introspect(token, clientIP) answers { active, scope, sub }.
export const serve = (introspect) => {
  const [host, port] = brief.listen.split(':');
  http.createServer(async (request, response) => {
    const refuse = (code, challenge) => response.writeHead(code, challenge ? { 'WWW-Authenticate': challenge } : {}).end();
    const { pathname, search } = new URL(`http://any${request.url}`);
    const scope = routes.find(([prefix]) => pathname.startsWith(prefix))?.[1];
    if (!scope || /\/\/|%2f|%5c|\/\.\.?;/i.test(pathname)) return refuse(404);
    const token = /^Bearer ([!-~]+)$/i.exec(request.headers.authorization ?? '')?.[1];
    if (!token) return refuse(401, 'Bearer');
    let answer;
    try {
      answer = await introspect(token, request.socket.remoteAddress);
    } catch {
      return refuse(503);
    }
    if (answer.active !== true) return refuse(401, 'Bearer error="invalid_token"');
    if (!(answer.scope ?? '').split(' ').includes(scope)) {
      return refuse(403, `Bearer error="insufficient_scope", scope="${scope}"`);
    }
    // Of what the client sent nothing goes on but the path.
    const upstream = await fetch(`http://${brief.upstream}${pathname}${search}`, { headers: { 'X-Auth-User': encodeURIComponent(answer.sub) } });
    response.writeHead(upstream.status).end(await upstream.text());
  }).listen(Number(port), host);
};
