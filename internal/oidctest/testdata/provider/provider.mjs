// A real OpenID provider, oidc-provider, on a loopback port, for tests (package oidctest). It
// prints {"issuer": "http://127.0.0.1:<port>"} when it is ready, and ends when its standard input does.
//
//   node provider.mjs [PORT] [ADDRESSES]
//
// ADDRESSES, separated by commas, are the redirect addresses of a second client, "page". If there are any, whoever has a
// password signs in, by the name that he gives; "NAME@GROUP" has a group.
//
// Beside the provider's own endpoints there are two for tests:
//   POST /test/rotate  a new signing key takes the place of the old one, at once; the old one is published no longer
//   POST /test/sign    {"header": …, "claims": …} signed as they stand with the provider's current key
import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import { text } from 'node:stream/consumers';

import { SignJWT, importJWK } from 'jose';
import { Provider } from 'oidc-provider';

const resource = 'https://patd.example/api';
const server = createServer();
await new Promise((ready) => { server.listen(Number(process.argv[2] ?? 0), '127.0.0.1', ready); });
const issuer = `http://127.0.0.1:${server.address().port}`;
const addresses = (process.argv[3] ?? '').split(',').filter(Boolean);
const accounts = { alice: ['reports.read', 'billing.read'], bob: [], olga: [] };
const known = (id) => addresses.length > 0 || id in accounts;
const groups = { olga: ['patd-support'] };

let generation = 0;
let key;
let callback;

function rotate() {
  generation += 1;
  key = {
    ...generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' }),
    kid: `key-${generation}`, use: 'sig', alg: 'RS256',
  };
  callback = new Provider(issuer, {
    jwks: { keys: [key] },
    cookies: { keys: ['for tests only'] },
    clients: [{
      client_id: 'web',
      client_secret: 'a-secret-for-tests-only',
      grant_types: ['authorization_code', 'client_credentials'],
      redirect_uris: ['http://127.0.0.1/callback'],
      response_types: ['code'],
    }, {
      client_id: 'cli', // as which people sign in with `patd login`
      application_type: 'native',
      token_endpoint_auth_method: 'none',
      grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
      redirect_uris: ['http://127.0.0.1/callback'],
      response_types: ['code'],
    }, ...addresses.length === 0 ? [] : [{
      client_id: 'page',
      client_secret: 'a-secret-for-tests-only',
      grant_types: ['authorization_code'],
      redirect_uris: addresses,
      post_logout_redirect_uris: addresses,
      response_types: ['code'],
    }]],
    pkce: { required: () => false },
    claims: { openid: addresses.length > 0 ? ['sub', 'groups'] : ['sub'] },
    findAccount: (ctx, id) => (known(id) ? { accountId: id, claims: () => ({ sub: id, groups: id.split('@').slice(1) }) } : undefined),
    extraTokenClaims: (ctx, token) => (token.accountId
      ? { features: accounts[token.accountId], groups: groups[token.accountId] } : undefined),
    features: {
      deviceFlow: { enabled: true },
      revocation: { enabled: true },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => resource,
        useGrantedResource: () => true,
        getResourceServerInfo: (ctx, indicator) => ({
          scope: 'openid tokens', audience: indicator, accessTokenFormat: 'jwt', accessTokenTTL: 3600,
        }),
      },
    },
  }).callback();
}

async function extra(request, response) {
  if (request.url === '/test/rotate') {
    rotate();
    response.end('{}');
    return;
  }
  const { header, claims } = JSON.parse(await text(request));
  const signer = new SignJWT(claims).setProtectedHeader({ alg: 'RS256', kid: key.kid, ...header });
  response.end(await signer.sign(await importJWK(key, 'RS256')));
}

rotate();
server.on('request', (request, response) => {
  if (request.method === 'POST' && request.url.startsWith('/test/')) {
    extra(request, response).catch((error) => { response.statusCode = 500; response.end(String(error)); });
    return;
  }
  callback(request, response);
});
process.stdin.on('end', () => process.exit(0)).resume();
process.stdout.write(`${JSON.stringify({ issuer })}\n`);
