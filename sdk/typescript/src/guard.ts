import { isActive, type Checker, type Result } from "./decision.js";
import { refusalOf, seconds, type Refusal } from "./refusal.js";
import type { RouteTable } from "./routes.js";

/** Configures a {@link Guard} and all middleware. */
export interface GuardConfig {
  /** The API of the handlers; absent: that of the checker. */
  readonly audience?: string | undefined;
  /** Is sent in WWW-Authenticate. */
  readonly realm?: string | undefined;
  /** The page where users renew tokens. Clients get it in Patd-Token-Renew in a token's last 30 days. */
  readonly renewUrl?: string | undefined;
}

/** What a guard decided about a request. */
export type Outcome =
  | { readonly pass: true; readonly result: Result; readonly headers: Readonly<Record<string, string>> }
  | {
      readonly pass: false;
      readonly status: 400 | 401 | 403 | 503;
      readonly headers: Readonly<Record<string, string>>;
      readonly body: Readonly<Record<string, unknown>>;
    };

const renewBefore = 30 * 24 * 3600 * 1000;

/**
 * Decides about requests by their bearer token, and makes the responses to those that may not pass, as RFC 6750
 * requires: 401 without a token or for one that is not active, 403 for one that lacks a scope, 400 for more than one
 * credential, 503 when nothing is known about the token. The token is read from the Authorization header alone. The
 * middleware for Express, Fastify and Hono is made of it.
 */
export class Guard {
  constructor(
    readonly checker: Checker,
    readonly config: GuardConfig = {},
  ) {}

  /**
   * Decides about a request with these values of the Authorization header. It never rejects: whatever breaks is a 503.
   * The address may be a function, which is called if it is needed.
   */
  async decide(
    authorization: readonly string[],
    scopes: readonly string[],
    clientIp?: string | (() => string | undefined),
  ): Promise<Outcome> {
    const found = bearer(authorization);
    if (found === "none") {
      return this.#refuse(
        401,
        {},
        {
          error: "unauthorized",
          error_description: "this request needs a token: Authorization: Bearer and a token",
          reason: "CREDENTIAL_REQUIRED",
        },
      );
    }
    if (found === "many") {
      return this.#refuse(
        400,
        { error: "invalid_request" },
        {
          error: "invalid_request",
          error_description: "give one token, once",
          reason: "CREDENTIAL_INVALID",
        },
      );
    }
    try {
      const ip = typeof clientIp === "function" ? clientIp() : clientIp;
      return this.#outcome(
        await this.checker.verify(found.token, { audience: this.config.audience, scopes, clientIp: ip }),
        scopes,
      );
    } catch {
      return {
        pass: false,
        status: 503,
        headers: { "Cache-Control": "no-store", "Retry-After": "1" },
        body: { error: "temporarily_unavailable" },
      };
    }
  }

  /** Decides about a request by a table of routes. The path is that of the request line, without the query. */
  async decideRoute(
    table: RouteTable,
    method: string,
    path: string,
    authorization: readonly string[],
    clientIp?: string | (() => string | undefined),
  ): Promise<Outcome> {
    const scopes = table.find(method, path);
    if (scopes) return this.decide(authorization, scopes, clientIp);
    return {
      pass: false,
      status: 403,
      headers: { "Cache-Control": "no-store" },
      body: {
        error: "forbidden",
        error_description: "no token opens this route: it is not in the table of routes, or has no scope there",
        reason: "ROUTE_CLOSED",
      },
    };
  }

  #outcome(r: Result, scopes: readonly string[]): Outcome {
    if (r.allowed !== (r.decision === "ALLOW") || isActive(r.decision) !== (r.token !== undefined)) {
      throw new Error("the checker contradicts itself");
    }
    const headers = this.#renewal(r);
    if (r.allowed) return { pass: true, result: r, headers };
    const why = refusalOf(r);
    if (r.decision === "INSUFFICIENT_SCOPE") {
      const challenge = { error: "insufficient_scope", error_description: why.text, scope: scopes.join(" ") };
      return this.#refuse(403, challenge, bodyOf("insufficient_scope", why), headers);
    }
    const challenge = { error: "invalid_token", error_description: why.text };
    return this.#refuse(401, challenge, bodyOf("invalid_token", why), headers);
  }

  #refuse(
    status: 400 | 401 | 403,
    challenge: Record<string, string>,
    body: Record<string, unknown>,
    more: Record<string, string> = {},
  ): Outcome {
    const params = Object.entries({ realm: this.config.realm ?? "", ...challenge })
      .filter(([, value]) => value !== "")
      .map(([name, value]) => `${name}="${printable(value)}"`);
    const text = ["Bearer", params.join(", ")].join(" ").trim();
    return { pass: false, status, body, headers: { "Cache-Control": "no-store", "WWW-Authenticate": text, ...more } };
  }

  #renewal(r: Result): Record<string, string> {
    const expires = r.token ? r.token.expireTime : r.expireTime;
    if (!expires) return {};
    const due = Date.now() >= expires.getTime() - renewBefore;
    return {
      "Patd-Token-Expires-At": seconds(expires),
      ...(due && this.config.renewUrl && { "Patd-Token-Renew": this.config.renewUrl }),
    };
  }
}

function bodyOf(error: string, why: Refusal): Record<string, unknown> {
  return {
    error,
    error_description: why.text,
    reason: why.reason,
    ...(why.missing.length > 0 && { missing_scopes: why.missing }),
    ...(why.suspended.length > 0 && { suspended_scopes: why.suspended }),
    ...(why.paused.length > 0 && { paused_scopes: why.paused }),
  };
}

/** Reads the values of the Authorization header (RFC 9110 section 11.4): a scheme, one or more spaces, a credential. */
function bearer(values: readonly string[]): { token: string } | "none" | "many" {
  if (values.length > 1) return "many";
  const [value] = values;
  if (value === undefined) return "none";
  const space = value.indexOf(" ");
  if (space < 0 || value.slice(0, space).toLowerCase() !== "bearer") return "none";
  const token = value.slice(space).replace(/^ +/, "");
  // Two headers, joined: no token contains a comma.
  return token.includes(",") ? "many" : { token };
}

/** Keeps what a quoted-string of a challenge may contain (RFC 6750 section 3). */
function printable(text: string): string {
  return text.replace(/["`]/g, "'").replace(/[^ -~]|\\/g, "?");
}
