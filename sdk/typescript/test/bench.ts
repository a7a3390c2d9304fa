// What a check from memory costs, and what memory holds after a million different tokens. Prints JSON.

import { createHash } from "node:crypto";
import { randomToken } from "../dist/form.js";
import { Verifier } from "../dist/index.js";
import { active, until, Wire } from "./patd.js";

const tokens = Number(process.env["TOKENS"] ?? 1_000_000);
const maxEntries = 10_000;

const wire = new Wire();
wire.keep = false;
wire.answer = (body) => {
  const token = String(body["token"]);
  // Half of them are unknown, and half are of users that come once.
  if (token.charCodeAt(20) % 2 === 0) return { active: false, decision: "NOT_FOUND" };
  return active(wire, { token_id: token.slice(4, 15), user: `user-${token.slice(16, 36)}` });
};
const verifier = new Verifier({
  url: "https://patd.example.com",
  token: "t",
  fetch: wire.fetch,
  maxEntries,
  audience: "reports",
});
await until(() => verifier.stats().watching);

const call = { scopes: ["read"], clientIp: "192.0.2.7" };
const mine: string[] = [];
while (mine.length < 100) {
  const { text } = randomToken();
  if ((await verifier.verify(text, call)).allowed) mine.push(text);
}

async function perCheck(checks: number): Promise<number> {
  const begun = performance.now();
  for (let i = 0; i < checks; i++) {
    const r = await verifier.verify(mine[i % mine.length] as string, call);
    if (!r.allowed) throw new Error(r.decision);
    if (i % 10_000 === 0) await new Promise(setImmediate); // events come
  }
  return ((performance.now() - begun) / checks) * 1000;
}
await perCheck(50_000);
const before = verifier.stats();
const check = Math.min(await perCheck(100_000), await perCheck(100_000), await perCheck(100_000));
const asked = verifier.stats().asked - before.asked;

const heap = (): number => {
  (globalThis as { gc?: () => void }).gc?.();
  return process.memoryUsage().heapUsed;
};
const small = tokens / 10;
let heapAtTenth = 0;
for (let i = 0; i < tokens; i += 100) {
  if (i >= small && heapAtTenth === 0) heapAtTenth = heap();
  await Promise.all(Array.from({ length: 100 }, () => verifier.verify(randomToken().text, call)));
  if (i % 10_000 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
}
const heapAtEnd = heap();
const text = "x".repeat(90);
const begun = performance.now();
for (let i = 0; i < 100_000; i++) createHash("sha256").update(text).digest();
const digest = ((performance.now() - begun) / 100_000) * 1000;
const { entries } = verifier.stats();
await verifier.close();
wire.close();
console.log(
  JSON.stringify({
    check_us: check,
    node_digest_us: digest,
    asked_from_memory: asked,
    tokens,
    maxEntries,
    entries,
    heapAtTenth,
    heapAtEnd,
  }),
);
