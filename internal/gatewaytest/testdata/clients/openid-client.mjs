// Drives patd with openid-client as its documentation says, and ends with 1 when something is not as it should be.
import assert from 'node:assert/strict';
import * as client from 'openid-client';
import { accessToken, brief, exchange } from './brief.mjs';

const discover = (id, metadata, auth) => client.discovery(new URL(brief.issuer), id, metadata, auth, { algorithm: 'oauth2' });
const gateway = await discover(brief.service.id, brief.service.secret, client.ClientSecretBasic());
const posting = await discover(brief.service.id, brief.service.secret, client.ClientSecretPost());
const wrong = await discover(brief.service.id, 'wrong');
const app = await discover('my-app', undefined, client.None());
const introspect = (token, config = gateway) => client.tokenIntrospection(config, token);

if (brief.out) {
  await assert.rejects(introspect(brief.pat));
  await assert.rejects(client.tokenRevocation(gateway, brief.pat));
  process.exit(0);
}

const granted = (parameters) =>
  client.genericGrantRequest(app, exchange, { subject_token: brief.pat, subject_token_type: accessToken, ...parameters });
const refused = (promise, error) => assert.rejects(promise, (e) => (assert.equal(e.error, error), true));

for (const config of [gateway, posting]) {
  const pat = await introspect(brief.pat, config);
  assert.equal(pat.active, true);
  assert.equal(pat.sub, brief.user);
  assert.equal(pat.iss, brief.issuer);
}
assert.deepEqual(await introspect('garbage'), { active: false });
await assert.rejects(introspect(brief.pat, wrong));

const first = await granted({ audience: brief.audience, scope: 'reports.read offline_access' });
assert.ok(first.expiresIn() > 0);
const seen = await introspect(first.access_token);
assert.equal(seen.active, true);
assert.equal(seen.client_id, 'my-app');
assert.equal(seen.scope, 'reports.read');
await refused(granted({ scope: 'nobody.has.this' }), 'invalid_scope');
await refused(granted({ audience: 'nobody' }), 'invalid_target');

const second = await client.refreshTokenGrant(app, first.refresh_token);
assert.equal((await introspect(second.access_token)).active, true);
await refused(client.refreshTokenGrant(app, first.refresh_token), 'invalid_grant');
assert.deepEqual(await introspect(second.access_token), { active: false });

const third = await granted({ audience: brief.audience });
await client.tokenRevocation(app, third.access_token);
assert.deepEqual(await introspect(third.access_token), { active: false });
await client.tokenRevocation(gateway, brief.pat);
assert.deepEqual(await introspect(brief.pat), { active: false });
await refused(granted({}), 'invalid_request');
