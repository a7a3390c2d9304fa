// A company's application with Express: the router of docs/page.md and as much around it as a test needs. It prints
// {"port": …} when it is ready, and ends when its standard input does.
import { readFileSync } from 'node:fs';

import express from 'express';

import { handoff } from './handoff.mjs';

const app = express();
app.use((request, response, next) => {
  const signedIn = /(?:^|; )user=([^;]+)/.exec(request.headers.cookie ?? '');
  if (signedIn) request.user = { id: decodeURIComponent(signedIn[1]) };
  next();
});
app.get('/in/:user', (request, response) => response.cookie('user', request.params.user).redirect('/settings'));
app.get('/settings', (request, response) => response.type('html').send(readFileSync('embed.html', 'utf8')));
app.use(handoff);
const server = app.listen(0, '127.0.0.1', () => process.stdout.write(`${JSON.stringify({ port: server.address().port })}\n`));
process.stdin.on('end', () => process.exit(0)).resume();
