import type { Entry } from "./entry.js";

/** A map of entries, bounded in number and bytes. What was not used lately makes room (second chance). */
export class Table {
  #byKey = new Map<string, Entry>();
  #ring: Entry[] = []; // all of byKey, in the order of the clock
  #hand = 0;
  #bytes = 0;
  hits = 0;

  constructor(
    readonly maxEntries: number,
    readonly maxBytes: number,
    /** Is called with each entry that leaves. */
    readonly left: (e: Entry) => void,
  ) {}

  get size(): number {
    return this.#ring.length;
  }

  get(key: string): Entry | undefined {
    return this.#byKey.get(key);
  }

  /** Adds an entry, unless it is too large. */
  put(e: Entry): boolean {
    if (e.bytes > this.maxBytes || this.maxEntries < 1) return false;
    const old = this.#byKey.get(e.key);
    if (old) this.remove(old);
    while (this.#ring.length > 0 && (this.#ring.length >= this.maxEntries || this.#bytes + e.bytes > this.maxBytes)) {
      this.remove(this.#victim());
    }
    e.slot = this.#ring.length;
    this.#ring.push(e);
    this.#byKey.set(e.key, e);
    this.#bytes += e.bytes;
    return true;
  }

  /** Takes an entry of the table out; the last of the ring takes its place. */
  remove(e: Entry): void {
    const last = this.#ring.pop() as Entry;
    if (last !== e) {
      this.#ring[e.slot] = last;
      last.slot = e.slot;
    }
    if (this.#hand >= this.#ring.length) this.#hand = 0;
    this.#byKey.delete(e.key);
    this.#bytes -= e.bytes;
    this.left(e);
  }

  /** Advances the hand of the clock to an entry that is void, or was not used since the hand last passed. */
  #victim(): Entry {
    for (;;) {
      const e = this.#ring[this.#hand] as Entry;
      this.#hand = (this.#hand + 1) % this.#ring.length;
      if (e.isVoid || !e.recent) return e;
      e.recent = false;
    }
  }

  clear(): void {
    this.#byKey = new Map();
    this.#ring = [];
    this.#hand = this.#bytes = 0;
  }
}
