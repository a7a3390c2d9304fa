// Starts the browser that all tests of a run share: each has contexts of its own. It prints {"browser": <address>} when
// it is ready, and ends when its standard input does.
import { chromium } from 'playwright-core';

const server = await chromium.launchServer({
  executablePath: process.argv[2],
  args: [
    '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost', // nothing is loaded from elsewhere
    '--test-third-party-cookie-phaseout', // as in a browser that blocks them
    '--lang=en-US',
  ],
});
process.stdin.on('end', () => { server.close().finally(() => process.exit(0)); }).resume();
process.stdout.write(`${JSON.stringify({ browser: server.wsEndpoint() })}\n`);
