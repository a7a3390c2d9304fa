// How long the work of a Verifier holds up the event loop, with the watch over a real connection, from another thread.
// Prints JSON: of each kind of work the longest turns of the loop, in milliseconds of the main thread's CPU time where
// /proc has it, so that other programs disturb less, and of the clock.

import { closeSync, openSync, readSync } from "node:fs";
import { createServer } from "node:http";
import { Worker, isMainThread, parentPort } from "node:worker_threads";
import { randomToken } from "../dist/form.js";
import { Verifier } from "../dist/index.js";
import { until } from "./patd.js";

const tokens = Number(process.env["TOKENS"] ?? 100_000);
const events = Number(process.env["EVENTS"] ?? 10_000);

/** What the other thread is asked to send on the watch. */
interface Send {
  kind: "start-over" | "invalidations";
  events: number;
  names: number;
}

/** The watch of a patd, which sends what it is told. */
function serve(): void {
  let sequence = 1;
  let watch: import("node:http").ServerResponse | undefined;
  const text = (kind: string, tokenIds: string[]): string =>
    `event: ${kind}\nid: ${sequence}-h\ndata: ` +
    JSON.stringify({ sequence: String(sequence), history: "h", start_over: kind === "start-over", token_ids: tokenIds }) +
    "\n\n";
  const server = createServer((_, response) => {
    watch = response;
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    response.write(text("start-over", []));
  });
  setInterval(() => watch?.write(text("heartbeat", [])), 500).unref();
  parentPort?.on("message", (send: Send) => {
    let out = "";
    for (let i = 0; i < send.events; i++) {
      if (send.kind === "invalidations") sequence++;
      const names = Array.from({ length: send.names }, (_, n) => `id${i}-${n}`);
      out += text(send.kind, names);
    }
    watch?.write(out + text("invalidations", ["the last one"])); // at once
  });
  server.listen(0, "127.0.0.1", () => parentPort?.postMessage((server.address() as { port: number }).port));
}

/** Collects how long the turns of the loop take. */
class Turns {
  readonly #fd = openSync("/proc/self/schedstat", "r"); // of the main thread
  readonly #buffer = Buffer.alloc(64);
  #wall: number[] = [];
  #cpu: number[] = [];
  #over = false;

  constructor() {
    let wall = performance.now();
    let cpu = this.#spent();
    const tick = (): void => {
      if (this.#over) return;
      const now = performance.now();
      const spent = this.#spent();
      this.#wall.push(now - wall);
      this.#cpu.push(spent - cpu);
      [wall, cpu] = [now, spent];
      setTimeout(tick, 0);
    };
    setTimeout(tick, 0);
  }

  #spent(): number {
    const n = readSync(this.#fd, this.#buffer, 0, 64, 0);
    return Number(this.#buffer.toString("latin1", 0, n).split(" ")[0]) / 1e6;
  }

  take(): object {
    const of = (all: number[]) => {
      all.sort((a, b) => a - b);
      const at = (part: number) => Math.round((all[Math.ceil(part * all.length) - 1] ?? 0) * 100) / 100;
      return { p99: at(0.99), max: at(1) };
    };
    const out = { turns: this.#cpu.length, cpu_ms: of(this.#cpu), wall_ms: of(this.#wall) };
    this.#wall = [];
    this.#cpu = [];
    return out;
  }

  end(): void {
    this.#over = true;
    closeSync(this.#fd);
  }
}

/** Asks the other thread for the watch, and answers questions itself: every token is active. */
const answers = (async (input: string | URL | Request, init: RequestInit = {}) => {
  if (init.method !== "POST") return fetch(input, init);
  const { token } = JSON.parse(String(init.body)) as { token?: string };
  await new Promise(setImmediate);
  return Response.json({
    active: true,
    decision: "ALLOW",
    token_id: token?.slice(4, 15),
    user: `user-${token?.slice(16, 36)}`,
    scopes: ["read"],
    any_client_ip: true,
    sequence: "1",
  });
}) as typeof fetch;

async function measure(): Promise<void> {
  const patd = new Worker(new URL(import.meta.url));
  const port = await new Promise<number>((resolve) => patd.once("message", resolve));
  const verifier = new Verifier({
    url: `http://127.0.0.1:${port}`,
    token: "t",
    fetch: answers,
    maxEntries: tokens * 2,
    maxBytes: 4 * 2 ** 30,
    maxAge: 3_600_000,
    timeout: 60_000,
    reportEvery: 5_000,
  });
  await until(() => verifier.stats().watching);
  const known = Array.from({ length: tokens }, () => randomToken().text);
  const fill = async (): Promise<void> => {
    for (let i = 0; i < tokens; i += 100) {
      await Promise.all(known.slice(i, i + 100).map((t) => verifier.verify(t, { scopes: ["read"] })));
    }
  };
  const out: Record<string, object> = {};
  const turns = new Turns();
  const phase = async (name: string, work: () => Promise<void>): Promise<void> => {
    await new Promise((resolve) => setTimeout(resolve, 500));
    turns.take();
    await work();
    out[name] = turns.take();
  };
  const sends = (send: Send) => async (): Promise<void> => {
    // The last event of a burst drops this one.
    patd.postMessage(send);
    await new Promise((resolve) => setTimeout(resolve, 2000));
  };
  await phase("nothing", () => new Promise((resolve) => setTimeout(resolve, 1000)));
  await phase(`${tokens} questions`, fill);
  const held = verifier.stats().entries;
  await phase(`${tokens} checks from memory, 100 a turn`, async () => {
    for (let i = 0; i < tokens; i++) {
      await verifier.verify(known[i] as string, { scopes: ["read"] });
      if (i % 100 === 0) await new Promise(setImmediate);
    }
  });
  await phase(`${events} events at once`, sends({ kind: "invalidations", events, names: 1 }));
  await phase("100 events of 500 names at once", sends({ kind: "invalidations", events: 100, names: 500 }));
  await phase(`start over with ${held} answers`, sends({ kind: "start-over", events: 1, names: 0 }));
  out["after"] = { entries: verifier.stats().entries, watching: verifier.stats().watching };
  turns.end();
  await verifier.close();
  await patd.terminate();
  console.log(JSON.stringify(out, null, 1));
}

if (isMainThread) await measure();
else serve();
