// A token that was paused, since it was not used, is resumed by its owner.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';

import { at, call, handoff, hold, introspect, main, mint } from './lib.mjs';

const axe = readFileSync(new URL('node_modules/axe-core/axe.min.js', import.meta.url), 'utf8');
const shown = (token) => call('GET', `/v1/users/owner/tokens/${token}`);

main({
  'the owner resumes it': async (open) => {
    await hold('owner', ['a']);
    const { token, secret } = await mint('owner', { name: 'laptop', scopes: ['a'] });
    while (!(await shown(token.token_id)).token.idle_time) await new Promise((done) => { setTimeout(done, 100); });
    assert.equal((await introspect(secret)).decision, 'TOKEN_IDLE');
    const { page } = await open();
    await page.goto(await handoff('owner'));
    await page.goto(at(`/tokens/${token.token_id}`));
    await page.getByRole('heading', { name: 'Paused', exact: true }).waitFor();
    await page.evaluate(axe);
    assert.deepEqual(await page.evaluate(async () => (await axe.run()).violations.map((v) => v.id)), [], 'what axe-core finds on the page of a paused token');
    const button = page.getByRole('button', { name: 'Resume the token', exact: true });
    await button.focus();
    await page.keyboard.press('Enter');
    await page.getByRole('status').filter({ hasText: 'The token works again.' }).waitFor();
    assert.equal(await button.count(), 0, 'there is nothing left to resume');
    assert.equal((await introspect(secret)).decision, 'ALLOW');
    assert.equal((await shown(token.token_id)).token.idle_time ?? null, null);
  },
});
