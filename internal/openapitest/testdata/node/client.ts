// A backend's use of patd, by a client that is generated from /openapi.json: it mints, lists, rotates, introspects and
// revokes. It must compile in strict mode, and prints "done" if each answer is as expected.
import createClient from "openapi-fetch";
import type { components, paths } from "./patd.js";

declare const process: { env: Record<string, string | undefined> };

type Token = components["schemas"]["Token"];
type Decision = components["schemas"]["IntrospectResponse"]["decision"];

function must(holds: boolean, what: string): asserts holds {
  if (!holds) throw new Error(what);
}

const patd = createClient<paths>({
  baseUrl: process.env["PATD_URL"] ?? "",
  headers: { Authorization: `Bearer ${process.env["PATD_TOKEN"] ?? ""}` },
});
const user = "alice";

async function decide(token: string, scope: string): Promise<Decision> {
  const { data, error } = await patd.POST("/v1/introspect", { body: { token, required_scopes: [scope] } });
  must(data !== undefined, `introspect: ${error?.error.message ?? "no answer"}`);
  if (data.decision === "ALLOW") {
    must(data.user === user && data.scopes.includes(scope), "an answer about another token");
  }
  return data.decision;
}

const held = await patd.PUT("/v1/users/{user}/features", {
  params: { path: { user } },
  body: { features: ["billing.read", "reports.read"] },
});
must(held.data?.features.length === 2, "set the features");

const minted = await patd.POST("/v1/users/{user}/tokens", {
  params: { path: { user }, header: { "Idempotency-Key": crypto.randomUUID() } },
  body: { name: "nightly export", scopes: ["reports.read"], ttl: "180d", labels: { team: "billing" } },
});
must(minted.data !== undefined, `mint: ${minted.error?.error.message ?? "no answer"}`);
const { token, secret } = minted.data;
must(token.state === "ACTIVE" && token.expire_time !== undefined, "a token of another form");

const refused = await patd.POST("/v1/users/{user}/tokens", {
  params: { path: { user } },
  body: { name: "too much", scopes: ["admin.all"] },
});
const details = refused.error?.error.details ?? [];
must(details.some((d) => d.reason === "SCOPE_NOT_HELD"), "a scope that the user does not hold");

const listed: Token[] = [];
for (let page = ""; ; ) {
  const { data } = await patd.GET("/v1/users/{user}/tokens", {
    params: { path: { user }, query: { page_size: 1, state: "ACTIVE", ...(page === "" ? {} : { page_token: page }) } },
  });
  must(data !== undefined, "list");
  listed.push(...data.tokens);
  page = data.next_page_token;
  if (page === "") break;
}
must(listed.some((t) => t.token_id === token.token_id), "the token is not in the list");

const path = { user, token_id: token.token_id };
const rotated = await patd.POST("/v1/users/{user}/tokens/{token_id}:rotate", { params: { path }, body: { grace: "0s" } });
must(rotated.data !== undefined && rotated.data.secret !== secret, "rotate");
must((await decide(rotated.data.secret, "reports.read")) === "ALLOW", "the new secret");
must((await decide(rotated.data.secret, "billing.read")) === "INSUFFICIENT_SCOPE", "a scope that was not granted");
must((await decide(secret, "reports.read")) === "SUPERSEDED", "the old secret");

const revoked = await patd.POST("/v1/users/{user}/tokens/{token_id}:revoke", { params: { path } });
must(revoked.data?.token.state === "REVOKED", "revoke without a body");
must((await decide(rotated.data.secret, "reports.read")) === "REVOKED", "the revoked token");

const granted = await patd.POST("/oauth2/introspect", {
  body: { token: rotated.data.secret },
  headers: { "Content-Type": "application/x-www-form-urlencoded" },
});
must(granted.data?.active === false, "RFC 7662");

console.log("done");
