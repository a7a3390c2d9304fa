// Drives patd with oauth4webapi as its documentation says, and ends with 1 when something is not as it should be.
import assert from 'node:assert/strict';
import * as oauth from 'oauth4webapi';
import { accessToken, brief, exchange } from './brief.mjs';

const issuer = new URL(brief.issuer);
const as = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, { algorithm: 'oauth2' }));
assert.equal(as.issuer, brief.issuer);

const gateway = { client_id: brief.service.id };
const basic = oauth.ClientSecretBasic(brief.service.secret);
const app = { client_id: 'my-app' };

const introspect = async (token, auth = basic) =>
  oauth.processIntrospectionResponse(as, gateway, await oauth.introspectionRequest(as, gateway, auth, token));

// An outage is an error, never an answer about a token.
if (brief.out) {
  await assert.rejects(introspect(brief.pat));
  await assert.rejects(oauth.revocationRequest(as, gateway, basic, brief.pat).then(oauth.processRevocationResponse));
  process.exit(0);
}

const granted = async (parameters) =>
  oauth.processGenericTokenEndpointResponse(as, app, await oauth.genericTokenEndpointRequest(as, app, oauth.None(), exchange, {
    subject_token: brief.pat, subject_token_type: accessToken, ...parameters,
  }));
const refreshed = async (token) =>
  oauth.processRefreshTokenResponse(as, app, await oauth.refreshTokenGrantRequest(as, app, oauth.None(), token));
const refused = (promise, error) => assert.rejects(promise, (e) => (assert.equal(e.error, error), true));

// Introspection, by each way in which a client may authenticate itself.
for (const auth of [basic, oauth.ClientSecretPost(brief.service.secret)]) {
  const pat = await introspect(brief.pat, auth);
  assert.equal(pat.active, true);
  assert.equal(pat.sub, brief.user);
  assert.equal(pat.iss, brief.issuer);
  assert.equal(pat.token_type, 'Bearer');
  assert.deepEqual(pat.scope.split(' ').sort(), ['billing.write', 'reports.read']);
  assert.ok(pat.exp > Date.now() / 1000);
}
assert.deepEqual(await introspect('garbage'), { active: false });
await assert.rejects(introspect(brief.pat, oauth.ClientSecretBasic('wrong')), (e) => (assert.equal(e.status, 401), true));

// Exchange for an opaque access token of the client's own, which is narrower.
const first = await granted({ audience: brief.audience, scope: 'reports.read offline_access' });
assert.equal(first.issued_token_type, accessToken);
assert.ok(first.expires_in > 0);
assert.ok(first.refresh_token);
const seen = await introspect(first.access_token);
assert.equal(seen.active, true);
assert.equal(seen.client_id, 'my-app');
assert.equal(seen.aud, brief.audience);
assert.equal(seen.scope, 'reports.read');
await refused(granted({ scope: 'nobody.has.this' }), 'invalid_scope');
await refused(granted({ audience: 'nobody' }), 'invalid_target');
await refused(granted({ subject_token: 'garbage' }), 'invalid_request');

// Exchange for a JWT, which is validated by the published keys alone (RFC 9068 section 4).
const jwt = await granted({ resource: brief.jwtResource, scope: 'reports.read' });
const presented = new Request('https://api.example/', { headers: { authorization: `Bearer ${jwt.access_token}` } });
const claims = await oauth.validateJwtAccessToken(as, presented, brief.jwtAudience);
assert.equal(claims.sub, brief.user);
assert.equal(claims.client_id, 'my-app');
assert.equal(claims.scope, 'reports.read');

// A refresh token works once. Used again, it ends what came of it.
const second = await refreshed(first.refresh_token);
assert.notEqual(second.refresh_token, first.refresh_token);
assert.equal((await introspect(second.access_token)).active, true);
await refused(refreshed(first.refresh_token), 'invalid_grant');
await refused(refreshed(second.refresh_token), 'invalid_grant');
assert.deepEqual(await introspect(second.access_token), { active: false });

// Revocation, by possession alone and by an authenticated client; of what is unknown, it succeeds.
const third = await granted({ audience: brief.audience });
await oauth.processRevocationResponse(await oauth.revocationRequest(as, app, oauth.None(), third.access_token));
assert.deepEqual(await introspect(third.access_token), { active: false });
await oauth.processRevocationResponse(await oauth.revocationRequest(as, gateway, basic, 'garbage'));
const last = await granted({ audience: brief.audience });
await oauth.processRevocationResponse(await oauth.revocationRequest(as, gateway, basic, brief.pat));
assert.deepEqual(await introspect(brief.pat), { active: false });
assert.deepEqual(await introspect(last.access_token), { active: false });
await refused(granted({}), 'invalid_request');
