import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { randomToken } from "../dist/form.js";
import { Fault, Verifier, type VerifierConfig } from "../dist/index.js";
import { active, until, Wire } from "./patd.js";

const url = "https://patd.example.com";

async function rig(t: TestContext, config: Partial<VerifierConfig> = {}) {
  const wire = new Wire();
  wire.answer = () => active(wire);
  const verifier = new Verifier({ url, token: "pats_of_a_test", fetch: wire.fetch, ...config });
  t.after(async () => {
    await verifier.close().catch(() => {});
    wire.close();
  });
  await until(() => verifier.stats().watching);
  return { wire, verifier, token: randomToken().text };
}

test("an answer in memory is used until news of its token comes, and no longer", async (t) => {
  const { wire, verifier, token } = await rig(t);
  for (let i = 0; i < 10; i++) assert.equal((await verifier.verify(token, { scopes: ["read"] })).decision, "ALLOW");
  assert.equal(wire.count, 1);
  wire.answer = () => ({ active: false, decision: "REVOKED", end_time: "2026-01-02T03:04:05Z" });
  wire.event("invalidations", ["15ODq7pq8Hy"]);
  await until(() => verifier.stats().hits === 9);
  await new Promise((resolve) => setTimeout(resolve, 20));
  const refused = await verifier.verify(token);
  assert.equal(refused.decision, "REVOKED");
  assert.equal(refused.allowed, false);
  assert.equal(refused.endTime?.toISOString(), "2026-01-02T03:04:05.000Z");
});

test("an outage is a fault, and never a decision", async (t) => {
  const { wire, verifier, token } = await rig(t);
  for (const [status, kind] of [
    [503, "unavailable"],
    [302, "unavailable"],
    [401, "forbidden"],
    [403, "forbidden"],
  ] as const) {
    wire.status = status;
    await assert.rejects(verifier.verify(token), (err: Fault) => err instanceof Fault && err.kind === kind);
  }
  wire.status = 200;
  const nonsense = [
    {},
    [],
    null,
    "x",
    { active: true, decision: "REVOKED" },
    { active: false, decision: "ALLOW" },
    { active: true, decision: "constructor" },
    active(wire, { user: "" }),
    active(wire, { scopes: "read" }),
    active(wire, { sequence: 7 }),
    active(wire, { expires_in: "soon" }),
    active(wire, { sequence: "99999999999999999999" }),
    active(wire, { labels: { a: 1 } }),
  ];
  for (const answer of nonsense) {
    wire.answer = () => answer as object;
    await assert.rejects(verifier.verify(token), (err: Fault) => err.kind === "unavailable", JSON.stringify(answer));
  }
  assert.equal(verifier.stats().entries, 0);
});

test("no fault says a token, of the caller or of the service", async (t) => {
  const { wire, verifier, token } = await rig(t);
  wire.answer = () => {
    throw new Error("the connection broke");
  };
  const err = await verifier.verify(token).catch((e: unknown) => e);
  assert.ok(err instanceof Fault);
  const text = JSON.stringify([err.message, String(err.stack), String(err.cause)]);
  assert.ok(!text.includes(token) && !text.includes("pats_of_a_test"));
});

test("a service token that cannot be sent is not said either, and a log that throws ends no watch", async (t) => {
  const wire = new Wire();
  const verifier = new Verifier({
    url,
    token: "pats_of a test\nX: y",
    fetch: wire.fetch,
    log: () => {
      throw new Error("the log is full");
    },
  });
  t.after(() => wire.close());
  const err = await verifier.verify(randomToken().text).catch((e: unknown) => e);
  assert.ok(err instanceof Fault && err.kind === "unavailable");
  assert.ok(!JSON.stringify([err.message, String(err.cause)]).includes("pats_of"));
  assert.equal(wire.count, 0);
  await verifier.close();
});

test("a function that never returns the service token holds no check up for longer than the timeout", async (t) => {
  const wire = new Wire();
  const verifier = new Verifier({ url, token: () => new Promise(() => {}), fetch: wire.fetch, timeout: 50 });
  t.after(() => wire.close());
  await assert.rejects(verifier.verify(randomToken().text), (err: Fault) => err.kind === "unavailable");
  await verifier.close();
});

test("a caller that gives up ends its own wait, and not the request of others", async (t) => {
  const { wire, verifier, token } = await rig(t);
  let release: (answer: object) => void = () => {};
  wire.answer = () => new Promise((resolve) => (release = resolve));
  const controller = new AbortController();
  const gone = verifier.verify(token, { signal: controller.signal });
  const stays = verifier.verify(token);
  await until(() => wire.count === 1);
  controller.abort();
  await assert.rejects(gone, (err: Fault) => err.kind === "aborted");
  release(active(wire));
  assert.equal((await stays).decision, "ALLOW");
  assert.equal(wire.count, 1);
});

test("more requests than slots wait, and fail in time", async (t) => {
  const { wire, verifier } = await rig(t, { maxInFlight: 2, timeout: 200 });
  wire.answer = () => new Promise(() => {});
  const all = await Promise.allSettled(Array.from({ length: 5 }, () => verifier.verify(randomToken().text)));
  assert.ok(all.every((r) => r.status === "rejected" && (r.reason as Fault).kind === "unavailable"));
  wire.answer = () => active(wire);
  assert.equal((await verifier.verify(randomToken().text)).decision, "ALLOW");
});

