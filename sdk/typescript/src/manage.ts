// The management client: users, tokens, features, audiences, services, webhooks and the audit log. Its types are those
// of the OpenAPI document of patd.

import { PatdError, errorOf } from "./errors.js";
import type { operations } from "./generated/openapi.js";
import { table } from "./generated/operations.js";
import { abortable, authorizationOf, baseOf, readText, type TransportConfig } from "./transport.js";

export { Duration } from "./duration.js";
export { PatdError, type Reason, type Violation } from "./errors.js";
export type { components } from "./generated/openapi.js";

type Table = typeof table;
/** The operations of patd, by their `operationId`. */
export type Operation = keyof Table & keyof operations;
/** The operations that return pages. */
export type ListOperation = { [O in Operation]: Table[O] extends { items: string } ? O : never }[Operation];

type Path<O extends Operation> = operations[O]["parameters"] extends { path: infer P } ? P : never;
type Query<O extends Operation> = operations[O]["parameters"] extends { query?: infer Q }
  ? Exclude<Q, undefined>
  : never;
type Body<O extends Operation> = operations[O] extends { requestBody?: infer B }
  ? Exclude<B, undefined> extends { content: { "application/json": infer T } }
    ? T
    : never
  : never;
type Needed<O extends Operation> = operations[O] extends { requestBody: { content: { "application/json": infer T } } }
  ? { readonly body: Input<T> }
  : [Body<O>] extends [never]
    ? unknown
    : { readonly body?: Input<Body<O>> };
type Content<R> = R extends { content: { "application/json": infer T } } ? T : undefined;
/** What an operation returns. */
export type Output<O extends Operation> = operations[O] extends { responses: infer R }
  ? R extends { 200: infer S }
    ? Content<S>
    : R extends { 201: infer S }
      ? Content<S>
      : undefined
  : never;
/** A body as the document has it, with a Date where it has a time. Whatever has a toJSON, as a Duration, is text. */
export type Input<T> = T extends string
  ? T | { toJSON(): string }
  : T extends readonly (infer E)[]
    ? readonly Input<E>[]
    : T extends object
      ? { readonly [K in keyof T]: Input<T[K]> }
      : T;

/** What is common to all calls. */
export interface CallOptions {
  /** Changes a record only if it still has this etag. Then the call is not repeated by itself. */
  readonly etag?: string | undefined;
  /** For calls that create or rotate. One is made for each call, so that a repetition returns the first secret. */
  readonly idempotencyKey?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** The arguments of an operation. */
export type Arguments<O extends Operation> = CallOptions &
  ([Path<O>] extends [never] ? unknown : { readonly path: Path<O> }) &
  ([Query<O>] extends [never] ? unknown : { readonly query?: Query<O> }) &
  Needed<O>;
// Arguments may be left out if none is needed.
type Rest<O extends Operation> = object extends Arguments<O> ? [args?: Arguments<O>] : [args: Arguments<O>];

type Item<O extends ListOperation> = Table[O] extends { items: infer I extends string }
  ? I extends keyof Output<O>
    ? Exclude<Output<O>[I], undefined> extends readonly (infer E)[]
      ? E
      : never
    : never
  : never;

/** Configures {@link Manage}. Times are in milliseconds. */
export interface ManageConfig extends TransportConfig {
  /** Bounds a call with all its repetitions. 30 seconds. */
  readonly timeout?: number | undefined;
  /** How often a call is sent at most, where that is safe. 4. */
  readonly attempts?: number | undefined;
}

interface Loose extends CallOptions {
  readonly path?: Readonly<Record<string, string>>;
  readonly query?: Readonly<Record<string, unknown>>;
  readonly body?: unknown;
}

interface Row {
  readonly method: string;
  readonly path: string;
  readonly key?: boolean;
  readonly repeat?: boolean;
  readonly items?: string;
  readonly ask?: string;
  readonly next?: string;
}

/** Calls the operations of patd. A failed call rejects with a {@link PatdError}. */
export class Manage {
  readonly #base: string;
  readonly #config: ManageConfig;

  constructor(config: ManageConfig) {
    this.#base = baseOf(config.url, config.allowPlainHttp ?? false);
    this.#config = config;
  }

  /** Calls an operation, by its `operationId`. */
  call<O extends Operation>(operation: O, ...rest: Rest<O>): Promise<Output<O>> {
    return this.#call(table[operation], (rest[0] ?? {}) as Loose) as Promise<Output<O>>;
  }

