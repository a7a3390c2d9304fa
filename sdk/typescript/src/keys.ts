import type { Address } from "./address.js";
import { Fault } from "./fault.js";
import { maxToken } from "./form.js";
import { sha256 } from "./sha256.js";

const secretLength = 16;
const maxAudience = 1024;

const encoder = new TextEncoder();

/**
 * Makes the keys of memory: keyed digests of all that an answer depends on. The secrets are random and never leave the
 * process: memory holds no token, and nobody can search for two tokens that share a key.
 */
export class Digester {
  readonly #buffer = new Uint8Array(secretLength + 2 + maxToken + maxAudience + 72);
  readonly #second = new Uint8Array(secretLength + 16 + 16 + 72);
  readonly #out = new Int32Array(8);
  #audience = "";
  #audienceBytes: Uint8Array = new Uint8Array(0);
  readonly #secrets = crypto.getRandomValues(new Uint8Array(2 * secretLength));

  /**
   * Returns the key of a token at an audience, for every address; null: the text is not ASCII, so it is no token. The
   * length stands before the token, so that no two requests have the same encoding.
   */
  key(token: string, audience: string): string | null {
    const b = this.#buffer;
    b.set(this.#secrets.subarray(0, secretLength));
    const end = encode(token, this.#bytesOf(audience), b, secretLength);
    if (end < 0) return null;
    sha256(b, end, this.#out);
    return this.#text();
  }

  /** Returns the key of an answer that is good for one address; null: for a client whose address is not known. */
  at(key: string, address: Address | null): string {
    const b = this.#second;
    b.set(this.#secrets.subarray(secretLength));
    let end = secretLength;
    for (let i = 0; i < 8; i++) {
      const unit = key.charCodeAt(i);
      b[end++] = unit >>> 8;
      b[end++] = unit & 0xff;
    }
    if (address) {
      b.set(address.bytes, end);
      end += 16;
    }
    sha256(b, end, this.#out);
    return this.#text();
  }

  #bytesOf(audience: string): Uint8Array {
    if (audience !== this.#audience) {
      this.#audienceBytes = audienceBytes(audience);
      this.#audience = audience;
    }
    return this.#audienceBytes;
  }

  /** The first 128 bits, as 8 units of text. */
  #text(): string {
    const [a = 0, b = 0, c = 0, d = 0] = this.#out;
    return String.fromCharCode(a >>> 16, a & 0xffff, b >>> 16, b & 0xffff, c >>> 16, c & 0xffff, d >>> 16, d & 0xffff);
  }
}

function audienceBytes(audience: string): Uint8Array {
  const bytes = encoder.encode(audience);
  if (bytes.length > maxAudience) throw new Fault("invalid", `an audience has at most ${maxAudience} bytes`);
  if (/[\uD800-\uDFFF]/u.test(audience)) throw new Fault("invalid", "an audience is Unicode text");
  return bytes;
}

/** Writes length, token and audience; returns where they end, or -1 if the token is not ASCII. */
function encode(token: string, audience: Uint8Array, into: Uint8Array, at: number): number {
  const n = token.length;
  into[at++] = n >>> 8;
  into[at++] = n & 0xff;
  for (let i = 0; i < n; i++) {
    const c = token.charCodeAt(i);
    if (c > 127) return -1;
    into[at++] = c;
  }
  into.set(audience, at);
  return at + audience.length;
}

/** Returns what a key is made of, before it is digested. For the conformance suite. */
export function keyMaterial(token: string, audience: string): Uint8Array {
  const bytes = audienceBytes(audience);
  const out = new Uint8Array(2 + token.length + bytes.length);
  encode(token, bytes, out, 0);
  return out;
}
