import { Acknowledger } from "./acknowledge.js";
import { position, record, texts } from "./answer.js";
import { readEvents, type ServerEvent } from "./events.js";
import { Fault } from "./fault.js";
import { silence, type Memory, type News } from "./memory.js";
import type { Transport } from "./transport.js";

// All in milliseconds.
const heartbeat = 1250; // the longest time between two events, with some room for a late timer
const settling = 1000; // how long after a watch was resumed its events may still be missed ones
const turnAfter = 250; // events, tokens and users; then other work of the program has its turn
const firstPause = 50;
const longPause = 2000;
const hopelessPause = 15000; // for errors that only a change of the server or of its rights resolves

/** Is called when the watch breaks and when it is back. */
export type Log = (message: string, detail?: Record<string, unknown>) => void;

/** Follows the change feed and updates memory. */
export class Watcher {
  /** When the service token expires, as of the latest watch. */
  tokenExpireTime: Date | undefined;
  #sequence = 0; // where to resume: the last event's position and history
  #history = "";
  readonly #acks: Acknowledger;

  constructor(
    readonly transport: Transport,
    readonly memory: Memory,
    readonly now: () => number,
    readonly log: Log,
  ) {
    this.#acks = new Acknowledger(transport);
  }

  /** Watches until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    await this.#follow(signal);
    await this.#acks.idle();
  }

  async #follow(signal: AbortSignal): Promise<void> {
    let tries = 0;
    while (!signal.aborted) {
      const began = performance.now();
      let end: unknown;
      try {
        end = await this.#watch(signal);
      } catch (err) {
        end = err;
      }
      if (signal.aborted) return;
      const renewed = end === renewal;
      if (renewed || performance.now() - began > longPause) tries = 0;
      if (!renewed && tries === 0) this.log("the watch of patd broke; watching again", { error: String(end) });
      let pause = Math.min(longPause, firstPause * 2 ** Math.min(tries, 10));
      if (end instanceof Refused) pause = hopelessPause;
      if (renewed) pause = firstPause;
      tries++;
      await sleep(pause * (0.5 + Math.random()), signal);
    }
  }

  /** Follows one stream until it ends, breaks or falls silent. Returns renewal if the server renews its connection. */
  async #watch(signal: AbortSignal): Promise<typeof renewal> {
    const controller = new AbortController();
    const stop = () => controller.abort();
    signal.addEventListener("abort", stop, { once: true });
    // A silent stream is abandoned: its pipe may hold back old events.
    let alarm = setTimeout(stop, silence);
    try {
      const pace = new Pace({ mono: performance.now(), wall: this.now() });
      const from = this.#sequence;
      const path = from === 0 ? "" : `?after=${from}&history=${encodeURIComponent(this.#history)}`;
      const response = await this.#open(path, controller.signal);
      let watchId = ""; // of its first event; empty: an older patd
      let work = 0;
      for await (const event of readEvents(response.body as ReadableStream<Uint8Array>)) {
        clearTimeout(alarm);
        alarm = setTimeout(stop, silence);
        if (controller.signal.aborted) break;
        if (event.type === "end") return endOf(event);
        const { news, history, elapsed, more, ...its } = readNews(event);
        if (pace.isFirst) watchId = its.watchId;
        const startOver = news.startOver || (from === 0 && pace.isFirst);
        if (pace.isFirst && !startOver) this.memory.resumed(from);
        this.memory.apply({ ...news, startOver });
        this.#sequence = news.sequence;
        this.#history = history;
        if (its.acknowledge && watchId !== "") this.#acks.applied(watchId, news.sequence);
        const quiet = news.tokenIds.length + news.users.length === 0;
        const known = pace.event({ mono: performance.now(), wall: this.now() }, elapsed, quiet, startOver);
        if (pace.behind > silence / 2) throw new Fault("unavailable", "the watch lags");
        if (known && !more) this.memory.known(known.mono, known.wall);
        work += 1 + news.tokenIds.length + news.users.length;
        if (work >= turnAfter) {
          work = 0;
          await sleep(0, controller.signal); // a burst would hold up the event loop
        }
      }
      throw new Fault("unavailable", controller.signal.aborted ? "the watch was silent" : "the watch ended");
    } finally {
      clearTimeout(alarm);
      signal.removeEventListener("abort", stop);
      controller.abort();
    }
  }

  async #open(path: string, signal: AbortSignal): Promise<Response> {
    let response: Response;
    try {
      response = await this.transport.stream("/v1/invalidations" + path, signal);
    } catch (err) {
      if (err instanceof Fault && (err.kind === "forbidden" || err.message.endsWith(" 404")))
        throw new Refused(err.message);
      if (err instanceof Fault && err.kind === "invalid") this.#sequence = 0; // the server does not know the position
      throw err;
    }
    const expires = Date.parse(response.headers.get("patd-token-expires-at") ?? "");
    this.tokenExpireTime = Number.isNaN(expires) ? undefined : new Date(expires);
    return response;
  }
}

