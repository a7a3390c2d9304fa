// The page within a page of another site, in a browser that blocks third-party cookies, and under TLS.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';

import { at, call, handoff, hold, main, setup } from './lib.mjs';

const button = (page, name) => page.getByRole('button', { name, exact: true });
const insecure = { ignoreHTTPSErrors: true }; // the certificate is the test's own

// embedded goes through the page in the frame of an application.
async function embedded(open, app, user) {
  await hold(user, ['reports.read', 'deploy']);
  const { context, page } = await open(insecure);
  await page.goto(`${app}/in/${user}`);
  const start = performance.now();
  const frame = page.frameLocator('patd-tokens iframe');
  await frame.getByRole('heading', { name: 'Tokens', exact: true }).waitFor();
  await frame.locator('.who', { hasText: user }).waitFor();

  await frame.getByRole('link', { name: 'New token' }).click();
  await frame.getByLabel('Name', { exact: true }).fill('embedded');
  await frame.getByRole('checkbox', { name: 'deploy' }).check();
  // As high as its content, and not higher: nothing scrolls within it.
  await page.waitForFunction(() => document.querySelector('patd-tokens iframe').style.height !== '30rem');
  const inner = page.frames()[1];
  const fits = async () => {
    const height = await page.locator('patd-tokens iframe').evaluate((e) => e.getBoundingClientRect().height);
    const content = await inner.evaluate(() => document.body.offsetHeight);
    return Math.abs(height - content) <= 1 && await inner.evaluate(() => document.documentElement.scrollHeight <= innerHeight);
  };
  for (const end = Date.now() + 120_000; !await fits();) assert.ok(Date.now() < end, 'the frame is not as high as the page');
  await frame.getByRole('button', { name: 'Create token' }).click();
  await frame.getByTestId('secret').waitFor();

  // The cookie is this site's alone.
  const [cookie] = (await context.cookies(setup.patd));
  assert.equal(cookie.name, '__Host-patd-embedded');
  assert.ok(cookie.secure && cookie.httpOnly && cookie.sameSite === 'None' && cookie.partitionKey?.includes('localhost'), JSON.stringify(cookie));
  const alone = await context.newPage();
  await alone.goto(at('/'));
  await alone.getByRole('heading', { name: 'You are not signed in' }).waitFor();

  // When the session ends, the element asks for another.
  await call('POST', `/v1/users/${user}:suspend`, {});
  await call('POST', `/v1/users/${user}:resume`, {});
  await page.waitForTimeout(Math.max(0, 5100 - (performance.now() - start))); // it does not ask more often
  await frame.getByRole('link', { name: 'Tokens', exact: true }).click();
  await frame.getByRole('link', { name: 'embedded' }).waitFor();
}

await main({
  'the browser blocks third-party cookies': async (open) => {
    const other = createServer((request, response) => {
      if (request.url === '/set') response.setHeader('set-cookie', ['plain=1; SameSite=None; Secure', 'parted=1; SameSite=None; Secure; Partitioned']);
      response.setHeader('content-type', 'text/html');
      response.end(`<p>${request.headers.cookie ?? 'none'}`);
    });
    await new Promise((ready) => { other.listen(0, '127.0.0.1', ready); });
    const { page } = await open();
    await page.goto(`${setup.more.express}/settings`);
    for (const path of ['/set', '/get']) {
      await page.evaluate((src) => new Promise((done) => {
        document.body.innerHTML = '';
        const frame = document.createElement('iframe');
        frame.onload = done;
        frame.src = src;
        document.body.append(frame);
      }), `http://127.0.0.1:${other.address().port}${path}`);
    }
    assert.equal(await page.frames()[1].locator('p').innerText(), 'parted=1');
    other.close();
  },
  Express: (open) => embedded(open, setup.more.express, 'express'),
  Flask: (open) => embedded(open, setup.more.flask, 'flask'),

  'nobody is signed in at the application': async (open) => {
    const { page } = await open(insecure);
    await page.addInitScript(() => addEventListener('patd-error', (e) => { document.title = `error: ${e.detail.message}`; }));
    await page.goto(`${setup.more.express}/settings`);
    await page.waitForFunction(() => document.title === 'error: the hand-off answers 401');
    assert.equal(await page.locator('iframe').count(), 0);
  },

  'no other origin frames the page': async (open) => {
    const stranger = createServer(async (request, response) => {
      if (request.method === 'POST') {
        response.end(JSON.stringify({ url: await handoff('framed') }));
        return;
      }
      response.setHeader('content-type', 'text/html');
      response.end(`<script src="${at('/embed.js')}" type="module"></script><patd-tokens handoff="/"></patd-tokens>`);
    });
    await new Promise((ready) => { stranger.listen(0, '127.0.0.1', ready); });
    const { page } = await open(insecure);
    const refused = page.waitForEvent('console', (m) => /frame-ancestors/.test(m.text()));
    await page.goto(`http://localhost:${stranger.address().port}/`);
    await refused;
    assert.ok(!(await page.frames()[1].content().catch(() => '')).includes('Personal access tokens'));
    stranger.close();
  },

  'under TLS, and back to the application': async (open) => {
    const { context, page } = await open(insecure);
    const back = `${setup.more.express}/settings`;
    const response = await page.goto(await handoff('returner', { return_url: back }));
    assert.equal(page.url(), at('/'), 'the code does not stay in the address');
    const headers = response.headers();
    assert.match(headers['strict-transport-security'], /^max-age=\d{8}/);
    assert.equal(headers['cache-control'], 'no-store');
    assert.equal(headers['x-content-type-options'], 'nosniff');
    assert.equal(headers['referrer-policy'], 'no-referrer');
    assert.ok(!/unsafe|\*/.test(headers['content-security-policy']), headers['content-security-policy']);
    const [cookie] = await context.cookies(setup.patd);
    assert.ok(cookie.name === '__Host-patd-session' && cookie.secure && cookie.httpOnly && cookie.sameSite === 'Lax');
    assert.equal(await page.getByRole('link', { name: 'Back to the application' }).getAttribute('href'), back);
    await button(page, 'Sign out').click();
    await page.waitForURL(back);
    await page.goBack().catch(() => {});
    await page.goto(at('/new'));
    await page.getByRole('heading', { name: 'You are not signed in' }).waitFor();
    // Ended elsewhere: the next click leads back.
    await page.goto(await handoff('returner', { return_url: back }));
    await call('POST', '/v1/users/returner:suspend', {});
    await call('POST', '/v1/users/returner:resume', {});
    await page.getByRole('link', { name: 'New token' }).click();
    await page.waitForURL(back);
  },
});
