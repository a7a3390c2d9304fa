// Middleware for Express 4 and 5, and for anything else whose handlers are called with Node's request and response.

import type { Checker, Result } from "./decision.js";
import { Guard, type GuardConfig } from "./guard.js";

/** The part of a request of Node and Express that is read. */
export interface ExpressRequest {
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
): (...scopes: string[]) => (req: Request, res: ExpressResponse, next: () => unknown) => Promise<void> {
  const guard = new Guard(checker, config);
  const clientIp = config.clientIp ?? ((req: Request) => req.socket.remoteAddress);
  return (...scopes) =>
    async (req, res, next) => {
      const joined = req.headers.authorization;
      // Node drops all but the first Authorization header from headers.
      const values = req.headersDistinct?.authorization ?? (joined === undefined ? [] : [joined]);
      const outcome = await guard.decide(values, scopes, () => clientIp(req));
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
