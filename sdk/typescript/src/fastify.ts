// Hooks for Fastify 4 and 5.

import type { Checker, Result } from "./decision.js";
import { Guard, type GuardConfig, type Outcome } from "./guard.js";
import type { RouteTable } from "./routes.js";

/** The part of a request of Fastify that is read. */
export interface FastifyRequestPart {
  readonly raw: {
    readonly method?: string | undefined;
    readonly url?: string | undefined;
    readonly headers: { readonly authorization?: string | undefined };
    readonly headersDistinct?: { readonly authorization?: readonly string[] | undefined };
    readonly socket: { readonly remoteAddress?: string | undefined };
  };
}

/** The part of a reply that is used. */
export interface FastifyReplyPart {
  code(status: number): unknown;
  header(name: string, value: string): unknown;
  send(body: unknown): unknown;
}

/** Configures {@link fastifyGuard}. */
export interface FastifyGuardConfig<Request extends FastifyRequestPart = FastifyRequestPart> extends GuardConfig {
  /**
   * Returns the address that a request comes from. By default that of the connection: anybody can write a header.
   * Behind a proxy that you trust, `(request) => request.ip` with Fastify's `trustProxy`.
   */
  readonly clientIp?: ((request: Request) => string | undefined) | undefined;
}

const results = new WeakMap<object, Result>();

/**
 * Returns a function that makes `onRequest` hooks: `requires("reports.read")` lets requests pass whose token has all
 * these scopes in effect, `requires()` those with any active token. They run before the body is read.
 */
export function fastifyGuard<Request extends FastifyRequestPart = FastifyRequestPart>(
  checker: Checker,
  config: FastifyGuardConfig<Request> = {},
): (...scopes: string[]) => FastifyHook<Request> {
  const decider = deciderOf(checker, config);
  return (...scopes) => decider((guard, values, _, ip) => guard.decide(values, scopes, ip));
}

/**
 * Returns a hook for a whole application, `app.addHook("onRequest", fastifyRoutes(verifier, table))`: what a request
 * needs is in a table of routes. One that the table closes gets 403.
 */
export function fastifyRoutes<Request extends FastifyRequestPart = FastifyRequestPart>(
  checker: Checker,
  table: RouteTable,
  config: FastifyGuardConfig<Request> = {},
): FastifyHook<Request> {
  return deciderOf(checker, config)((guard, values, { raw }, ip) =>
    guard.decideRoute(table, raw.method ?? "", (raw.url ?? "").replace(/\?.*$/s, ""), values, ip),
  );
}

type FastifyHook<Request> = (request: Request, reply: FastifyReplyPart) => Promise<unknown>;
type Decide<Request> = (
  guard: Guard,
  values: readonly string[],
  request: Request,
  ip: () => string | undefined,
) => Promise<Outcome>;

function deciderOf<Request extends FastifyRequestPart>(
  checker: Checker,
  config: FastifyGuardConfig<Request>,
): (decide: Decide<Request>) => FastifyHook<Request> {
  const guard = new Guard(checker, config);
  const clientIp = config.clientIp ?? ((request: Request) => request.raw.socket.remoteAddress);
  return (decide) => async (request, reply) => {
    const { headers, headersDistinct } = request.raw;
    const joined = headers.authorization;
    const values = headersDistinct?.authorization ?? (joined === undefined ? [] : [joined]);
    const outcome = await decide(guard, values, request, () => clientIp(request));
    for (const [name, value] of Object.entries(outcome.headers)) reply.header(name, value);
    if (outcome.pass) {
      results.set(request, outcome.result);
      return undefined;
    }
    reply.code(outcome.status);
    return reply.send(outcome.body);
  };
}

/** Returns the decision about a request that a hook let pass. Throws for any other. */
export function caller(request: object): Result & { readonly token: NonNullable<Result["token"]> } {
  const result = results.get(request);
  if (!result?.token) throw new Error("no guard of patd let this request pass: give the route an onRequest hook");
  return { ...result, token: result.token };
}
