// What both programs are told, on standard input: no secret stands in an argument or in the environment.
import { readFileSync } from 'node:fs';

export const brief = JSON.parse(readFileSync(0, 'utf8'));

export const exchange = 'urn:ietf:params:oauth:grant-type:token-exchange';
export const accessToken = 'urn:ietf:params:oauth:token-type:access_token';
