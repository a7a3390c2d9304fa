// Middleware for Hono, on any runtime.

import type { Checker, Result } from "./decision.js";
import { Guard, type GuardConfig, type Outcome } from "./guard.js";
import type { RouteTable } from "./routes.js";

/** The part of a context of Hono that is used. */
export interface HonoContext {
  readonly req: { readonly raw: Request };
  readonly env: unknown;
  header(name: string, value: string): void;
}

/** Configures {@link honoGuard}. */
export interface HonoGuardConfig<Context extends HonoContext = HonoContext> extends GuardConfig {
  /**
   * Returns the address that a request comes from. By default that of the connection under @hono/node-server, and
   * unknown elsewhere: then tokens that are bound to networks are refused.
   */
  readonly clientIp?: ((c: Context) => string | undefined) | undefined;
}

const results = new WeakMap<Request, Result>();

/**
 * Returns a function that makes middleware: `requires("reports.read")` lets requests pass whose token has all these
 * scopes in effect, `requires()` those with any active token.
 */
export function honoGuard<Context extends HonoContext = HonoContext>(
  checker: Checker,
  config: HonoGuardConfig<Context> = {},
): (...scopes: string[]) => HonoMiddleware<Context> {
  const decider = deciderOf(checker, config);
  return (...scopes) => decider((guard, values, _, ip) => guard.decide(values, scopes, ip));
}

/**
 * Returns middleware for a whole application, `app.use(honoRoutes(verifier, table))`: what a request needs is in a
 * table of routes. One that the table closes gets 403.
 */
export function honoRoutes<Context extends HonoContext = HonoContext>(
  checker: Checker,
  table: RouteTable,
  config: HonoGuardConfig<Context> = {},
): HonoMiddleware<Context> {
  return deciderOf(checker, config)((guard, values, { req }, ip) =>
    guard.decideRoute(table, req.raw.method, new URL(req.raw.url).pathname, values, ip),
  );
}

type HonoMiddleware<Context> = (c: Context, next: () => Promise<void>) => Promise<Response | void>;
type Decide<Context> = (
  guard: Guard,
  values: readonly string[],
  c: Context,
  ip: () => string | undefined,
) => Promise<Outcome>;

function deciderOf<Context extends HonoContext>(
  checker: Checker,
  config: HonoGuardConfig<Context>,
): (decide: Decide<Context>) => HonoMiddleware<Context> {
  const guard = new Guard(checker, config);
  const clientIp = config.clientIp ?? addressOfNode;
  return (decide) => async (c, next) => {
    const value = c.req.raw.headers.get("authorization"); // several are joined by commas
    const outcome = await decide(guard, value === null ? [] : [value], c, () => clientIp(c));
    if (!outcome.pass) {
      const headers = { ...outcome.headers, "Content-Type": "application/json" };
      return new Response(JSON.stringify(outcome.body), { status: outcome.status, headers });
    }
    for (const [name, value] of Object.entries(outcome.headers)) c.header(name, value);
    results.set(c.req.raw, outcome.result);
    return next();
  };
}

function addressOfNode(c: HonoContext): string | undefined {
  const env = c.env as { incoming?: { socket?: { remoteAddress?: unknown } } } | undefined | null;
  const address = env?.incoming?.socket?.remoteAddress;
  return typeof address === "string" ? address : undefined;
}

/** Returns the decision about a request that the middleware let pass. Throws for any other. */
export function caller(c: HonoContext): Result & { readonly token: NonNullable<Result["token"]> } {
  const result = results.get(c.req.raw);
  if (!result?.token) throw new Error("no guard of patd let this request pass: put requires() in front of the handler");
  return { ...result, token: result.token };
}
