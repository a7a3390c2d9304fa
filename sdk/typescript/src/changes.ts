/** How many tokens and users each of two generations holds. */
const remembered = 1 << 15;

/**
 * Which tokens and users the watch reported, and at which position, so that older answers are recognized. Names are
 * kept as hashes: two that share one cost a request, never a wrong answer. Old changes are dropped, and the floor rises
 * instead: an answer below the floor cannot be judged, and is not kept.
 */
export class Changes {
  floor: number;
  #young = new Map<number, number>();
  #old = new Map<number, number>();
  #youngest = 0; // position of the newest change in young
  #oldest = 0; // the same in old
  readonly #seed = crypto.getRandomValues(new Uint32Array(2));

  constructor(floor = 0) {
    this.floor = floor;
  }

  /** Records a change of a token ("t") or a user ("u") at a position. */
  note(kind: "t" | "u", name: string, sequence: number): void {
    if (this.#young.size >= remembered) {
      this.floor = Math.max(this.floor, this.#oldest);
      this.#old = this.#young;
      this.#oldest = this.#youngest;
      this.#young = new Map();
      this.#youngest = 0;
    }
    const h = this.#hash(kind, name);
    this.#young.set(h, Math.max(this.#young.get(h) ?? 0, sequence));
    this.#youngest = Math.max(this.#youngest, sequence);
  }

  /** Reports whether a token or its user changed after a position. */
  after(sequence: number, token: string, user: string): boolean {
    for (const h of [this.#hash("t", token), this.#hash("u", user)]) {
      if ((this.#young.get(h) ?? 0) > sequence || (this.#old.get(h) ?? 0) > sequence) return true;
    }
    return false;
  }

  /** 53 bits of two multiplicative hashes. */
  #hash(kind: string, name: string): number {
    let a = (this.#seed[0] as number) ^ kind.charCodeAt(0);
    let b = this.#seed[1] as number;
    for (let i = 0; i < name.length; i++) {
      const c = name.charCodeAt(i);
      a = Math.imul(a ^ c, 2654435761);
      b = Math.imul(b ^ c, 1597334677);
    }
    a = Math.imul(a ^ (a >>> 16), 2246822507) ^ Math.imul(b ^ (b >>> 13), 3266489909);
    b = Math.imul(b ^ (b >>> 16), 2246822507) ^ Math.imul(a ^ (a >>> 13), 3266489909);
    return (b & 0x1fffff) * 0x100000000 + (a >>> 0);
  }
}
