// An outage of the provider, of the features, of the store: a page says so, nothing looks as if there were nothing, and
// what was typed is not lost.
import assert from 'node:assert/strict';

import { at, atProvider, handoff, main, mint, setup } from './lib.mjs';

const turn = (what, works) => fetch(`${setup.more.control}/${what}?works=${works}`, { method: 'POST' });
const button = (page, name) => page.getByRole('button', { name, exact: true });
const heading = (page, name) => page.getByRole('heading', { name, exact: true, level: 1 });

async function fill(page, name) {
  await page.goto(at('/new'));
  await page.getByLabel('Name', { exact: true }).fill(name);
  await page.getByLabel('Description').fill(`of ${name}`);
  await page.getByRole('checkbox', { name: 'deploy' }).check();
}

// again loads a page until it is no page of an outage any more.
async function again(page, wanted) {
  for (const end = Date.now() + 120_000; Date.now() < end;) {
    if (await wanted()) return;
    await new Promise((done) => { setTimeout(done, 200); });
    await page.reload();
  }
  assert.fail(`the outage does not end at ${page.url()}`);
}

await main({
  'outages': async (open) => {
    const { page } = await open();
    await page.goto(await handoff('outage'));
    await mint('outage', { name: 'there before', scopes: ['deploy'] });

    // The provider, in the middle of a form.
    await fill(page, 'during the first outage');
    const other = await open();
    await other.page.goto(await handoff('outage'));
    await other.page.goto(at('/activity'));
    await button(other.page, 'End all others').click();
    await other.page.getByRole('status').filter({ hasText: 'Ended.' }).waitFor();
    await button(page, 'Create token').click();
    await page.getByRole('alert').filter({ hasText: 'identity provider does not answer' }).waitFor();
    await turn('provider', true);
    await again(page, () => page.url().startsWith(setup.issuer));
    await atProvider(page, 'outage');
    await again(page, () => heading(page, 'New token').count()); // the other server asks a moment later
    assert.equal(await page.getByLabel('Name', { exact: true }).inputValue(), 'during the first outage');
    await button(page, 'Create token').click();
    await page.getByTestId('secret').waitFor();

    // The features.
    await fill(page, 'during the second outage');
    await turn('features', false);
    await button(page, 'Create token').click();
    await page.getByRole('alert').filter({ hasText: 'cannot be read now' }).waitFor();
    assert.equal(await page.getByLabel('Name', { exact: true }).inputValue(), 'during the second outage');
    assert.ok(await page.getByRole('checkbox', { name: 'deploy' }).isChecked());
    await other.page.goto(at('/new'));
    await other.page.getByRole('alert').filter({ hasText: 'cannot be read now' }).waitFor();
    assert.ok(!(await other.page.locator('main').innerText()).includes('You hold no features'), 'an outage looks like no features');
    await other.page.goto(at('/'));
    await other.page.getByRole('link', { name: 'there before' }).waitFor();
    await other.page.getByRole('alert').filter({ hasText: 'could not be read' }).waitFor();
    assert.equal(await other.page.locator('.suspended').count(), 0);
    await turn('features', true);
    await button(page, 'Create token').click();
    await page.getByTestId('secret').waitFor();

    // The store.
    await fill(page, 'during the third outage');
    await turn('store', false);
    for (const path of ['/', '/activity', '/new']) {
      await other.page.goto(at(path));
      await heading(other.page, 'Not available now').waitFor();
      assert.ok(!(await other.page.locator('main').innerText()).includes('You have none yet'), 'an outage looks like an empty list');
    }
    await button(page, 'Create token').click();
    await heading(page, 'Not available now').waitFor();
    await turn('store', true);
    await other.page.goto(at('/'));
    await again(other.page, () => other.page.getByRole('link', { name: 'there before' }).count());
    await button(page, 'Try again').click();
    await page.getByTestId('secret').waitFor();
    await page.goto(at('/'));
    for (const which of ['first', 'second', 'third']) await page.getByRole('link', { name: `during the ${which} outage` }).waitFor();
  },
});
