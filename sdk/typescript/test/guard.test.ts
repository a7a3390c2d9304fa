import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, request, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { test, type TestContext } from "node:test";
import express from "express";
import fastify from "fastify";
import { Hono } from "hono";
import { caller as callerOfExpress, expressGuard } from "../dist/express.js";
import { caller as callerOfFastify, fastifyGuard } from "../dist/fastify.js";
import { caller as callerOfHono, honoGuard } from "../dist/hono.js";
import type { Checker } from "../dist/index.js";
import { FakePatd } from "../dist/testing.js";

const config = { realm: 'the "api"', renewUrl: "https://tokens.example.com" };

interface Answer {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  body: Record<string, unknown>;
}
type Send = (authorization: string[], path?: string) => Promise<Answer>;

async function listen(t: TestContext, handler: RequestListener): Promise<Send> {
  const server = createServer(handler).listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return async (authorization, path = "/reports") => {
    // Raw headers, for the same one may come twice.
    const headers = ["Host", "localhost", ...authorization.flatMap((a) => ["Authorization", a])];
    const req = request({ host: "127.0.0.1", port, path, headers, agent: false }).end();
    const [res] = (await once(req, "response")) as [import("node:http").IncomingMessage];
    let text = "";
    for await (const chunk of res) text += String(chunk);
    return { status: res.statusCode ?? 0, headers: res.headers, body: JSON.parse(text) as Record<string, unknown> };
  };
}

const frameworks: Record<string, (t: TestContext, patd: Checker) => Promise<Send>> = {
  async express(t, patd) {
    const requires = expressGuard<express.Request>(patd, config);
    const app = express();
    app.get("/reports", requires("reports.read"), (req, res) => {
      res.json({ user: callerOfExpress(req).token.user });
    });
    app.get("/open", (req, res) => {
      assert.throws(() => callerOfExpress(req));
      res.json({});
    });
    return listen(t, app);
  },
  async fastify(t, patd) {
    const requires = fastifyGuard<import("fastify").FastifyRequest>(patd, config);
    const app = fastify();
    app.get("/reports", { onRequest: requires("reports.read") }, async (req) => ({
      user: callerOfFastify(req).token.user,
    }));
    app.get("/open", async (req) => {
      assert.throws(() => callerOfFastify(req));
      return {};
    });
    await app.ready();
    return listen(t, (req, res) => app.routing(req, res));
  },
  async hono(t, patd) {
    const requires = honoGuard<import("hono").Context>(patd, config);
    const app = new Hono();
    app.get("/reports", requires("reports.read"), (c) => c.json({ user: callerOfHono(c).token.user }));
    app.get("/open", (c) => {
      assert.throws(() => callerOfHono(c));
      return c.json({});
    });
    return listen(t, async (req, res) => {
      const headers = new Headers();
      for (let i = 0; i < req.rawHeaders.length; i += 2)
        headers.append(req.rawHeaders[i] as string, req.rawHeaders[i + 1] as string);
      const answer = await app.fetch(new Request(`http://localhost${req.url}`, { headers }), { incoming: req });
      res.writeHead(answer.status, Object.fromEntries(answer.headers)).end(await answer.text());
    });
  },
};

for (const [name, serve] of Object.entries(frameworks)) {
  test(`${name}: only a token with the scope passes, and each refusal is that of RFC 6750`, async (t) => {
    const patd = new FakePatd();
    const send = await serve(t, patd);
    const may = patd.mint({ user: "alice", scopes: ["reports.read"], expireTime: new Date(Date.now() + 3600_000) });
    const bound = patd.mint({ user: "bob", scopes: ["reports.read"], clientIps: ["127.0.0.1"] });
    const elsewhere = patd.mint({ user: "bob", scopes: ["reports.read"], clientIps: ["192.0.2.1"] });
    const lacks = patd.mint({ user: "carol", scopes: ["reports.write"] });
    const ended = patd.mint({ user: "alice", scopes: ["reports.read"] });
    patd.revoke(ended.id);

    const passed = await send([`Bearer ${may.secret}`]);
    assert.deepEqual([passed.status, passed.body], [200, { user: "alice" }]);
    assert.match(String(passed.headers["patd-token-expires-at"]), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
    assert.equal(passed.headers["patd-token-renew"], config.renewUrl);
    assert.equal((await send([`bEARER   ${may.secret}`])).status, 200);
    assert.deepEqual((await send([`Bearer ${bound.secret}`])).body, { user: "bob" });

    const cases: [string[], number, string | undefined, string | undefined][] = [
      [[], 401, "CREDENTIAL_REQUIRED", undefined],
      [["Basic eDp5"], 401, "CREDENTIAL_REQUIRED", undefined],
      [[may.secret], 401, "CREDENTIAL_REQUIRED", undefined],
      [["Bearer"], 401, "CREDENTIAL_REQUIRED", undefined],
      [["Bearer garbage"], 401, "CREDENTIAL_INVALID", "invalid_token"],
      [[`Bearer ${ended.secret}`], 401, "TOKEN_REVOKED", "invalid_token"],
      [[`Bearer ${elsewhere.secret}`], 401, "IP_NOT_ALLOWED", "invalid_token"],
      [[`Bearer ${lacks.secret}`], 403, "SCOPE_INSUFFICIENT", "insufficient_scope"],
      [[`Bearer ${may.secret}`, `Bearer ${may.secret}`], 400, "CREDENTIAL_INVALID", "invalid_request"],
    ];
    for (const [authorization, status, reason, error] of cases) {
      const got = await send(authorization);
      const challenge = String(got.headers["www-authenticate"]);
      assert.deepEqual([got.status, got.body["reason"]], [status, reason], authorization.join());
      assert.match(challenge, /^Bearer realm="the 'api'"/);
      assert.equal(/error="(\w+)"/.exec(challenge)?.[1], error);
      assert.equal(got.headers["cache-control"], "no-store");
      assert.match(String(got.headers["content-type"]), /^application\/json/);
    }
    const scope = await send([`Bearer ${lacks.secret}`]);
    assert.match(String(scope.headers["www-authenticate"]), /scope="reports.read"/);
    assert.deepEqual(scope.body["missing_scopes"], ["reports.read"]);

    patd.outage();
    const down = await send([`Bearer ${may.secret}`]);
    assert.deepEqual(
      [down.status, down.headers["retry-after"], down.headers["www-authenticate"]],
      [503, "1", undefined],
    );
    assert.equal((await send([], "/open")).status, 200);
  });

  test(`${name}: a checker that breaks lets nothing pass`, async (t) => {
    const broken: unknown[] = [
      { allowed: true },
      { allowed: true, decision: "ALLOW" },
      undefined,
      { decision: "ALLOW" },
    ];
    let i = 0;
    const send = await serve(t, { verify: async () => broken[i] as never });
    for (i = 0; i < broken.length; i++) assert.equal((await send(["Bearer x"])).status, 503, JSON.stringify(broken[i]));
  });
}
