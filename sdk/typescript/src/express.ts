// Middleware for Express 4 and 5, and for anything else whose handlers are called with Node's request and response.

import type { Checker, Result } from "./decision.js";
import { Guard, type GuardConfig, type Outcome } from "./guard.js";
import type { RouteTable } from "./routes.js";

/** The part of a request of Node and Express that is read. */
export interface ExpressRequest {
  readonly method?: string | undefined;
  readonly url?: string | undefined;
  readonly headers: { readonly authorization?: string | undefined };
  readonly headersDistinct?: { readonly authorization?: readonly string[] | undefined };
  readonly socket: { readonly remoteAddress?: string | undefined };
}

/** The part of a response that is used. */
export interface ExpressResponse {
  statusCode: number;
  setHeader(name: string, value: string): unknown;
  end(body: string): unknown;
}

/** Configures {@link expressGuard}. */
export interface ExpressGuardConfig<Request extends ExpressRequest = ExpressRequest> extends GuardConfig {
  /**
   * Returns the address that a request comes from. By default that of the connection: anybody can write a header.
   * Behind a proxy that you trust, `(req) => req.ip` with Express's `trust proxy`.
   */
  readonly clientIp?: ((req: Request) => string | undefined) | undefined;
}

const results = new WeakMap<object, Result>();

/**
 * Returns a function that makes middleware: `requires("reports.read")` lets requests pass whose token has all these
 * scopes in effect, `requires()` those with any active token.
 */
export function expressGuard<Request extends ExpressRequest = ExpressRequest>(
  checker: Checker,
  config: ExpressGuardConfig<Request> = {},
): (...scopes: string[]) => ExpressMiddleware<Request> {
  const decider = deciderOf(checker, config);
  return (...scopes) => decider((guard, values, _, ip) => guard.decide(values, scopes, ip));
}

/**
 * Returns middleware for a whole application, `app.use(expressRoutes(verifier, table))`: what a request needs is in a
 * table of routes. One that the table closes gets 403. Paths are those of the router that uses it.
 */
export function expressRoutes<Request extends ExpressRequest = ExpressRequest>(
  checker: Checker,
  table: RouteTable,
  config: ExpressGuardConfig<Request> = {},
): ExpressMiddleware<Request> {
  return deciderOf(checker, config)((guard, values, req, ip) =>
    guard.decideRoute(table, req.method ?? "", (req.url ?? "").replace(/\?.*$/s, ""), values, ip),
  );
}

type ExpressMiddleware<Request> = (req: Request, res: ExpressResponse, next: () => unknown) => Promise<void>;
type Decide<Request> = (
  guard: Guard,
  values: readonly string[],
  req: Request,
  ip: () => string | undefined,
) => Promise<Outcome>;

function deciderOf<Request extends ExpressRequest>(
  checker: Checker,
  config: ExpressGuardConfig<Request>,
): (decide: Decide<Request>) => ExpressMiddleware<Request> {
  const guard = new Guard(checker, config);
  const clientIp = config.clientIp ?? ((req: Request) => req.socket.remoteAddress);
  return (decide) => async (req, res, next) => {
    const joined = req.headers.authorization;
    // Node drops all but the first Authorization header from headers.
    const values = req.headersDistinct?.authorization ?? (joined === undefined ? [] : [joined]);
    const outcome = await decide(guard, values, req, () => clientIp(req));
    for (const [name, value] of Object.entries(outcome.headers)) res.setHeader(name, value);
    if (outcome.pass) {
      results.set(req, outcome.result);
      next();
      return;
    }
    res.statusCode = outcome.status;
    res.setHeader("Content-Type", "application/json");
    res.end(JSON.stringify(outcome.body));
  };
}

/** Returns the decision about a request that the middleware let pass. Throws for any other. */
export function caller(req: object): Result & { readonly token: NonNullable<Result["token"]> } {
  const result = results.get(req);
  if (!result?.token) throw new Error("no guard of patd let this request pass: put requires() in front of the handler");
  return { ...result, token: result.token };
}
