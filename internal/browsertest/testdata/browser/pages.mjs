// Every page that there is, as somebody comes to it. Each way is a case of its own, and yields the name of the page that
// is shown: add a page by a line here.
import { at, atProvider, call, handoff, hold, mint } from './lib.mjs';

// signIn signs in by hand-off: it is quicker than by the provider.
const signIn = async (page, user) => { await page.goto(await handoff(user)); };

const scopes = ['billing.invoices.read', 'deploy', 'figures.export', 'figures.read', 'figures.write'];
const many = Array.from({ length: 30 }, (_, n) => `area${n % 4}.feature${n}`);

// catalogue describes features and audiences, once for all cases. Those of other scripts are others: all share a server.
const catalogue = (async () => {
  await call('POST', '/v1/features', { name: 'figures.read', display_name: 'Read figures', description: 'All of them, of every year.', default: true });
  await call('POST', '/v1/features', { name: 'figures.write', display_name: 'Write figures', consent: 'REQUIRED' });
  await call('POST', '/v1/audiences', { id: 'https://reports.example.com', display_name: 'Reports', max_ttl: '2592000s' });
})();

async function* empty(page) {
  await page.goto(at('/signin'));
  yield 'signed-out';
  await page.goto(at('/handoff?code=used'));
  yield 'handoff-used';
  await hold('matrix-empty', []);
  await signIn(page, 'matrix-empty');
  yield 'tokens-empty';
  await page.goto(at('/?q=nothing'));
  yield 'tokens-none-found';
  await page.goto(at('/new'));
  yield 'new-without-features';
  await page.goto(at('/tokens/nothing'));
  yield 'not-found';
}

async function* list(page) {
  const user = 'matrix-list-of-a-user-whose-name-is-as-long-as-names-may-be@a-company-with-a-long-name.example.com';
  await hold(user, [...scopes, ...many]);
  for (let n = 0; n < 22; n++) {
    await mint(user, { name: n % 5 ? `token ${n}` : `a-token-${'with-a-long-name'.repeat(5)}${n}`, scopes: n % 3 ? scopes.slice(n % 4) : many, ttl: `${(n + 1) * 86400}s` });
  }
  await hold(user, scopes.slice(0, 3));
  await signIn(page, user);
  yield 'tokens';
  await page.getByRole('link', { name: 'Next', exact: true }).click();
  await page.getByRole('link', { name: 'First page' }).waitFor();
  yield 'tokens-next';
  await page.goto(at('/activity'));
  yield 'activity';
}

async function* form(page) {
  await catalogue;
  await hold('matrix-new', [...scopes, ...many]);
  await signIn(page, 'matrix-new');
  await page.goto(at('/new?name=CI&scopes=figures.read,figures.write,nothing.held&ttl=90d&networks=192.0.2.0/24'));
  yield 'new-filled-in';
  await page.goto(at('/new'));
  yield 'new';
  await page.getByLabel('Name', { exact: true }).fill('   ');
  await page.getByRole('checkbox', { name: 'Read figures' }).uncheck();
  await page.getByLabel('Networks').fill('everywhere');
  await page.getByLabel('Expiration').selectOption('custom');
  await page.getByLabel('Custom date').fill('2020-01-01');
  await page.locator('form[data-once]').evaluate((e) => { e.noValidate = true; });
  await page.getByRole('button', { name: 'Create token' }).click();
  await page.locator('.error').first().waitFor();
  yield 'new-with-errors';
}

async function* one(page) {
  await catalogue;
  const user = 'matrix-token';
  await hold(user, scopes);
  const made = await mint(user, {
    name: 'night build', description: 'Line one\nline two', scopes: [...scopes], audiences: ['https://reports.example.com'],
    allowed_cidrs: ['192.0.2.0/24', '2001:db8::/32'], labels: { team: 'build' }, ttl: '864000s',
  });
  await hold(user, scopes.slice(1));
  await signIn(page, user);
  const path = `/tokens/${made.token.token_id}`;
  await page.goto(at(path));
  yield 'token';
  await page.getByRole('button', { name: 'Rotate', exact: true }).click();
  await page.getByTestId('secret').waitFor();
  yield 'token-rotated';
  await page.goto(at(path));
  await page.getByRole('button', { name: 'Rotate', exact: true }).click();
  await page.getByRole('alert').waitFor();
  yield 'token-refused';
  await page.goto(at(path));
  await page.getByRole('button', { name: 'Revoke', exact: true }).click();
  await page.getByRole('dialog').waitFor();
  yield 'token-revoke-dialog';
  await page.getByRole('button', { name: 'Revoke token' }).click();
  await page.getByRole('status').waitFor();
  yield 'token-revoked';
}

