import * as client from 'openid-client';
import { brief } from './brief.mjs';
import { serve } from './gateway.mjs';

const config = await client.discovery(new URL(brief.issuer), brief.service.id, brief.service.secret, undefined, { algorithm: 'oauth2' });
config.timeout = 5; // seconds

serve((token, clientIP) => client.tokenIntrospection(config, token, { client_ip: clientIP }));
