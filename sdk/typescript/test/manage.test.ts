import assert from "node:assert/strict";
import { test } from "node:test";
import { Duration, Manage, PatdError } from "../dist/manage.js";

interface Sent {
  method: string;
  url: string;
  key: string | null;
  match: string | null;
  body: unknown;
}

function rig(answers: (() => Response | Promise<Response>)[]) {
  const sent: Sent[] = [];
  const send = (async (url: string, init: RequestInit) => {
    const headers = new Headers(init.headers);
    assert.equal(headers.get("authorization"), "Bearer pats_x");
    assert.equal(init.redirect, "manual");
    sent.push({
      method: init.method as string,
      url,
      key: headers.get("idempotency-key"),
      match: headers.get("if-match"),
      body: init.body === undefined ? undefined : JSON.parse(String(init.body)),
    });
    return (answers[Math.min(sent.length, answers.length) - 1] as () => Response)();
  }) as unknown as typeof fetch;
  return {
    sent,
    patd: new Manage({ url: "https://patd.example.com/base/", token: async () => "pats_x\n", fetch: send }),
  };
}

const ok = (body: unknown) => () => Response.json(body);
const lost = () => Promise.reject<Response>(new TypeError("fetch failed"));
const fails =
  (code: number, reason: string, headers: Record<string, string> = {}) =>
  () =>
    Response.json(
      {
        error: {
          code,
          status: "S",
          message: "m",
          details: [
            { "@type": "type.googleapis.com/google.rpc.ErrorInfo", reason, domain: "patd", metadata: { a: "b" } },
            {
              "@type": "type.googleapis.com/google.rpc.BadRequest",
              field_violations: [{ field: "scopes", description: "no" }],
            },
            { "@type": "type.googleapis.com/google.rpc.RequestInfo", request_id: "r1" },
          ],
        },
      },
      { status: code, headers },
    );

test("a call that creates carries a key, the same when it is repeated", async () => {
  const { sent, patd } = rig([lost, fails(503, "UNAVAILABLE"), ok({ secret: "pat_s", token: { token_id: "i" } })]);
  const made = await patd.createToken("a/b", {
    name: "n",
    scopes: ["reports.read"],
    ttl: Duration.days(90),
    renewable_until: new Date(0),
  });
  assert.equal(made.secret, "pat_s");
  assert.equal(sent.length, 3);
  assert.equal(sent[0]?.url, "https://patd.example.com/base/v1/users/a%2Fb/tokens");
  assert.match(sent[0]?.key ?? "", /^[0-9a-f-]{36}$/);
  assert.equal(new Set(sent.map((s) => s.key)).size, 1);
  assert.deepEqual(sent[0]?.body, {
    name: "n",
    scopes: ["reports.read"],
    ttl: "7776000s",
    renewable_until: "1970-01-01T00:00:00.000Z",
  });
  await patd.createToken("alice", { name: "n" });
  assert.notEqual(sent[3]?.key, sent[0]?.key);
});

test("a change that may not be repeated is sent once, unless patd refused it as too much", async () => {
  const create = { feature: { name: "f" } } as never;
  for (const answer of [lost, fails(503, "UNAVAILABLE"), fails(504, "DEADLINE_EXCEEDED")]) {
    const { sent, patd } = rig([answer, ok({})]);
    await assert.rejects(patd.call("createFeature", { body: create }), PatdError);
    assert.equal(sent.length, 1);
  }
  const busy = rig([fails(429, "RATE_LIMITED", { "Retry-After": "0" }), ok({ name: "f" })]);
  await busy.patd.call("createFeature", { body: create });
  assert.equal(busy.sent.length, 2);
  const match = rig([lost, ok({})]);
  await assert.rejects(match.patd.suspendUser("alice", "", { etag: '"1"' }), PatdError);
  assert.deepEqual([match.sent.length, match.sent[0]?.match], [1, '"1"']);
});

test("an error has its reason, and a refusal is not repeated", async () => {
  const { sent, patd } = rig([fails(400, "SCOPE_NOT_HELD")]);
  const err = await patd.createToken("alice", { name: "n" }).catch((e: unknown) => e);
  assert.ok(PatdError.is(err, "SCOPE_NOT_HELD") && !PatdError.is(err, "TOKEN_REVOKED"));
  assert.deepEqual(
    [err.httpStatus, err.metadata, err.violations, err.requestId],
    [400, { a: "b" }, [{ field: "scopes", description: "no" }], "r1"],
  );
  assert.equal(sent.length, 1);
  const proxy = rig([() => new Response("<html>", { status: 404 })]);
  const other = (await proxy.patd.call("whoAmI").catch((e: unknown) => e)) as PatdError;
  assert.deepEqual([other.httpStatus, other.reason], [404, undefined]);
});

test("pages are asked for as they are needed, of both kinds", async () => {
  const tokens = rig([
    ok({ tokens: [{ token_id: "1" }, { token_id: "2" }], next_page_token: "p2" }),
    ok({ tokens: [], next_page_token: "p3" }),
    ok({ tokens: [{ token_id: "3" }] }),
  ]);
  const seen: string[] = [];
  for await (const token of tokens.patd.listTokens("alice", { page_size: 2 })) {
    if (seen.length < 2) assert.equal(tokens.sent.length, 1);
    seen.push(token.token_id as string);
  }
  assert.deepEqual(seen, ["1", "2", "3"]);
  assert.equal(tokens.sent[2]?.url, "https://patd.example.com/base/v1/users/alice/tokens?page_size=2&page_token=p3");
  const features = rig([ok({ features: [{ name: "a" }], after: "a" }), ok({ features: [{ name: "b" }], after: "" })]);
  const names: unknown[] = [];
  for await (const f of features.patd.list("listFeatures")) names.push(f.name);
  assert.deepEqual(names, ["a", "b"]);
  assert.match(features.sent[1]?.url ?? "", /\?after=a$/);
});

test("no id becomes another path", async () => {
  const { sent, patd } = rig([ok({})]);
  for (const user of ["", ".", ".."]) await assert.rejects(patd.resumeUser(user), TypeError);
  assert.equal(sent.length, 0);
});

test("a call ends with its signal, and in time", async () => {
  const { patd } = rig([() => new Promise<Response>(() => {})]);
  const controller = new AbortController();
  const waits = patd.call("whoAmI", { signal: controller.signal });
  controller.abort(new Error("enough"));
  await assert.rejects(waits, /enough/);
  const slow = new Manage({
    url: "https://h",
    token: "t",
    timeout: 20,
    fetch: (() => new Promise(() => {})) as typeof fetch,
  });
  await assert.rejects(slow.call("whoAmI"), (err: PatdError) => err.status === "DEADLINE_EXCEEDED");
});
