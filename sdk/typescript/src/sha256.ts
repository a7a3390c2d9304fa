// SHA-256 (FIPS 180-4), synchronous: Web Crypto has digests as promises only, each of which costs more than the whole
// check. It digests keys of memory, which never leave the process.

// The round constants: the first 32 bits of the fractions of the cube roots of the first 64 primes.
const K = new Int32Array(64);
const initial = new Int32Array(8); // the same of the square roots of the first 8
{
  const fraction = (x: number): number => ((x - Math.floor(x)) * 0x100000000) | 0;
  let n = 0;
  for (let p = 2; n < 64; p++) {
    let prime = true;
    for (let d = 2; d * d <= p; d++) if (p % d === 0) prime = false;
    if (!prime) continue;
    if (n < 8) initial[n] = fraction(Math.sqrt(p));
    K[n++] = fraction(Math.cbrt(p));
  }
}

const W = new Int32Array(64);

/**
 * Digests the first length bytes of a buffer into out, 8 words. The buffer must have room for the padding, up to 72
 * bytes after length, which it overwrites.
 */
export function sha256(buffer: Uint8Array, length: number, out: Int32Array): void {
  const blocks = ((length + 8) >>> 6) + 1;
  const end = blocks << 6;
  buffer.fill(0, length, end);
  buffer[length] = 0x80;
  const bits = length * 8; // fewer than 2^32
  for (let i = 0; i < 4; i++) buffer[end - 1 - i] = (bits >>> (8 * i)) & 0xff;
  out.set(initial);
  for (let at = 0; at < end; at += 64) block(buffer, at, out);
}

function block(b: Uint8Array, at: number, h: Int32Array): void {
  for (let i = 0; i < 16; i++, at += 4) {
    W[i] =
      ((b[at] as number) << 24) | ((b[at + 1] as number) << 16) | ((b[at + 2] as number) << 8) | (b[at + 3] as number);
  }
  for (let i = 16; i < 64; i++) {
    const x = W[i - 15] as number;
    const y = W[i - 2] as number;
    const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
    const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
    W[i] = ((W[i - 16] as number) + s0 + (W[i - 7] as number) + s1) | 0;
  }
  let a = h[0] as number;
  let c1 = h[1] as number;
  let c2 = h[2] as number;
  let d = h[3] as number;
  let e = h[4] as number;
  let f = h[5] as number;
  let g = h[6] as number;
  let hh = h[7] as number;
  for (let i = 0; i < 64; i++) {
    const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
    const t1 = (hh + s1 + ((e & f) ^ (~e & g)) + (K[i] as number) + (W[i] as number)) | 0;
    const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
    const t2 = (s0 + ((a & c1) ^ (a & c2) ^ (c1 & c2))) | 0;
    hh = g;
    g = f;
    f = e;
    e = (d + t1) | 0;
    d = c2;
    c2 = c1;
    c1 = a;
    a = (t1 + t2) | 0;
  }
  h[0] = ((h[0] as number) + a) | 0;
  h[1] = ((h[1] as number) + c1) | 0;
  h[2] = ((h[2] as number) + c2) | 0;
  h[3] = ((h[3] as number) + d) | 0;
  h[4] = ((h[4] as number) + e) | 0;
  h[5] = ((h[5] as number) + f) | 0;
  h[6] = ((h[6] as number) + g) | 0;
  h[7] = ((h[7] as number) + hh) | 0;
}
