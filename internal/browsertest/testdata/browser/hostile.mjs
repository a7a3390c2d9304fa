// What others try: pages of other origins, whoever has an old link, and the impatient.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';

import { at, atProvider, call, handoff, hold, introspect, main, mint, setup, signIn } from './lib.mjs';

const tokensOf = async (user) => (await call('GET', `/v1/users/${user}/tokens`)).tokens;
const heading = (page, name) => page.getByRole('heading', { name, exact: true, level: 1 });
const button = (page, name) => page.getByRole('button', { name, exact: true });
const escape = (text) => text.replaceAll('&', '&amp;').replaceAll('"', '&quot;');

// stranger serves a page of other origins: one that is another site, and one that is another port of the same.
async function stranger(html) {
  const server = createServer((request, response) => {
    response.setHeader('content-type', 'text/html; charset=utf-8');
    response.end(`<!doctype html><title>stranger</title>${html}`);
  });
  await new Promise((ready) => { server.listen(0, '127.0.0.1', ready); });
  const { port } = server.address();
  return { origins: [`http://localhost:${port}/`, `http://127.0.0.1:${port}/`], close: () => server.close() };
}

// fill fills in the form for a new token.
async function fill(page, name) {
  await page.goto(at('/new'));
  await page.getByLabel('Name', { exact: true }).fill(name);
  await page.getByLabel('Description').fill(`of ${name}`);
  await page.getByLabel('Expiration').selectOption('30d');
  await page.getByRole('checkbox', { name: 'reports.read' }).check();
}

// kept checks that the form has what fill typed.
async function kept(page, name) {
  assert.equal(await page.getByLabel('Name', { exact: true }).inputValue(), name);
  assert.equal(await page.getByLabel('Description').inputValue(), `of ${name}`);
  assert.equal(await page.getByLabel('Expiration').inputValue(), '30d');
  assert.ok(await page.getByRole('checkbox', { name: 'reports.read' }).isChecked());
}

const someone = async (user) => { await hold(user, ['reports.read', 'deploy']); return handoff(user); };

