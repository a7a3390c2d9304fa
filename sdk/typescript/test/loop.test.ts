import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { randomToken } from "../dist/form.js";
import { Verifier } from "../dist/index.js";
import { active, until, Wire } from "./patd.js";

const events = 10_000;

/** Returns the text of an event about one token. */
const change = (i: number, id: string): string =>
  `event: invalidations\ndata: {"sequence":"${i + 2}","history":"h","token_ids":["${id}"]}\n\n`;

/** Sends a burst of chunks to a verifier, and returns how many turns the loop had until all of them were applied. */
async function turnsOf(t: TestContext, burst: string[]): Promise<number> {
  const wire = new Wire();
  wire.answer = () => active(wire);
  let turns = 0;
  let end = (): void => {};
  const over = new Promise<void>((resolve) => (end = resolve));
  let counting: NodeJS.Immediate;
  const count = (): void => {
    turns++;
    counting = setImmediate(count);
  };
  let release = (): void => {};
  const ready = new Promise<void>((resolve) => (release = resolve));
  let done = (): void => {};
  const applied = new Promise<void>((resolve) => (done = resolve));
  let next = -1;
  const stream = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        if (next === 0) await ready;
        const text = next < 0 ? 'data: {"sequence":"1","history":"h","start_over":true}\n\n' : burst[next];
        if (next === 0) count();
        next++;
        if (text !== undefined) return controller.enqueue(new TextEncoder().encode(text));
        done();
        await over; // until then the watch stays open
        controller.close();
      },
    },
    { highWaterMark: 0 },
  );
  const verifier = new Verifier({
    url: "https://patd.example.com",
    token: "t",
    fetch: (async (input: string | URL | Request, init?: RequestInit) =>
      String(input).includes("/v1/invalidations")
        ? new Response(stream, { headers: { "Content-Type": "text/event-stream" } })
        : wire.fetch(input, init)) as typeof fetch,
  });
  t.after(async () => {
    clearImmediate(counting);
    end();
    await verifier.close();
    wire.close();
  });
  await until(() => verifier.stats().watching);
  const token = randomToken().text;
  await verifier.verify(token);
  release();
  await applied;
  const out = turns;
  wire.answer = () => ({ active: false, decision: "REVOKED" });
  assert.equal((await verifier.verify(token)).decision, "REVOKED"); // the last event was about it
  return out;
}

const texts = Array.from({ length: events }, (_, i) => change(i, i === events - 1 ? "15ODq7pq8Hy" : `other${i}`));

test("a burst of events that came one by one leaves other work its turns", async (t) => {
  const turns = await turnsOf(t, texts);
  assert.ok(turns >= events / 1000, `${turns} turns`);
});

test("a burst of events that came together leaves other work its turns", async (t) => {
  const turns = await turnsOf(t, [texts.join("")]);
  assert.ok(turns >= events / 1000, `${turns} turns`);
});
