// Each kind of operator sees the pages that its permissions open, and no others.
import assert from 'node:assert/strict';

import { at, main, signIn } from './lib.mjs';

const all = ['Users', 'Tokens', 'Events', 'Services', 'Webhooks', 'Audiences', 'Features', 'Keys', 'Health'];
const kinds = {
  admins: all,
  support: ['Users', 'Tokens', 'Health'],
  auditors: ['Events', 'Health'],
  editors: ['Audiences', 'Features', 'Health'],
};

// statuses are those of all pages, as the page itself is answered.
const statuses = (page) => page.evaluate((paths) => Promise.all(paths.map(async (p) => (await fetch(p)).status)), all.map((name) => `/admin/${name.toLowerCase()}`));

await main({
  ...Object.fromEntries(Object.entries(kinds).map(([group, may]) => [group, async (open) => {
    const { page } = await open();
    await signIn(page, `kind@${group}`, '/admin');
    await page.getByRole('heading', { name: 'Administration' }).waitFor();
    const links = await page.getByRole('main').getByRole('link').allInnerTexts();
    assert.deepEqual(links.map((text) => text.trim()).filter((text) => all.includes(text)), may);
    assert.deepEqual(await statuses(page), all.map((name) => (may.includes(name) ? 200 : 403)));
    for (const name of [may[0], all.find((other) => !may.includes(other))].filter(Boolean)) {
      await page.goto(at(`/admin/${name.toLowerCase()}`));
      await page.getByRole('heading', { name: may.includes(name) ? name : 'Not allowed', level: 1 }).waitFor();
    }
    // An operator is a user too, with tokens of its own.
    await page.goto(at('/'));
    await page.getByRole('heading', { name: 'Tokens', level: 1 }).waitFor();
  }])),
  'a user is no operator': async (open) => {
    const { page } = await open();
    await signIn(page, 'kind', '/');
    assert.deepEqual(await statuses(page), all.map(() => 403));
    assert.equal(await page.locator('a[href^="/admin"]').count(), 0);
  },
});