await main({
  'a form of another origin does nothing': async (open) => {
    const { page } = await open();
    await page.goto(await someone('csrf'));
    const made = await mint('csrf', { name: 'mine', scopes: ['deploy'] });
    await page.goto(at(`/tokens/${made.token.token_id}`));
    const session = await page.locator('[name="session"]').first().inputValue(); // as if it had leaked
    for (const [path, fields] of [[`/tokens/${made.token.token_id}`, { action: 'revoke', session }], ['/activity', { session }], ['/signout', {}],
      ['/new', { session, name: 'theirs', expiration: '30d', scopes: 'deploy', key: 'k'.repeat(32) }]]) {
      const inputs = Object.entries(fields).map(([name, value]) => `<input name="${name}" value="${escape(value)}">`).join('');
      const evil = await stranger(`<form method="post" action="${at(path)}">${inputs}<button>win</button></form>
        <script>addEventListener('load', async () => {
          await fetch('${at(path)}', { method: 'POST', mode: 'no-cors', credentials: 'include', body: new URLSearchParams(${JSON.stringify(fields)}) }).catch(() => {});
          document.title = 'sent';
        })</script>`);
      for (const origin of evil.origins) {
        await page.goto(origin);
        await page.waitForFunction(() => document.title === 'sent');
        await button(page, 'win').click();
        await heading(page, 'Nothing was done').waitFor();
      }
      evil.close();
    }
    await page.goto(at('/'));
    assert.match(await page.locator('.who').innerText(), /csrf/);
    assert.deepEqual((await tokensOf('csrf')).map((t) => t.name), ['mine']);
    assert.equal((await introspect(made.secret)).decision, 'ALLOW');
  },

  'no stranger frames a page': async (open) => {
    const { page, problems } = await open();
    await page.goto(await someone('framed'));
    const evil = await stranger(`<iframe src="${at('/')}" title="victim"></iframe><iframe src="${at('/signin')}" title="other"></iframe>`);
    for (const origin of evil.origins) {
      await page.goto(origin);
      assert.equal(page.frames().length, 3);
      for (const frame of page.frames().slice(1)) {
        assert.ok(!(await frame.content().catch(() => '')).includes('Personal access tokens'), `${origin} frames a page`);
      }
    }
    evil.close();
    assert.deepEqual(problems, []);
  },

  'a code is good once, whoever races for it': async (open) => {
    const racers = await Promise.all([0, 1, 2].map(() => open()));
    const url = await someone('racer');
    await Promise.all(racers.map(({ page }) => page.goto(url)));
    const won = [];
    for (const { page } of racers) {
      assert.ok(!page.url().includes(url.split('code=')[1]) || !(await page.locator('.who').count()), 'the code stays in the address');
      if (await page.locator('.who').count()) won.push(page);
      else assert.match(await page.getByRole('alert').innerText(), /used before/);
    }
    assert.equal(won.length, 1);
    await won[0].goto(url); // again
    assert.match(await won[0].getByRole('alert').innerText(), /used before/);
    await won[0].goto(at('/')); // who was signed in still is
    assert.match(await won[0].locator('.who').innerText(), /racer/);
  },

  'a link of somebody else makes nothing of a form from before': async (open) => {
    await someone('attacker');
    const { context, page } = await open();
    await page.goto(await someone('victim'));
    await fill(page, 'precious');
    const second = await context.newPage();
    await second.goto(await handoff('attacker'));
    assert.match(await second.locator('.who').innerText(), /attacker/);
    await button(page, 'Create token').click();
    await page.getByRole('alert').filter({ hasText: 'before you signed in here' }).waitFor();
    assert.match(await page.locator('.who').innerText(), /attacker/);
    await kept(page, 'precious');
    for (const user of ['victim', 'attacker']) assert.deepEqual(await tokensOf(user), []);
  },

  'nobody else chooses a session': async (open) => {
    const { context, page } = await open();
    const before = await (await open()).context.newPage();
    await before.goto(await someone('fixed'));
    const [cookie] = await before.context().cookies();
    assert.equal(cookie.name, '__Host-patd-session');
    assert.ok(cookie.secure && cookie.httpOnly && cookie.sameSite === 'Lax' && cookie.path === '/');
    for (const value of ['x', 'A'.repeat(43), cookie.value.slice(0, -1), `${cookie.value}A`, cookie.value.toLowerCase(), '%00', 'A'.repeat(3000)]) {
      await context.addCookies([{ ...cookie, value }]);
      await page.goto(at('/'));
      assert.ok(page.url().startsWith(setup.issuer), `a forged cookie leads to ${page.url()}`);
    }
    // Signing in gives another session than what was there, and that one is no good any more.
    await context.addCookies([cookie]);
    await page.goto(await handoff('fixed'));
    const now = (await context.cookies(setup.patd)).find((c) => c.name === cookie.name);
    assert.notEqual(now.value, cookie.value);
    await before.goto(at('/'));
    assert.ok(before.url().startsWith(setup.issuer), 'the session from before is still good');
  },

  'signing in leads nowhere else': async (open) => {
    const { page } = await open();
    await page.goto(at('/signin?next=https%3A%2F%2Fevil.example%2F'));
    await atProvider(page, 'redirected');
    assert.equal(page.url(), at('/'));
    for (const next of ['//evil.example', '/\\evil.example', '/%09/evil.example', '/tokens/..%2f..//evil.example']) {
      await page.goto(at(`/signin?next=${encodeURIComponent(next)}`));
      await page.waitForURL((url) => url.href.startsWith(setup.patd));
      assert.equal(page.url(), at('/'), next);
    }
    // What another began signs nobody in: a link that ends somebody else's sign-in.
    const other = await open();
    await other.page.goto(at('/signin/callback?code=theirs&state=theirs'));
    assert.equal(await other.page.locator('.who').count(), 0);
    await other.page.goto(at('/signin?next=%2F'));
    const begun = new URL(other.page.url()).origin === setup.issuer;
    assert.ok(begun);
  },

  'back, reload and a second click make nothing more': async (open) => {
    const { page } = await open();
    await page.goto(await someone('again'));
    await fill(page, 'once');
    await button(page, 'Create token').dblclick();
    const secret = await page.getByTestId('secret').innerText();
    await page.reload();
    assert.equal(await page.getByTestId('secret').innerText(), secret);
    await page.goBack();
    await heading(page, 'New token').waitFor();
    assert.ok(!(await page.content()).includes(secret));
    assert.equal((await tokensOf('again')).length, 1);
    // Rotated twice in the same way.
    await page.goto(at('/'));
    await page.getByRole('link', { name: 'once', exact: true }).click();
    await button(page, 'Rotate').dblclick();
    const next = await page.getByTestId('secret').innerText();
    await page.reload();
    assert.equal(await page.getByTestId('secret').innerText(), next);
    assert.equal((await tokensOf('again'))[0].rotations ?? 1, 1);
    // After signing out, back shows nothing of it.
    await button(page, 'Sign out').click();
    await page.goBack().catch(() => {}); // Chromium may say that the page is gone
    assert.ok(!(await page.locator('body').innerText()).includes(next), 'a secret is shown to who comes after');
    assert.equal((await introspect(next)).decision, 'ALLOW');
  },

  'two tabs do not undo each other': async (open) => {
    const { context, page } = await open();
    await page.goto(await someone('tabs'));
    const made = await mint('tabs', { name: 'shared', scopes: ['reports.read', 'deploy'] });
    const second = await context.newPage();
    for (const p of [page, second]) await p.goto(at(`/tokens/${made.token.token_id}`));
    await page.getByRole('checkbox', { name: 'deploy' }).uncheck();
    await button(page, 'Save').click();
    await page.getByRole('status').filter({ hasText: 'Saved.' }).waitFor();
    await second.getByLabel('Name', { exact: true }).fill('renamed');
    await button(second, 'Save').click();
    await second.getByRole('alert').filter({ hasText: 'changed in another window' }).waitFor();
    assert.equal(await second.getByLabel('Name', { exact: true }).inputValue(), 'renamed');
    assert.deepEqual((await tokensOf('tabs'))[0].scopes, ['reports.read']);
    // A form in each makes one token each.
    await fill(page, 'left');
    await fill(second, 'right');
    await Promise.all([button(page, 'Create token').click(), button(second, 'Create token').click()]);
    await Promise.all([page, second].map((p) => p.getByTestId('secret').waitFor()));
    assert.deepEqual((await tokensOf('tabs')).map((t) => t.name).sort(), ['left', 'right', 'shared']);
  },

  'signed out elsewhere in the middle of a form': async (open) => {
    const [here, there] = [await open(), await open()];
    await hold('ended', ['reports.read', 'deploy']);
    await signIn(here.page, 'ended');
    await fill(here.page, 'halfway');
    await signIn(there.page, 'ended', '/activity');
    await button(there.page, 'End all others').click();
    await there.page.getByRole('status').filter({ hasText: 'Ended.' }).waitFor();
    await button(here.page, 'Create token').click();
    if (here.page.url().startsWith(setup.issuer)) await atProvider(here.page, 'ended').catch(() => {});
    await heading(here.page, 'New token').waitFor();
    await here.page.getByRole('status').filter({ hasText: 'What you typed is still here' }).waitFor();
    await kept(here.page, 'halfway');
    assert.deepEqual(await tokensOf('ended'), []);
    await button(here.page, 'Create token').click();
    await here.page.getByTestId('secret').waitFor();
    assert.deepEqual((await tokensOf('ended')).map((t) => t.name), ['halfway']);
    // A suspended user's next click ends there.
    await call('POST', '/v1/users/ended:suspend', {});
    await here.page.goto(at('/'));
    assert.equal(await here.page.locator('table').count(), 0);
    assert.equal(await here.page.locator('.who').count(), 0);
  },
});