async function* sessions(page) {
  await signIn(page, 'matrix-sessions');
  await page.context().clearCookies();
  await page.goto(at('/'));
  await atProvider(page, 'matrix-sessions');
  await page.goto(at('/activity'));
  yield 'activity-sessions';
}

// operator signs in as somebody of a group.
async function operator(page, group) {
  await page.goto(at('/admin'));
  await atProvider(page, `matrix@${group}`);
}

async function* people(page) {
  const user = 'matrix-user-of-operators-whose-name-is-as-long-as-names-may-be@example.com';
  await hold(user, [...scopes, ...many]);
  const made = await mint(user, { name: `a-token-${'with-a-long-name'.repeat(5)}`, scopes: many, labels: { team: 'build' }, ttl: '864000s' });
  for (let n = 0; n < 3; n++) await mint(user, { name: `token ${n}`, scopes: scopes.slice(n) });
  await operator(page, 'admins');
  yield 'admin';
  await page.goto(at('/admin/users?q=matrix'));
  yield 'admin-users';
  await page.goto(at(`/admin/users/-?id=${encodeURIComponent(user)}`));
  yield 'admin-user';
  await page.getByLabel('Number').first().fill('77');
  await page.getByRole('button', { name: 'Suspend user' }).click();
  await page.getByRole('alert').first().waitFor();
  yield 'admin-user-refused';
  await page.goto(at(`/admin/tokens?user=${encodeURIComponent(user)}`));
  yield 'admin-tokens';
  await page.goto(at(`/admin/tokens/${made.token.token_id}?revoke=1`));
  yield 'admin-token';
  await page.goto(at(`/admin/tokens/revoke?user=${encodeURIComponent(user)}`));
  yield 'admin-revoke';
  await page.goto(at('/admin/events?user=nobody-at-all'));
  yield 'admin-events-none';
  await page.goto(at(`/admin/events?user=${encodeURIComponent(user)}`));
  yield 'admin-events';
}

async function* catalogues(page) {
  await catalogue;
  await call('POST', '/v1/services', { name: 'matrix-gateway', permissions: ['introspect'] });
  await operator(page, 'admins');
  for (const path of ['services', 'services/new', 'services/matrix-gateway', 'audiences', 'audiences/new', 'audiences/-?id=https://reports.example.com',
    'features?q=figures', 'features/new', 'features/figures.read', 'keys', 'health']) {
    await page.goto(at(`/admin/${path}`));
    await page.getByRole('heading', { level: 1 }).waitFor();
    yield `admin-${path.replace(/[^a-z]+/g, '-')}`;
  }
  await page.goto(at('/admin/features/new'));
  await page.getByLabel('Name', { exact: true }).fill('with spaces');
  await page.getByRole('button', { name: 'Create feature' }).click();
  await page.getByRole('alert').first().waitFor();
  yield 'admin-features-refused';
}

async function* hooks(page) {
  await call('POST', '/v1/webhooks', { webhook_id: 'matrix-hook', url: `https://hooks.example.com/${'a-long-path'.repeat(12)}`, users: ['matrix'], labels: { team: 'build' }, enabled: false });
  await operator(page, 'admins');
  await page.goto(at('/admin/webhooks/matrix-hook'));
  await page.getByRole('button', { name: 'Enable', exact: true }).click();
  await page.getByRole('button', { name: 'Send a test' }).click();
  await page.getByRole('cell', { name: 'Send again' }).first().waitFor();
  await page.getByRole('button', { name: 'Rotate secret' }).click();
  await page.getByTestId('secret').waitFor();
  yield 'admin-webhook-secret';
  await page.goto(at('/admin/webhooks/new'));
  await page.getByLabel('Id', { exact: true }).fill('with spaces');
  await page.getByLabel('Address').fill('nowhere');
  await page.getByRole('button', { name: 'Create webhook' }).click();
  await page.getByRole('alert').first().waitFor();
  yield 'admin-webhooks-refused';
  for (const path of ['webhooks', 'webhooks/matrix-hook']) {
    await page.goto(at(`/admin/${path}`));
    await page.getByRole('heading', { level: 1 }).waitFor();
    yield `admin-${path.replace(/[^a-z]+/g, '-')}`;
  }
}

export const pages = { empty, list, form, one, sessions, people, catalogues, hooks };
