// The whole life of a token, by keyboard alone, with and without JavaScript.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';

import { choose, go, press, reach, tick, type } from './keys.mjs';
import { at, hold, introspect, main, setup } from './lib.mjs';

const decision = async (secret) => (await introspect(secret)).decision;

async function life(page, user, script) {
  const button = (name) => page.getByRole('button', { name, exact: true });
  const link = (name) => page.getByRole('link', { name, exact: true });
  const heading = (name) => page.getByRole('heading', { name, exact: true, level: 1 });
  await hold(user, ['reports.read', 'reports.write', 'deploy.run']);

  // Sign in.
  await page.goto(at('/'));
  await type(page, page.locator('[name="login"]'), user);
  await type(page, page.locator('[name="password"]'), 'any');
  await go(page, page.locator('button[type="submit"]'));
  await go(page, button('Continue'));
  await heading('Tokens').waitFor();
  assert.match(await page.locator('main').innerText(), /You have none yet\./);

  // The first stop of each page leads past what is on every page.
  await page.reload();
  await press(page, page.getByRole('link', { name: 'Skip to the content' }));
  await page.keyboard.press('Tab');
  assert.ok(await link('New token').evaluate((e) => e === document.activeElement), 'the link skips to the content');

  // Make one; wrong input first.
  await go(page, link('New token'));
  await heading('New token').waitFor();
  await type(page, page.getByLabel('Name', { exact: true }), 'build server');
  await choose(page, page.getByLabel('Expiration'), '90 days');
  await type(page, page.getByLabel('Description'), 'for the nightly build');
  await go(page, button('Create token'));
  await page.getByRole('alert').filter({ hasText: 'Choose at least one scope.' }).waitFor();
  assert.equal(await page.getByLabel('Name', { exact: true }).inputValue(), 'build server');
  await tick(page, page.getByRole('checkbox', { name: 'reports.read' }));
  await tick(page, page.getByRole('checkbox', { name: 'reports.write' }));
  await choose(page, page.getByLabel('Expiration'), 'Custom date');
  const day = new Date(Date.now() + 30 * 86_400_000);
  await reach(page, page.getByLabel('Custom date'));
  await page.keyboard.type(day.toLocaleDateString('en-US', { year: 'numeric', month: '2-digit', day: '2-digit', timeZone: 'UTC' }));
  assert.equal(await page.getByLabel('Custom date').inputValue(), day.toISOString().slice(0, 10));
  await go(page, button('Create token'));

  // Copy it and use it.
  const first = await page.getByTestId('secret').innerText();
  if (script) {
    await press(page, button('Copy'));
    await page.getByRole('status').filter({ hasText: 'Copied.' }).waitFor();
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), first);
  } else {
    assert.equal(await button('Copy').count(), 0, 'there is no button that does nothing');
  }
  const self = JSON.parse(execFileSync('sh', ['-c', await page.locator('pre').innerText()]));
  assert.equal(self.token.user, user);
  const told = await introspect(first);
  assert.equal(told.decision, 'ALLOW');
  assert.deepEqual([...told.scopes].sort(), ['reports.read', 'reports.write']);
  assert.equal(told.expire_time.slice(0, 10), day.toISOString().slice(0, 10));

  // Rotate it.
  await go(page, link('build server'));
  await choose(page, page.getByLabel('Grace period'), 'None: it stops at once');
  await go(page, button('Rotate'));
  const second = await page.getByTestId('secret').innerText();
  assert.notEqual(second, first);
  assert.equal(await decision(second), 'ALLOW');
  assert.equal(await decision(first), 'SUPERSEDED');

  // Narrow and rename it.
  await go(page, link('build server'));
  await tick(page, page.getByRole('checkbox', { name: 'reports.write' }));
  await type(page, page.getByLabel('Name', { exact: true }), 'night build');
  await go(page, button('Save'));
  await page.getByRole('status').filter({ hasText: 'Saved.' }).waitFor();
  await heading('night build').waitFor();
  assert.deepEqual((await introspect(second)).scopes, ['reports.read']);

  // Find it in the list.
  await go(page, link('Tokens'));
  await type(page, page.getByLabel('Search'), 'NIGHT');
  await choose(page, page.getByLabel('State'), 'Active');
  await go(page, button('Filter'));
  await go(page, link('night build'));

  // Revoke it: the dialog names it, and can be left.
  const dialog = page.getByRole('dialog', { name: 'Revoke “night build”?' });
  await (script ? press : go)(page, button('Revoke'));
  await dialog.waitFor();
  if (script) {
    await page.keyboard.press('Escape');
    await dialog.waitFor({ state: 'hidden' });
    assert.ok(await button('Revoke').evaluate((e) => e === document.activeElement), 'the focus is back where it was');
    await press(page, button('Revoke'));
  }
  await go(page, dialog.getByRole('button', { name: 'Revoke token' }));
  await page.getByRole('status').filter({ hasText: 'The token is revoked.' }).waitFor();
  assert.equal(await decision(second), 'REVOKED');

  // Its story, and the end.
  await go(page, link('Activity'));
  await heading('Activity').waitFor();
  const story = await page.locator('.events').innerText();
  for (const sentence of ['You revoked the token “night build”.', 'You rotated the token', 'You created the token']) {
    assert.ok(story.includes(sentence), `${sentence} is not in ${story}`);
  }
  await go(page, button('Sign out'));
  await page.locator('button[value="yes"]').waitFor(); // the provider asks, too
  await go(page, page.locator('button[value="yes"]'));
  await heading('You are signed out').waitFor();
  await page.goto(at('/activity'));
  assert.ok(page.url().startsWith(setup.issuer), `signed out, and at ${page.url()}`);
}

await main({
  'with a script': async (open) => {
    const { context, page } = await open();
    await context.grantPermissions(['clipboard-read', 'clipboard-write'], { origin: setup.patd });
    await life(page, 'kim', true);
  },
  'without JavaScript': async (open) => {
    const { page } = await open({ javaScriptEnabled: false });
    await life(page, 'robin', false);
  },
});
