// Two servers behind a balancer that sends each request to the other one: a browser notices nothing of it.
import assert from 'node:assert/strict';

import { at, handoff, introspect, main, setup, signIn } from './lib.mjs';

const button = (page, name) => page.getByRole('button', { name, exact: true });

// becomes waits until a server that did not do it itself has been told: a second at most.
async function becomes(secret, decision) {
  let told;
  for (const end = Date.now() + 120_000; Date.now() < end;) {
    told = [await introspect(secret), await introspect(secret)].map((i) => i.decision);
    if (told.every((d) => d === decision)) return;
  }
  assert.fail(`both servers should say ${decision}, and say ${told}`);
}

await main({
  'the life of a token': async (open) => {
    const { page } = await open();
    await signIn(page, 'balanced');
    await page.getByRole('link', { name: 'New token' }).click();
    await page.getByLabel('Name', { exact: true }).fill('anywhere');
    await page.getByRole('checkbox', { name: 'deploy' }).check();
    await page.getByRole('checkbox', { name: 'reports.read' }).check();
    await button(page, 'Create token').click();
    const secret = await page.getByTestId('secret').innerText();
    for (let n = 0; n < 3; n++) { // the assets of a page go through the balancer too
      await page.reload();
      assert.equal(await page.getByTestId('secret').innerText(), secret);
    }
    await becomes(secret, 'ALLOW');
    await page.getByRole('link', { name: 'anywhere' }).click();
    await page.getByLabel('Grace period').selectOption('0s');
    await button(page, 'Rotate').click();
    const second = await page.getByTestId('secret').innerText();
    await becomes(second, 'ALLOW');
    await becomes(secret, 'SUPERSEDED');
    await page.getByRole('link', { name: 'anywhere' }).click();
    await page.getByRole('checkbox', { name: 'deploy' }).uncheck();
    await button(page, 'Save').click();
    await page.getByRole('status').filter({ hasText: 'Saved.' }).waitFor();
    await button(page, 'Revoke').click();
    await button(page, 'Revoke token').click();
    await page.getByRole('status').filter({ hasText: 'The token is revoked.' }).waitFor();
    await becomes(second, 'REVOKED');
    const cookies = await page.context().cookies(setup.patd);
    await button(page, 'Sign out').click();
    await page.locator('button[value="yes"]').click(); // at the provider, too
    await page.getByRole('heading', { name: 'You are signed out' }).waitFor();
    for (let n = 0; n < 3; n++) { // the cookie is no good at either
      await page.context().addCookies(cookies);
      await page.goto(at('/activity'));
      assert.ok(!page.url().startsWith(setup.patd), 'signed out at one, and signed in at the other');
    }
  },
  'a code for one of many': async (open) => {
    const racers = await Promise.all([0, 1, 2, 3].map(() => open()));
    const url = await handoff('raced');
    await Promise.all(racers.map(({ page }) => page.goto(url)));
    const won = await Promise.all(racers.map(({ page }) => page.locator('.who').count()));
    assert.equal(won.reduce((a, b) => a + b), 1);
  },
});