/** A watch that a retry is unlikely to help. */
class Refused extends Error {}

const renewal = Symbol("the connection is renewed");

/** Returns renewal, or throws what the server said at the end of a stream. */
function endOf(event: ServerEvent): typeof renewal {
  let reason = "";
  try {
    const error = record(record(JSON.parse(event.data), "an end")["error"], "an end");
    const details = error["details"];
    for (const d of Array.isArray(details) ? details : []) reason ||= String(record(d, "a detail")["reason"] ?? "");
  } catch {
    // an end is an end
  }
  if (reason === "CONNECTION_AGED") return renewal;
  throw new Fault("unavailable", `patd ended the watch: ${reason || "no reason"}`);
}

/** What an event says. */
interface Event {
  news: News;
  history: string;
  elapsed: number;
  /** Further changes are known, and follow. */
  more: boolean;
  /** Empty, but in the first event of a watch. */
  watchId: string;
  /** patd asks for an acknowledgement. */
  acknowledge: boolean;
}

function readNews(event: ServerEvent): Event {
  const r = record(JSON.parse(event.data), "an event");
  const history = r["history"];
  if (typeof history !== "string") throw new Fault("unavailable", "an event of patd has no history");
  const elapsed = r["elapsed_ms"];
  const watchId = r["watch_id"];
  return {
    history,
    elapsed: typeof elapsed === "number" ? elapsed : 0,
    more: r["more"] === true,
    watchId: typeof watchId === "string" ? watchId : "",
    acknowledge: r["acknowledge"] === true,
    news: {
      sequence: position(r["sequence"]),
      startOver: r["start_over"] === true || event.type === "start-over",
      tokenIds: texts(r["token_ids"]),
      users: texts(r["users"]),
    },
  };
}

/** A time by the monotonic and by the wall clock, in milliseconds. Either may jump or stand still without the other. */
export interface Instant {
  mono: number;
  wall: number;
}

/** Judges how current the events of one stream are. */
export class Pace {
  isFirst = true;
  /** How old the latest event may be, but for the first, in milliseconds. */
  behind = 0;
  #first = 0;
  #last = 0;
  #settled = false;

  constructor(
    /** When the stream was asked for. */
    readonly asked: Instant,
  ) {}

  /**
   * Records an event that came now, and that the server made when so many milliseconds of the stream had elapsed; 0: it
   * does not say. Returns the time up to which every change is known; null: the watch has not caught up yet. The stream
   * began after it was asked for. A resumed watch has caught up when an event has no news, or when all missed changes
   * must have arrived. After a start-over memory is empty.
   */
  event(now: Instant, elapsed: number, quiet: boolean, startOver: boolean): Instant | null {
    const { asked } = this;
    if (this.isFirst) {
      this.isFirst = false;
      this.#first = this.#last = now.mono;
      this.#settled = startOver || quiet;
      return this.#settled ? asked : null;
    }
    this.#settled ||= startOver || quiet || now.mono - this.#first >= settling;
    if (elapsed > 0) this.behind = Math.max(0, now.mono - asked.mono - elapsed, now.wall - asked.wall - elapsed);
    // A server that does not say what has elapsed sends events once a second: one that comes later was held up.
    else this.behind = Math.max(0, this.behind + now.mono - this.#last - heartbeat);
    this.#last = now.mono;
    if (!this.#settled) return null;
    if (elapsed === 0) return { mono: now.mono - this.behind, wall: now.wall - this.behind };
    return { mono: Math.min(now.mono, asked.mono + elapsed), wall: Math.min(now.wall, asked.wall + elapsed) };
  }
}

/** Waits, until the signal at most. */
function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done, { once: true });
  });
}
