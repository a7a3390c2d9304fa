import { parseAddress, type Address } from "./address.js";
import { readAnswer } from "./answer.js";
import { refused, type Call, type Checker, type Result } from "./decision.js";
import type { Entry } from "./entry.js";
import { Fault, faultOf } from "./fault.js";
import { isPlausible, maxToken } from "./form.js";
import { Digester } from "./keys.js";
import { Memory } from "./memory.js";
import { Slots } from "./slots.js";
import { closed, Transport, type TransportConfig } from "./transport.js";
import { Uses, type Usage } from "./uses.js";
import { Watcher, type Log } from "./watch.js";

/** Configures a {@link Verifier}. Times are in milliseconds. */
export interface VerifierConfig extends TransportConfig {
  /** The API of the program, for a call that names none. Empty: audiences are not checked. */
  readonly audience?: string | undefined;
  /** How many answers are kept. 100 000. */
  readonly maxEntries?: number | undefined;
  /** Bounds the bytes of memory for answers, by an estimate from above. 64 MiB. */
  readonly maxBytes?: number | undefined;
  /** How long an answer is used at most. A minute. */
  readonly maxAge?: number | undefined;
  /** How many requests may be under way at a time; further ones wait. 512. */
  readonly maxInFlight?: number | undefined;
  /** Bounds one request. 5 seconds. */
  readonly timeout?: number | undefined;
  /** How often uses that were decided from memory are reported. 10 seconds. 0: never, not even by close. */
  readonly reportEvery?: number | undefined;
  /** Is called when the watch breaks. It is never given a token. */
  readonly log?: Log | undefined;
  /** The wall clock, in milliseconds. Date.now. */
  readonly now?: (() => number) | undefined;
}

/** The counters of a {@link Verifier}. */
export interface Stats {
  /** How many answers are kept. */
  readonly entries: number;
  /** How many checks were decided from memory. */
  readonly hits: number;
  /** How many requests were sent to patd about tokens. */
  readonly asked: number;
  /** How many uses will not be reported, for lack of room. */
  readonly droppedUses: number;
  /** Whether memory may be used at this moment. */
  readonly watching: boolean;
  /** When the service token of this program expires; absent: never, or no watch has begun yet. */
  readonly serviceTokenExpireTime?: Date;
}

/** What a request brought. */
interface Reply {
  readonly entry: Entry;
  /** It is known to be from before a change. */
  readonly outdated: boolean;
  /** It is for the check that asked, and for no other. */
  readonly once: boolean;
}

/** A request under way. */
interface Flight {
  /** Its place in the order of all checks and requests. */
  readonly begun: number;
  readonly reply: Promise<Reply>;
}

/** Bounds the last report of uses. */
const closingReport = 5000;
const usesShare = 8;
const useBytes = 1 << 10;

/**
 * Decides about tokens by asking patd, and from memory while it receives every change. One serves a whole program. It
 * does not wait for patd: until the first event of the watch, every check asks.
 */
export class Verifier implements Checker {
  readonly #audience: string;
  readonly #maxAge: number;
  readonly #timeout: number;
  readonly #reports: boolean;
  readonly #now: () => number;
  readonly #transport: Transport;
  readonly #memory: Memory;
  readonly #watcher: Watcher;
  readonly #uses: Uses;
  readonly #digests = new Digester();
  readonly #slots: Slots;
  readonly #flights = new Map<string, Flight>();
  readonly #stop = new AbortController();
  readonly #watching: Promise<void>;
  readonly #timer: ReturnType<typeof setInterval> | undefined;
  #asked = 0;
  #order = 0;
  #closed: Promise<void> | undefined;

  constructor(config: VerifierConfig) {
    this.#audience = config.audience ?? "";
    this.#maxAge = positive(config.maxAge, 60_000);
    this.#timeout = positive(config.timeout, 5_000);
    this.#now = config.now ?? Date.now;
    const maxEntries = positive(config.maxEntries, 100_000);
    const maxBytes = positive(config.maxBytes, 64 << 20);
    this.#transport = new Transport(config);
    this.#memory = new Memory(maxEntries, maxBytes - maxBytes / usesShare);
    this.#uses = new Uses(
      this.#transport,
      Math.max(1, Math.floor(Math.min(maxEntries, maxBytes / usesShare / useBytes))),
    );
    this.#slots = new Slots(positive(config.maxInFlight, 512));
    this.#digests.key("", this.#audience); // it must be an audience
    this.#watcher = new Watcher(this.#transport, this.#memory, this.#now, quietly(config.log));
    this.#watching = this.#watcher.run(this.#stop.signal);
    const every = config.reportEvery ?? 10_000;
    this.#reports = every > 0;
    if (this.#reports) this.#timer = setInterval(() => this.#report(), every);
  }

  /**
   * Decides about a token, exactly as the client sent it. Text without the form of a token is not found without a
   * request. An answer in memory without a change since decides at once. Anything else is asked; if that fails, so does
   * the check, with a {@link Fault}, whatever was in memory before.
   */
  async verify(token: string, call: Call = {}): Promise<Result> {
    if (this.#closed) throw closed();
    if (typeof token !== "string") throw new Fault("invalid", "a token is text");
    if (token.length > maxToken) return refused("NOT_FOUND");
    const address = readAddress(call.clientIp);
    const audience = call.audience || this.#audience;
    const everywhere = this.#digests.key(token, audience);
    if (everywhere === null) return refused("NOT_FOUND");
    const mono = performance.now();
    const wall = this.#now();
    let entry = this.#memory.recall(everywhere, mono, wall);
    if (entry) return this.#let(entry, call, address, wall);
    const here = this.#digests.at(everywhere, address);
    entry = this.#memory.recall(here, mono, wall);
    if (entry) return this.#let(entry, call, address, wall);
    if (!isPlausible(token)) return refused("NOT_FOUND");
    return this.#ask(everywhere, here, token, { ...call, audience }, address);
  }

  /** Decides from memory, and notes a use if the token passes. */
  #let(entry: Entry, call: Call, address: Address | null, wall: number): Result {
    const out = entry.result(call.scopes);
    if (out.allowed && this.#reports && this.#uses.note(entry.usage as Usage, address?.text, call.scopes, wall)) {
      this.#report();
    }
    return out;
  }

