import * as oauth from 'oauth4webapi';
import { brief } from './brief.mjs';
import { serve } from './gateway.mjs';

const issuer = new URL(brief.issuer);
const as = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, { algorithm: 'oauth2' }));
const client = { client_id: brief.service.id };

serve(async (token, clientIP) =>
  oauth.processIntrospectionResponse(as, client, await oauth.introspectionRequest(
    as, client, oauth.ClientSecretBasic(brief.service.secret), token,
    { additionalParameters: { client_ip: clientIP }, signal: AbortSignal.timeout(5000) })));