  /** Iterates over all items of an operation that returns pages. A page is asked for when it is needed. */
  async *list<O extends ListOperation>(operation: O, ...rest: Rest<O>): AsyncGenerator<Item<O>, void, void> {
    const row: Row = table[operation];
    const args = (rest[0] ?? {}) as Loose;
    let query = args.query ?? {};
    for (;;) {
      const page = (await this.#call(row, { ...args, query })) as Record<string, unknown>;
      yield* (page[row.items as string] ?? []) as Item<O>[];
      const next = page[row.next as string];
      if (typeof next !== "string" || next === "") return;
      query = { ...query, [row.ask as string]: next };
    }
  }

  /** Creates a token. The secret is returned this once. */
  createToken(
    user: string,
    body: Arguments<"createToken">["body"],
    options: CallOptions = {},
  ): Promise<Output<"createToken">> {
    return this.call("createToken", { ...options, path: { user }, body });
  }

  /** Iterates over the tokens of a user. */
  listTokens(user: string, query: Query<"listTokens"> = {}): AsyncGenerator<Item<"listTokens">, void, void> {
    return this.list("listTokens", { path: { user }, query });
  }

  /** Gives a token a new secret, which is returned this once. */
  rotateToken(
    user: string,
    tokenId: string,
    body: Input<Body<"rotateToken">> = {},
    options: CallOptions = {},
  ): Promise<Output<"rotateToken">> {
    return this.call("rotateToken", { ...options, path: { user, token_id: tokenId }, body });
  }

  /** Revokes a token. To revoke it again has the same result. */
  revokeToken(
    user: string,
    tokenId: string,
    reason = "",
    options: CallOptions = {},
  ): Promise<Output<"revokeTokenByPost">> {
    return this.call("revokeTokenByPost", {
      ...options,
      path: { user, token_id: tokenId },
      body: reason ? { reason } : {},
    });
  }

  /** Sets which features a user holds. */
  setUserFeatures(
    user: string,
    features: readonly string[],
    options: CallOptions = {},
  ): Promise<Output<"setUserFeatures">> {
    return this.call("setUserFeatures", { ...options, path: { user }, body: { features } });
  }

  /** Suspends a user: all its tokens are refused until it is resumed. */
  suspendUser(user: string, reason = "", options: CallOptions = {}): Promise<Output<"suspendUser">> {
    return this.call("suspendUser", { ...options, path: { user }, body: reason ? { reason } : {} });
  }

  /** Resumes a user. */
  resumeUser(user: string, options: CallOptions = {}): Promise<Output<"resumeUser">> {
    return this.call("resumeUser", { ...options, path: { user } });
  }

  /** Iterates over the live tokens of all users that a query names. */
  searchTokens(query: Query<"searchTokens"> = {}): AsyncGenerator<Item<"searchTokens">, void, void> {
    return this.list("searchTokens", { query });
  }

  /** Iterates over the audit log, newest first. */
  listEvents(query: Query<"listEvents"> = {}): AsyncGenerator<Item<"listEvents">, void, void> {
    return this.list("listEvents", { query });
  }

  async #call(row: Row, args: Loose): Promise<unknown> {
    const controller = new AbortController();
    const stop = () => controller.abort(args.signal?.reason);
    args.signal?.addEventListener("abort", stop, { once: true });
    if (args.signal?.aborted) stop();
    const timeout = this.#config.timeout ?? 30_000;
    const alarm = setTimeout(
      () => controller.abort(new PatdError(0, "DEADLINE_EXCEEDED", "patd did not answer in time")),
      timeout,
    );
    const key = row.key ? (args.idempotencyKey ?? crypto.randomUUID()) : undefined;
    const repeat = (row.repeat === true || key !== undefined) && args.etag === undefined;
    try {
      for (let attempt = 1; ; attempt++) {
        try {
          return await abortable(this.#send(row, args, key, controller.signal), controller.signal);
        } catch (err) {
          if (controller.signal.aborted) throw controller.signal.reason;
          const pause = pauseAfter(err, repeat, attempt);
          if (attempt >= (this.#config.attempts ?? 4) || pause === null) throw err;
          await abortable(new Promise((resolve) => setTimeout(resolve, pause)), controller.signal);
        }
      }
    } finally {
      clearTimeout(alarm);
      args.signal?.removeEventListener("abort", stop);
    }
  }

  async #send(row: Row, args: Loose, key: string | undefined, signal: AbortSignal): Promise<unknown> {
    const authorization = await authorizationOf(this.#config.token);
    const url = this.#base + pathOf(row.path, args.path, args.query);
    const init: RequestInit = {
      method: row.method,
      redirect: "manual",
      signal,
      headers: {
        Authorization: authorization,
        ...(key !== undefined && { "Idempotency-Key": key }),
        ...(args.etag !== undefined && { "If-Match": args.etag }),
        ...(args.body !== undefined && { "Content-Type": "application/json" }),
      },
      ...(args.body !== undefined && { body: JSON.stringify(args.body) }),
    };
    let response: Response;
    let text: string;
    try {
      response = await (this.#config.fetch ?? fetch)(url, init);
      text = await readText(response, 64 << 20);
    } catch (err) {
      if (signal.aborted || err instanceof PatdError) throw err;
      throw new PatdError(0, "UNAVAILABLE", "the connection to patd failed", { cause: err });
    }
    if (!response.ok) throw errorOf(response, text);
    if (text === "") return undefined;
    try {
      return JSON.parse(text);
    } catch {
      throw new PatdError(response.status, "INTERNAL", "the answer of patd is not JSON");
    }
  }
}

function pathOf(path: string, values: Loose["path"], query: Loose["query"]): string {
  const filled = path.replace(/\{(\w+)\}/g, (_, name: string) => {
    const value = values?.[name];
    // A segment of dots is folded away by fetch, and the call would be another one.
    if (!value || /^\.{1,2}$/.test(value)) throw new TypeError(`${name} cannot be ${JSON.stringify(value)} in a path`);
    return encodeURIComponent(value);
  });
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== undefined) search.append(name, value instanceof Date ? value.toISOString() : String(value));
  }
  return search.size > 0 ? `${filled}?${search}` : filled;
}

/** Returns how long to wait before a call is repeated, in milliseconds; null: it is not. */
function pauseAfter(err: unknown, repeat: boolean, attempt: number): number | null {
  if (!(err instanceof PatdError)) return null;
  const busy = err.httpStatus === 429; // the call was refused before it began
  const lost = err.httpStatus === 0 || err.httpStatus === 502 || err.httpStatus === 503 || err.httpStatus === 504;
  if (!busy && !(lost && repeat)) return null;
  if (err.retryAfter !== undefined) return err.retryAfter > 10_000 ? null : err.retryAfter;
  return 100 * 2 ** attempt * (0.5 + Math.random());
}