  /**
   * Asks patd, or waits for the answer to another check's request. An answer counts if it was asked for after this
   * check began, or if memory may use it; otherwise the next one does. So a check never rests on an answer from before
   * it, unless the watch confirms it.
   */
  async #ask(everywhere: string, here: string, token: string, call: Call, address: Address | null): Promise<Result> {
    const began = ++this.#order;
    for (let again = true; ;) {
      let flight = this.#flights.get(here);
      let mine = false;
      if (!flight) {
        await this.#slots.take(this.#timeout, call.signal);
        if (this.#closed) {
          this.#slots.give();
          throw closed();
        }
        flight = this.#flights.get(here);
        if (flight) {
          this.#slots.give();
        } else {
          mine = true;
          const begun = ++this.#order;
          const reply = this.#fly(everywhere, here, token, call, address).finally(() => {
            this.#slots.give();
            this.#flights.delete(here);
          });
          reply.catch(() => {}); // all that wait may have given up
          this.#flights.set(here, (flight = { begun, reply }));
        }
      }
      const r = await waitFor(flight.reply, call.signal);
      if (this.#closed) throw closed();
      const wall = this.#now();
      if (r.outdated && again) {
        again = false; // once: a replica that lags behind would make this a loop
        continue;
      }
      if (!mine && r.once) continue; // patd is to be asked about this use: it is the first of a new secret
      if (!mine && flight.begun < began && !this.#memory.usable(r.entry, performance.now(), wall)) continue;
      return mine ? r.entry.result(call.scopes) : this.#let(r.entry, call, address, wall); // patd has counted mine
    }
  }

  /** Sends one request on behalf of all waiting checks, so that it does not end when one of them gives up. */
  async #fly(everywhere: string, here: string, token: string, call: Call, address: Address | null): Promise<Reply> {
    const sent = performance.now();
    this.#asked++;
    const epoch = this.#memory.epoch;
    const request = {
      token,
      ...(call.audience && { audience: call.audience }),
      // The required scopes go along so that patd counts the use if, and only if, the token passes.
      ...(call.scopes && call.scopes.length > 0 && { required_scopes: [...call.scopes] }),
      ...(address && { client_ip: address.text }),
    };
    try {
      const answer = readAnswer(
        await this.#transport.post("/v1/introspect", request, this.#timeout),
        sent,
        this.#maxAge,
      );
      answer.entry.key = answer.everywhere ? everywhere : here;
      const outdated = this.#memory.keep(answer.entry, epoch, answer.sequence);
      if (!outdated) this.#memory.replaced([everywhere, here], answer.entry);
      return {
        entry: answer.entry,
        outdated,
        once: answer.entry.token !== undefined && answer.sequence === 0,
      };
    } catch (err) {
      throw faultOf(err, "ask patd");
    }
  }

  #report(): void {
    if (this.#closed || this.#uses.isReporting) return;
    this.#uses.report(this.#timeout).catch(() => {}); // uses that failed are reported next time
  }

  /** Returns the counters, for the program's metrics. */
  stats(): Stats {
    const { answers, refusals } = this.#memory;
    const expires = this.#watcher.tokenExpireTime;
    return {
      entries: answers.size + refusals.size,
      hits: answers.hits + refusals.hits,
      asked: this.#asked,
      droppedUses: this.#uses.dropped,
      watching: !this.#closed && this.#memory.isOpen(performance.now(), this.#now()),
      ...(expires && { serviceTokenExpireTime: expires }),
    };
  }

  /**
   * Ends all work in the background and reports the last uses, within 5 seconds. Checks that wait for an answer fail. A
   * rejection means that the last uses were not reported, and nothing else. Later calls resolve when the first is done.
   */
  close(): Promise<void> {
    if (this.#closed) return this.#closed.catch(() => {});
    this.#closed = this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    await Promise.resolve(); // closed is set
    clearInterval(this.#timer);
    this.#stop.abort();
    this.#memory.distrust();
    this.#slots.close();
    this.#transport.close();
    await Promise.all([
      this.#watching,
      this.#uses.idle(),
      ...[...this.#flights.values()].map((f) => f.reply.catch(() => {})),
    ]);
    if (!this.#reports) return;
    this.#transport.reopen();
    await this.#uses.report(closingReport).finally(() => this.#transport.close());
  }
}

function readAddress(text: string | undefined): Address | null {
  if (text === undefined || text === "") return null;
  const address = parseAddress(text);
  if (!address) throw new Fault("invalid", "the address of the client is no IP address");
  return address;
}

function positive(value: number | undefined, or: number): number {
  return value !== undefined && value > 0 ? value : or;
}

/** Returns a log that breaks nothing if it throws. */
function quietly(log: Log | undefined): Log {
  return (message, detail) => {
    try {
      log?.(message, detail);
    } catch {
      // the watch goes on
    }
  };
}

/** Waits for a promise, until the signal at most. */
function waitFor<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return promise;
  return new Promise((resolve, reject) => {
    const abort = () => reject(new Fault("aborted", "the caller gave up", { cause: signal.reason }));
    if (signal.aborted) return abort();
    signal.addEventListener("abort", abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}
