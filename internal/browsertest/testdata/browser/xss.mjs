// Texts that would run if a page let them, wherever somebody else than the reader chooses one. What runs, and what the
// Content-Security-Policy has to stop, is a problem that main reports.
import assert from 'node:assert/strict';

import { at, atProvider, call, handoff, main, setup } from './lib.mjs';

const texts = [
  '<img src=x onerror=alert(1)>', '"><script>alert(2)</script>', "'><svg onload=alert(3)>", 'javascript:alert(4)',
  '</title></textarea></script><script>alert(5)</script>', '" autofocus onfocus=alert(6) x="', '{{alert(7)}}${alert(8)}',
];
const text = texts.join(' ');
const short = texts.slice(0, 3).join(' '); // of at most 100 characters, as names are
// The name of a feature has neither spaces nor double quotes.
const features = ["'><img/src=x/onerror=alert(9)>.read", 'javascript:alert(10)', '</fieldset><script>alert(11)</script>'];
const audience = "https://'><img/src=x/onerror=alert(12)>.example";
const token = `/v1/users/${encodeURIComponent(text)}`;

// look checks that a page shows a text as a text, and has no link that runs.
async function look(page, ...shown) {
  const all = await page.evaluate(() => document.documentElement.innerText
    + [...document.querySelectorAll('input, textarea')].map((e) => `\n${e.value}`).join(''));
  for (const s of shown) assert.ok(all.includes(s), `${page.url()} does not show ${s}`);
  const runs = await page.evaluate(() => [...document.querySelectorAll('*')].flatMap((e) => [...e.attributes]
    .filter((a) => /^on/i.test(a.name) || (/^(href|src|action|formaction)$/.test(a.name) && /^\s*javascript:/i.test(a.value)))
    .map((a) => `${e.tagName} ${a.name}=${a.value}`)));
  assert.deepEqual(runs, []);
  // A secret may stand beside them: only this server's own things are loaded.
  const loaded = await page.evaluate(() => performance.getEntriesByType('resource').map((e) => e.name));
  assert.deepEqual(loaded.filter((url) => !url.startsWith(`${setup.patd}/assets/`)), []);
}

async function walk(page) {
  const button = (name) => page.getByRole('button', { name, exact: true });
  const name = short;
  const query = new URLSearchParams({ name, scopes: [...features, text].join(','), description: text, audiences: text, networks: text, ttl: text });
  await page.goto(at(`/new?${query}`));
  await look(page, text, name, features[0]);
  await page.goto(at('/new'));
  await look(page, text, features[1]);
  await page.getByLabel('Name', { exact: true }).fill(name);
  await page.getByLabel('Description').fill(text);
  await page.getByLabel('Networks').fill(text);
  for (const box of await page.locator('[name="scopes"]').all()) await box.check();
  await button('Create token').click();
  await page.locator('.error').first().waitFor();
  await look(page, text, name);
  await page.getByLabel('Networks').fill('');
  await button('Create token').click();
  await page.getByTestId('secret').waitFor();
  await look(page, text, name);
  await page.getByRole('link', { name, exact: true }).click();
  await look(page, text, name, features[2]);
  const here = page.url();
  await button('Revoke').click();
  await page.getByRole('dialog').waitFor();
  await look(page, `Revoke “${name}”?`);
  await page.goto(at('/'));
  await look(page, text, name, features[0]);
  await call('POST', `${token}/tokens/${new URL(here).pathname.split('/').pop()}:revoke`, { reason: text });
  await page.goto(here);
  await look(page, text, name);
  const hostile = encodeURIComponent(text);
  for (const path of [`/?q=${hostile}&state=${hostile}`, `/?page=${hostile}`, `/activity?page=${hostile}`, `/activity?token=${hostile}`, `/activity?done=${hostile}`,
    `/tokens/${hostile}`, `/tokens/${hostile}?revoke=${hostile}&done=${hostile}`, `/signin?next=${hostile}&done`, `/handoff?code=${hostile}`, '/activity',
    `/signin/callback?error=${hostile}&error_description=${hostile}`, `/signin/callback?state=${hostile}&iss=${hostile}&code=${hostile}`]) {
    await page.goto(at(path));
    if (page.url().startsWith(setup.patd)) await look(page);
  }
  await page.goto(at('/activity'));
  await look(page, text, name, texts[0].slice(0, 20));
}

// operate goes through the pages of operators.
async function operate(page) {
  const hostile = encodeURIComponent(text);
  const name = short;
  await page.goto(at(`/admin/users/-?id=${hostile}`));
  await look(page, text, features[0], name);
  await page.getByLabel('Reason').first().fill(text);
  await page.getByLabel('Number').first().fill('77');
  await page.getByRole('button', { name: 'Suspend user' }).click();
  await page.getByRole('alert').first().waitFor();
  await look(page, text);
  for (const [path, ...shown] of [['users', text], [`users?q=${hostile}`, text], [`tokens?user=${hostile}`, text, name], [`tokens?q=${hostile}&scope=${hostile}&label=${hostile}`, text],
    [`tokens/revoke?user=${hostile}`, text], [`tokens/${hostile}`], [`events?user=${hostile}`, text], [`events?actor=user:${hostile}&action=${hostile}`],
    ['audiences', short], [`audiences/-?id=${encodeURIComponent(audience)}`, audience, short], [`audiences/-?id=${hostile}`], ['features', short],
    [`features/-?id=${encodeURIComponent(features[0])}`, features[0], text], [`features/-?id=${hostile}`], [`services/-?id=${hostile}`], [`services?q=${hostile}`]]) {
    await page.goto(at(`/admin/${path}`));
    await look(page, ...shown);
  }
  await page.goto(at(`/admin/tokens?user=${hostile}&state=revoked`));
  await page.getByRole('link', { name, exact: true }).click();
  await look(page, text, name);
}

await main({
  'every text is shown and none runs': async (open) => {
    await call('PUT', `${token}/features`, { features });
    for (const f of features) await call('POST', '/v1/features', { name: f, display_name: `${short} ${f.length}`, description: text });
    await call('POST', '/v1/audiences', { id: audience, display_name: short });
    for (const address of ['javascript:alert(1)', 'data:text/html,<script>alert(1)</script>', '//evil.example', 'https://evil.example', `${setup.patd}@evil.example/`]) {
      await assert.rejects(handoff(text, { return_url: address }), /return_url|origin/i, address);
    }
    const { page } = await open({ userAgent: texts[0] });
    await page.goto(await handoff(text));
    await walk(page);
    const operator = await open();
    await operator.page.goto(at('/admin'));
    await atProvider(operator.page, `"><img src=x onerror=alert(13)>@admins`);
    await operate(operator.page);
  },
  'a user whom the provider names so': async (open) => {
    const user = '"><img src=x onerror=alert(1)> javascript:alert(2)';
    const { page } = await open();
    await page.goto(at('/'));
    await atProvider(page, user);
    await look(page, user);
  },
});
