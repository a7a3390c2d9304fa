import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer, request, type IncomingMessage, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { test, type TestContext } from "node:test";
import express from "express";
import fastify from "fastify";
import { Hono } from "hono";
import { caller as callerOfExpress, expressRoutes } from "../dist/express.js";
import { caller as callerOfFastify, fastifyRoutes } from "../dist/fastify.js";
import { caller as callerOfHono, honoRoutes } from "../dist/hono.js";
import { RouteTable, type Checker } from "../dist/index.js";
import { FakePatd } from "../dist/testing.js";

const vectors = JSON.parse(readFileSync(new URL("../../conformance/routes.json", import.meta.url), "utf8")) as {
  table: object;
  requests: { why: string; method: string; path: string; decoded?: string; scopes: string[] | null }[];
  bad: { why: string; table: object }[];
};

test("a table opens what it lists and nothing else", () => {
  const table = RouteTable.from(JSON.stringify(vectors.table));
  for (const r of vectors.requests.filter((r) => r.decoded !== "only"))
    assert.deepEqual(table.find(r.method, r.path) ?? null, r.scopes, r.why);
});

test("a table that is not understood is refused", () => {
  for (const b of vectors.bad) {
    assert.throws(() => RouteTable.from(b.table), TypeError, b.why);
    assert.throws(() => RouteTable.from(JSON.stringify(b.table)), TypeError, b.why);
  }
  for (const text of ["", "{", "null", "[]"]) assert.throws(() => RouteTable.from(text), TypeError, text);
});

const table = RouteTable.from({
  version: 1,
  routes: [
    { method: "GET", path: "/reports/{id}", scopes: ["reports.read"] },
    { method: "GET", path: "/reports/secret", scopes: [] },
  ],
});

async function listen(t: TestContext, handler: RequestListener): Promise<number> {
  const server = createServer(handler).listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close());
  return (server.address() as AddressInfo).port;
}

const frameworks: Record<string, (t: TestContext, patd: Checker) => Promise<number>> = {
  async express(t, patd) {
    const app = express();
    app.use(expressRoutes(patd, table));
    app.get("/{*any}", (req, res) => {
      res.json({ user: callerOfExpress(req).token.user });
    });
    return listen(t, app);
  },
  async fastify(t, patd) {
    const app = fastify();
    app.addHook("onRequest", fastifyRoutes(patd, table));
    app.get("/*", async (req) => ({ user: callerOfFastify(req).token.user }));
    await app.ready();
    return listen(t, (req, res) => app.routing(req, res));
  },
  async hono(t, patd) {
    const app = new Hono();
    app.use(honoRoutes(patd, table));
    app.get("/*", (c) => c.json({ user: callerOfHono(c).token.user }));
    return listen(t, async (req, res) => {
      const headers = { authorization: req.headers.authorization ?? "" };
      const method = req.method as string;
      const answer = await app.fetch(new Request(`http://localhost${req.url}`, { method, headers }));
      res.writeHead(answer.status).end(await answer.text());
    });
  },
};

for (const [name, serve] of Object.entries(frameworks)) {
  test(`${name}: a table of routes guards the whole application`, async (t) => {
    const patd = new FakePatd();
    const port = await serve(t, patd);
    const may = patd.mint({ user: "alice", scopes: ["reports.read"] });
    const lacks = patd.mint({ user: "bob", scopes: ["reports.write"] });
    for (const [method, path, token, status, reason] of [
      ["GET", "/reports/7?x=/reports/secret", may.secret, 200, undefined],
      ["GET", "/reports/7", lacks.secret, 403, "SCOPE_INSUFFICIENT"],
      ["GET", "/reports/7", "", 401, "CREDENTIAL_REQUIRED"],
      ["GET", "/reports/secret", may.secret, 403, "ROUTE_CLOSED"],
      ["GET", "/reports/%73ecret", may.secret, 403, "ROUTE_CLOSED"],
      ["GET", "/reports/SECRET", may.secret, 403, "ROUTE_CLOSED"],
      ["PUT", "/reports/7", may.secret, 403, "ROUTE_CLOSED"],
      ["GET", "/other", may.secret, 403, "ROUTE_CLOSED"],
    ] as const) {
      const headers = token && { authorization: `Bearer ${token}` };
      const req = request({ host: "127.0.0.1", port, path, method, headers: headers || {}, agent: false }).end();
      const [res] = (await once(req, "response")) as [IncomingMessage];
      let text = "";
      for await (const chunk of res) text += String(chunk);
      const body = JSON.parse(text) as { reason?: string; user?: string };
      assert.deepEqual([res.statusCode, body.reason], [status, reason], `${method} ${path}`);
      if (status === 200) assert.equal(body.user, "alice");
    }
  });
}
