/** The longest text that can be a token, in bytes. */
export const maxToken = 256;

const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const pattern = /^[a-z][a-z0-9]{1,15}_[0-9A-Za-z]{11}_[0-9A-Za-z]{49}$/;

// The digits stand in the order of their codes, so that numbers of one length compare as texts do.
const zeroId = "00000000000";
const largestId = "LygHa16AHYF"; // 2^64 - 1
const largestSecret = "yhjskwdA6OZ1AL1YmHWZWm8LLG7HjnuCA2j5rOw8Xp1"; // 2^256 - 1

const table = new Uint32Array(256);
for (let i = 0; i < 256; i++) {
  let c = i;
  for (let bit = 0; bit < 8; bit++) c = c & 1 ? (c >>> 1) ^ 0xedb88320 : c >>> 1;
  table[i] = c;
}

/** Returns the CRC-32 (IEEE) of an ASCII text, as 6 base62 digits. */
export function checksum(text: string): string {
  let c = 0xffffffff;
  for (let i = 0; i < text.length; i++) c = (table[(c ^ text.charCodeAt(i)) & 0xff] as number) ^ (c >>> 8);
  let n = (c ^ 0xffffffff) >>> 0;
  let out = "";
  for (let i = 0; i < 6; i++) {
    out = (digits[n % 62] as string) + out;
    n = Math.floor(n / 62);
  }
  return out;
}

/**
 * Reports whether a text has the form of a token that may be introspected, checksum included. Any prefix but those of
 * service and refresh tokens is good: patd decides which ones it uses.
 */
export function isPlausible(text: string): boolean {
  if (!pattern.test(text)) return false;
  const end = text.length;
  const prefix = text.slice(0, end - 62);
  if (prefix === "pats" || prefix === "patr") return false;
  const id = text.slice(end - 61, end - 50);
  const secret = text.slice(end - 49, end - 6);
  if (id === zeroId || id > largestId || secret > largestSecret) return false;
  return checksum(text.slice(0, end - 6)) === text.slice(end - 6);
}

/** Returns a new token text of random bits, for tests. Nothing else knows it. */
export function randomToken(prefix = "pat"): { text: string; id: string } {
  const random = (n: number, max: string): string => {
    const bytes = crypto.getRandomValues(new Uint8Array(n));
    let out = "";
    for (const b of bytes) out += digits[b % 62];
    return out > max ? "0" + out.slice(1) : out;
  };
  const id = "1" + random(10, "zzzzzzzzzz");
  const body = `${prefix}_${id}_${random(43, largestSecret)}`;
  return { text: body + checksum(body), id };
}