test("an address that is none is refused, and one scope or audience answers for no other", async (t) => {
  const { wire, verifier, token } = await rig(t);
  await assert.rejects(verifier.verify(token, { clientIp: "localhost" }), (err: Fault) => err.kind === "invalid");
  await verifier.verify(token, { audience: "a" });
  await verifier.verify(token, { audience: "b" });
  assert.equal(wire.count, 2);
  const lacking = await verifier.verify(token, { audience: "b", scopes: ["write", "read", "admin", "write"] });
  assert.equal(lacking.decision, "INSUFFICIENT_SCOPE");
  assert.deepEqual(lacking.missing, ["admin", "write"]);
  assert.equal(wire.count, 2);
});

test("uses are reported with the scopes that they needed, and a report that patd refuses is given up", async (t) => {
  const { wire, verifier, token } = await rig(t, { reportEvery: 20 });
  const reports = () => wire.asked.filter((a) => a.path === "/v1/uses:report").map((a) => a.body["uses"] as object[]);
  await verifier.verify(token, { scopes: ["read"], clientIp: "10.0.0.1" });
  await verifier.verify(token, { scopes: ["read"], clientIp: "::ffff:10.0.0.2" });
  await until(() => reports().length === 1);
  const [use] = reports()[0] as [Record<string, unknown>];
  assert.deepEqual([use["token_id"], use["client_ip"], use["scopes"]], ["15ODq7pq8Hy", "10.0.0.2", ["read"]]);
  wire.status = 400;
  await verifier.verify(token);
  await until(() => verifier.stats().droppedUses === 1);
});

test("a change is acknowledged where patd asks for it, and nowhere else", async (t) => {
  const { wire, verifier } = await rig(t);
  wire.event("invalidations", ["15ODq7pq8Hy"]);
  wire.event("invalidations", ["15ODq7pq8Hy"], [], { acknowledge: true });
  const sequence = wire.sequence;
  wire.event("invalidations", ["15ODq7pq8Hy"]);
  await until(() => wire.acknowledged.length > 0);
  await verifier.close();
  assert.deepEqual(wire.acknowledged, [{ watch_id: "watch-1", sequence }]);
});

test("acknowledgements are sent one at a time, the newest first, and one that fails disturbs nothing", async (t) => {
  const { wire, verifier, token } = await rig(t);
  const unhandled: unknown[] = [];
  const note = (err: unknown) => unhandled.push(err);
  process.on("unhandledRejection", note);
  t.after(() => process.off("unhandledRejection", note));
  let fail: (err: Error) => void = () => {};
  wire.acknowledging = () => new Promise((_, reject) => (fail = reject));
  for (let i = 0; i < 3; i++) wire.event("invalidations", [], ["bob"], { acknowledge: true });
  const newest = wire.sequence;
  await until(() => wire.acknowledged.length > 0);
  assert.equal((await verifier.verify(token)).decision, "ALLOW");
  wire.answer = () => ({ active: false, decision: "REVOKED" });
  wire.event("invalidations", ["15ODq7pq8Hy"]);
  while ((await verifier.verify(token)).decision === "ALLOW") await new Promise((resolve) => setTimeout(resolve, 5));
  assert.equal(wire.acknowledged.length, 1);
  wire.acknowledging = () => new Response("{}", { status: 500 });
  fail(new Fault("unavailable", "the connection broke"));
  await until(() => wire.acknowledged.length === 2);
  assert.equal(wire.acknowledged[1]?.["sequence"], newest);
  wire.event("invalidations", [], ["bob"], { acknowledge: true });
  await until(() => wire.acknowledged.length === 3);
  await verifier.close();
  assert.deepEqual(unhandled, []);
});

test("close ends an acknowledgement that hangs, and sends none that waits", async (t) => {
  const { wire, verifier } = await rig(t);
  let given: AbortSignal | undefined;
  wire.acknowledging = (signal) => new Promise(() => (given = signal));
  wire.event("invalidations", [], ["bob"], { acknowledge: true });
  await until(() => given !== undefined);
  wire.event("invalidations", [], ["bob"], { acknowledge: true });
  await verifier.close();
  assert.equal(given?.aborted, true);
  assert.equal(wire.acknowledged.length, 1);
});

test("plain http is for this machine only, and the address has no secret in it", () => {
  for (const bad of [
    "http://patd.example.com",
    "http://10.0.0.1",
    "https://u:p@patd.example.com",
    "ftp://localhost",
    "https://h?x=1",
  ]) {
    assert.throws(() => new Verifier({ url: bad, token: "t" }), TypeError, bad);
  }
});

test("close ends everything, twice", async (t) => {
  const { verifier, token } = await rig(t);
  await Promise.all([verifier.close(), verifier.close()]);
  await verifier.close();
  await assert.rejects(verifier.verify(token), (err: Fault) => err.kind === "closed");
  assert.equal(verifier.stats().watching, false);
});
