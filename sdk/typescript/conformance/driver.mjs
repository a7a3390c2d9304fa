// The program that puts the TypeScript library through sdk/conformance. It needs `npm run build`.

import { createInterface } from "node:readline";
import { parseAddress } from "../dist/address.js";
import { Fault, isPlausible, reasonOf, Verifier } from "../dist/index.js";
import { keyMaterial } from "../dist/keys.js";

let verifier;
let offset = 0; // of the wall clock, in milliseconds
let load; // loops of checks without a pause

const turn = () => new Promise((resolve) => setImmediate(resolve));

/** Checks until the load is over. Other work has its turn now and then, as between the requests of a server. */
async function loop(of, { tokens, scopes }, i) {
  for (; !of.over; i++) {
    if (i % 64 === 0) await turn();
    of.checks++;
    const result = await verifier.verify(tokens[i % tokens.length], { scopes }).catch(turn);
    if (result && !result.allowed) of.refused++;
  }
}

const commands = {
  hello: () => ({ protocol: 1, library: "patd for TypeScript", speaks: "http", can: ["clock", "key", "load"] }),
  async configure(c) {
    await verifier?.close().catch(() => {});
    offset = c.clock_ms ?? 0;
    verifier = new Verifier({
      url: c.http,
      token: c.token,
      audience: c.audience,
      maxAge: c.max_age_ms,
      maxEntries: c.max_entries,
      timeout: c.timeout_ms,
      reportEvery: c.report_every_ms ?? 0,
      now: () => Date.now() + offset,
    });
    return { ok: true };
  },
  async check(c) {
    if (!verifier) return { error: "closed" };
    try {
      const r = await verifier.verify(c.token, {
        scopes: c.scopes ?? undefined,
        audience: c.audience ?? undefined,
        clientIp: c.ip ?? undefined,
      });
      return {
        decision: r.decision,
        reason: reasonOf(r.decision),
        token_id: r.token?.id,
        user: r.token?.user,
        scopes: r.token?.scopes,
        missing: r.missing,
      };
    } catch (err) {
      return { error: err instanceof Fault ? err.kind : "unavailable", message: String(err) };
    }
  },
  status() {
    if (!verifier) return { error: "closed" };
    const s = verifier.stats();
    return { watching: s.watching, entries: s.entries, dropped_uses: s.droppedUses };
  },
  async load(c) {
    const before = load;
    if (before) {
      before.over = true;
      await Promise.all(before.loops);
    }
    load = c.loops ? { over: false, checks: 0, refused: 0 } : undefined;
    if (load) load.loops = Array.from({ length: c.loops }, (_, i) => loop(load, c, i));
    return { ok: true, checks: before?.checks, refused: before?.refused };
  },
  clock(c) {
    offset = c.wall_ms ?? 0;
    return { ok: true };
  },
  form: (c) => ({ plausible: isPlausible(c.token ?? "") }),
  key(c) {
    const address = c.ip ? parseAddress(c.ip) : null;
    const hex = (bytes) => Buffer.from(bytes).toString("hex");
    return {
      everywhere: hex(keyMaterial(c.token, c.audience ?? "")),
      address: address ? hex(address.bytes) : undefined,
    };
  },
  async close() {
    try {
      await verifier?.close();
      return { ok: true };
    } catch (err) {
      return { error: "unavailable", message: String(err) };
    }
  },
};

async function answer(c) {
  const run = Object.hasOwn(commands, c.do) ? commands[c.do] : () => ({ error: "unsupported" });
  process.stdout.write(JSON.stringify({ id: c.id, ...(await run(c)) }) + "\n");
}

for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  const c = JSON.parse(line);
  if (c.do === "configure")
    await answer(c); // before the checks that follow it
  else void answer(c);
}
await commands.load({});
await verifier?.close().catch(() => {});
