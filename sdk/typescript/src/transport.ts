import { Fault } from "./fault.js";

/** A service token, or a function that returns it: it is called before each request, so the token can be rotated. */
export type TokenSource = string | (() => string | Promise<string>);

/** What a transport needs. */
export interface TransportConfig {
  /** The address of patd, such as `https://patd.example.com:8080`. Plain http is for this machine only. */
  readonly url: string | URL;
  /** The service token of this program. */
  readonly token: TokenSource;
  /** Allows plain http to other machines, which shows every token to the network in between. */
  readonly allowPlainHttp?: boolean | undefined;
  /** In place of the global one. */
  readonly fetch?: typeof fetch | undefined;
}

/** The longest answer that is read, in bytes. */
const maxAnswer = 4 << 20;

/** Sends requests to patd. */
export class Transport {
  readonly #base: string;
  readonly #token: TokenSource;
  readonly #fetch: typeof fetch;
  readonly #open = new Set<AbortController>();
  #closed = false;

  constructor(config: TransportConfig) {
    this.#base = baseOf(config.url, config.allowPlainHttp ?? false);
    this.#token = config.token;
    const own = config.fetch;
    this.#fetch = own ?? ((input, init) => fetch(input, init));
  }

  /** Ends all requests, and refuses later ones. */
  close(): void {
    this.#closed = true;
    for (const request of this.#open) request.abort();
  }

  /** Lets requests be sent again, for a last report. */
  reopen(): void {
    this.#closed = false;
  }

  /** Posts a JSON body and returns that of the response, whose status must be 200. The timeout is in milliseconds. */
  async post(path: string, body: unknown, timeout: number): Promise<unknown> {
    const text = JSON.stringify(body);
    return this.request(timeout, async (signal) => {
      const send = () =>
        this.#send(path, { method: "POST", body: text, signal, headers: { "Content-Type": "application/json" } });
      const response = await send().catch((err: unknown) => {
        // A connection that was kept open may have ended. To ask again does no harm.
        if (err instanceof Fault || signal.aborted) throw err;
        return send();
      });
      return parse(await readText(response, maxAnswer));
    });
  }

  /** Opens a stream of events. */
  async stream(path: string, signal: AbortSignal): Promise<Response> {
    const sent = this.#send(path, { signal, cache: "no-store", headers: { Accept: "text/event-stream" } });
    const response = await abortable(sent, signal);
    if (!/^text\/event-stream\b/i.test(response.headers.get("content-type") ?? "")) {
      await response.body?.cancel().catch(() => {});
      throw new Fault("unavailable", "patd did not answer with events");
    }
    return response;
  }

  /** Runs a request that ends with the transport, and in time. */
  async request<T>(timeout: number, run: (signal: AbortSignal) => Promise<T>): Promise<T> {
    if (this.#closed) throw closed();
    const controller = new AbortController();
    this.#open.add(controller);
    const alarm = setTimeout(() => controller.abort(), timeout);
    try {
      return await abortable(run(controller.signal), controller.signal);
    } catch (err) {
      if (this.#closed) throw closed();
      if (controller.signal.aborted) throw new Fault("unavailable", "patd did not answer in time", { cause: err });
      throw err;
    } finally {
      clearTimeout(alarm);
      this.#open.delete(controller);
    }
  }

  async #send(path: string, init: RequestInit & { headers: Record<string, string> }): Promise<Response> {
    const authorization = await authorizationOf(this.#token);
    const response = await this.#fetch(this.#base + path, {
      ...init,
      redirect: "manual", // a redirect would carry tokens to where it points
      headers: { ...init.headers, Authorization: authorization },
    });
    if (response.status === 200) return response;
    await response.body?.cancel().catch(() => {});
    throw new Fault(kindOf(response.status), `patd answered with status ${response.status}`);
  }
}

/** Returns the header for a service token. The error for what is none does not say it, as fetch's own would. */
export async function authorizationOf(source: TokenSource): Promise<string> {
  const token = (typeof source === "string" ? source : await source()).trim();
  if (!/^[!-~]+$/.test(token)) throw new TypeError("the service token is no token: it has no or other characters");
  return `Bearer ${token}`;
}

/** Returns the fault of a transport that was closed. */
export function closed(): Fault {
  return new Fault("closed", "the verifier is closed");
}

function kindOf(status: number): "forbidden" | "invalid" | "unavailable" {
  if (status === 401 || status === 403) return "forbidden";
  return status === 400 ? "invalid" : "unavailable";
}

/** Returns the address that paths are added to. */
export function baseOf(url: string | URL, allowPlainHttp: boolean): string {
  const u = new URL(url);
  if (u.username || u.password || u.search || u.hash) {
    throw new TypeError("the address of patd has no user, query or fragment");
  }
  if (u.protocol !== "https:" && (u.protocol !== "http:" || !(allowPlainHttp || isLoopback(u.hostname)))) {
    throw new TypeError(`the address of patd must be https, unless it is this machine: ${u.origin}`);
  }
  return u.origin + u.pathname.replace(/\/+$/, "");
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "[::1]" || /^127\.\d+\.\d+\.\d+$/.test(host);
}

/** Reads a body as text, up to a number of bytes. */
export async function readText(response: Response, max: number): Promise<string> {
  if (!response.body) return "";
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let out = "";
  let n = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return out + decoder.decode();
    n += value.length;
    if (n > max) {
      await reader.cancel().catch(() => {});
      throw new Fault("unavailable", "the answer of patd is too long");
    }
    out += decoder.decode(value, { stream: true });
  }
}

/** Waits for a promise, until the signal at most, whether or not the promise obeys it. */
export function abortable<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new Fault("unavailable", "the answer of patd is not JSON"); // without its text
  }
}
