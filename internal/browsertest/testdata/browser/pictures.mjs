// The pictures of docs/page.md.
import { join } from 'node:path';

import { at, call, handoff, hold, introspect, main, mint, setup } from './lib.mjs';

const features = {
  'deploy.run': ['Deploy', 'Start a deployment to staging or production.'],
  'invoices.read': ['Read invoices', ''],
  'reports.read': ['Read reports', 'All reports, with their figures.'],
  'reports.write': ['Write reports', 'Make and change reports.'],
};

await main({
  pictures: async (open) => {
    const user = 'alice@example.com';
    for (const [name, [display_name, description]] of Object.entries(features)) {
      await call('POST', '/v1/features', { name, display_name, description, consent: name === 'reports.write' ? 'REQUIRED' : undefined });
    }
    await hold(user, Object.keys(features));
    await mint(user, { name: 'Spreadsheet add-in', scopes: ['reports.read', 'invoices.read'], ttl: '7776000s' });
    const used = await mint(user, { name: 'Nightly build', scopes: ['deploy.run'], ttl: '2592000s' });
    await mint(user, { name: 'Laptop', scopes: ['reports.read', 'reports.write', 'invoices.read'], ttl: '518400s' });
    const ended = await mint(user, { name: 'Old build server', scopes: ['deploy.run'], ttl: '2592000s' });
    await call('POST', `/v1/users/${user}/tokens/${ended.token.token_id}:revoke`, { reason: 'replaced' });
    await hold(user, Object.keys(features).filter((f) => f !== 'invoices.read'));
    await introspect(used.secret);

    const { page } = await open({ viewport: { width: 960, height: 600 } });
    const picture = async (name) => {
      await page.evaluate(([from, to]) => {
        for (const e of document.querySelectorAll('pre code')) e.textContent = e.textContent.replace(from, to);
      }, [setup.patd, 'https://patd.example.com']);
      const end = await page.locator('main > :last-child').evaluate((e) => e.getBoundingClientRect().bottom + scrollY);
      await page.screenshot({ path: join(setup.more.pictures, `${name}.png`), fullPage: true, clip: { x: 0, y: 0, width: 960, height: Math.min(end + 24, 1100) } });
    };
    await page.goto(await handoff(user));
    await picture('tokens');
    await page.goto(at('/new?name=Nightly+reports&scopes=reports.read'));
    await picture('new');
    await page.getByRole('button', { name: 'Create token' }).click();
    await page.getByTestId('secret').waitFor();
    await picture('made');
  },
});
