// What the scripts share.
import assert from 'node:assert/strict';

import { chromium } from 'playwright-core';

export const setup = JSON.parse(process.env.SETUP);
export const at = (path) => setup.patd + path;

// main runs cases side by side in the browser that all scripts share, and fails if one of them does.
export async function main(cases) {
  const browser = await chromium.connect(setup.browser);
  const failed = [];
  await Promise.all(Object.entries(cases).map(async ([name, run]) => {
    const start = performance.now();
    const people = [];
    try {
      await run(async (options) => {
        const p = await person(browser, options);
        people.push(p);
        return p;
      });
      for (const p of people) assert.deepEqual(p.problems, [], 'what the browser complains of');
    } catch (error) {
      failed.push(name);
      console.log(`FAIL ${name}: ${error.stack ?? error}`);
      for (const p of people) for (const page of p.context.pages()) console.log(`  at ${page.url()}: ${await text(page)}`);
    }
    console.log(`${name}: ${((performance.now() - start) / 1000).toFixed(1)} s`);
    await Promise.all(people.map((p) => p.context.close()));
  }));
  await browser.close();
  if (failed.length > 0) process.exit(1);
}

const text = async (page) => (await page.locator('body').innerText({ timeout: 1000 }).catch(() => '')).slice(0, 1500);

// person opens a browser of its own: nothing is shared with other persons. problems are what the browser says is wrong:
// a violation of the Content-Security-Policy, an error of a script, a message that some text has run.
async function person(browser, options = {}) {
  const context = await browser.newContext({ locale: 'en-US', ...options });
  context.setDefaultTimeout(120_000); // nothing takes nearly as long, unless it is broken
  const problems = [];
  await context.addInitScript(() => {
    addEventListener('securitypolicyviolation', (e) => console.error(`policy: ${e.violatedDirective} ${e.blockedURI}`));
  });
  context.on('console', (m) => {
    // A page with a status that says what is wrong is no fault.
    if (m.type() !== 'error' || /^Failed to load resource: the server responded with a status of/.test(m.text())) return;
    if (m.page()?.url().startsWith(setup.patd)) problems.push(`${m.page().url()}: ${m.text()}`);
  });
  context.on('weberror', (e) => problems.push(`${e.page()?.url()}: ${e.error()}`));
  context.on('dialog', (d) => { problems.push(`dialog: ${d.message()}`); d.dismiss().catch(() => {}); });
  const page = await context.newPage();
  return { context, page, problems };
}

// call makes a REST call as the service that may do everything, or with another credential.
export async function call(method, path, body, credential = setup.admin) {
  const response = await fetch(at(path), {
    method, headers: { authorization: `Bearer ${credential}`, 'content-type': 'application/json' },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const answer = await response.json();
  assert.ok(response.ok, `${method} ${path}: ${response.status} ${JSON.stringify(answer)}`);
  return answer;
}

const users = (user) => `/v1/users/${encodeURIComponent(user)}`;

// hold gives a user features.
export const hold = (user, features) => call('PUT', `${users(user)}/features`, { features });

// mint makes a token of a user.
export const mint = (user, token) => call('POST', `${users(user)}/tokens`, token);

// handoff returns the address that signs a browser in as a user.
export const handoff = async (user, more = {}) => (await call('POST', `${users(user)}/page-sessions`, more)).url;

// introspect returns what a service is told of a secret.
export const introspect = (token) => call('POST', '/v1/introspect', { token });

// signIn signs a user in at the provider, on the way to a path.
export async function signIn(page, user, path = '/') {
  await page.goto(at(path));
  await atProvider(page, user);
}

// atProvider does what the provider asks for.
export async function atProvider(page, user) {
  await page.locator('[name="login"]').fill(user);
  await page.locator('[name="password"]').fill('any');
  await page.locator('button[type="submit"]').click();
  await page.getByRole('button', { name: 'Continue' }).click();
  await page.waitForURL((url) => url.href.startsWith(setup.patd));
}
