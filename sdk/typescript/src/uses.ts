import { faultOf } from "./fault.js";
import type { Transport } from "./transport.js";

const usesPerCall = 1000;
/** A token whose programs need more scopes than this, or longer ones, counts as used in any. */
const maxScopes = 4;
const maxScope = 128;

/** The uses of an answer since they were last reported. */
export interface Usage {
  readonly tokenId: string;
  /** Of the last use, in milliseconds of the wall clock. */
  time: number;
  ip: string | undefined;
  scopes: string[];
  /** Some uses named no scope, or there were too many. */
  unscoped: boolean;
  /** It waits to be reported. */
  queued: boolean;
}

/** Collects the uses of tokens that passed from memory, and reports them. */
export class Uses {
  dropped = 0;
  #queue: Usage[] = [];
  #pending = new Map<string, Usage>(); // could not be reported yet, by token id
  #reporting: Promise<void> | undefined;

  constructor(
    readonly transport: Transport,
    readonly limit: number,
  ) {}

  /** Notes a use. Reports whether the queue is half full, and should be reported. */
  note(u: Usage, ip: string | undefined, scopes: readonly string[] | undefined, wall: number): boolean {
    if (!u.queued) {
      if (this.#queue.length >= this.limit) {
        this.dropped++;
        return true;
      }
      u.queued = true;
      u.scopes = [];
      u.unscoped = false;
      this.#queue.push(u);
    }
    u.time = wall;
    u.ip = ip;
    need(u, scopes);
    return this.#queue.length * 2 >= this.limit;
  }

  /** Reports all uses, one report at a time. Those that it cannot report stay for the next time. */
  report(timeout: number): Promise<void> {
    this.#reporting ??= this.#report(timeout).finally(() => (this.#reporting = undefined));
    return this.#reporting;
  }

  /** Whether a report runs. */
  get isReporting(): boolean {
    return this.#reporting !== undefined;
  }

  /** Waits for a report that runs, whatever its result. */
  async idle(): Promise<void> {
    await this.#reporting?.catch(() => {});
  }

  async #report(timeout: number): Promise<void> {
    this.#gather();
    const until = performance.now() + timeout;
    while (this.#pending.size > 0) {
      const batch = [...take(this.#pending.values(), usesPerCall)];
      const uses = batch.map((u) => ({
        token_id: u.tokenId,
        time: new Date(u.time).toISOString(),
        ...(u.ip && { client_ip: u.ip }),
        ...(u.scopes.length > 0 && { scopes: u.scopes }),
        ...(u.unscoped && { unscoped: true }),
      }));
      try {
        await this.transport.post("/v1/uses:report", { uses }, Math.max(1, until - performance.now()));
      } catch (err) {
        const fault = faultOf(err, "report uses");
        if (fault.kind !== "invalid") throw fault;
        this.dropped += batch.length; // patd will not take them another time either
      }
      for (const u of batch) this.#pending.delete(u.tokenId);
    }
  }

  /** Merges the queue into the pending uses: of each token, one. */
  #gather(): void {
    const queue = this.#queue;
    this.#queue = [];
    for (const u of queue) {
      u.queued = false;
      const latest: Usage = { ...u };
      const before = this.#pending.get(u.tokenId);
      if (before) {
        if (before.scopes.length > 0) need(latest, before.scopes);
        latest.unscoped ||= before.unscoped;
        if (before.time > latest.time) {
          latest.time = before.time;
          latest.ip = before.ip;
        }
      } else if (this.#pending.size >= this.limit) {
        this.dropped++;
        continue;
      }
      this.#pending.set(u.tokenId, latest);
    }
  }
}

function need(u: Usage, scopes: readonly string[] | undefined): void {
  if (scopes === undefined || scopes.length === 0) {
    u.unscoped = true;
    return;
  }
  for (const s of scopes) {
    if (u.scopes.includes(s)) continue;
    if (u.scopes.length >= maxScopes || s.length > maxScope) u.unscoped = true;
    else u.scopes.push(s);
  }
}

function* take<T>(all: Iterable<T>, n: number): Iterable<T> {
  for (const one of all) {
    if (n-- <= 0) return;
    yield one;
  }
}
