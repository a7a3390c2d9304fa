// A patd without a network: what a Verifier is given as its fetch.

export interface Asked {
  readonly path: string;
  readonly body: Record<string, unknown>;
}

/** Answers requests as patd would, and lets a test send events. */
export class Wire {
  readonly asked: Asked[] = [];
  readonly acknowledged: Record<string, unknown>[] = [];
  answer: (body: Record<string, unknown>) => object | Promise<object> = () => ({
    active: false,
    decision: "NOT_FOUND",
  });
  status = 200;
  keep = true; // what was asked
  count = 0;
  acknowledging: (signal: AbortSignal) => Response | Promise<Response> = () => new Response("{}");
  watches = 0; // so far
  #sequence = 1;
  #send: ((text: string) => void) | undefined;
  #end: (() => void) | undefined;
  readonly #beat = setInterval(() => this.event("heartbeat"), 300);

  readonly fetch = (async (input: string | URL | Request, init: RequestInit = {}) => {
    const path = new URL(String(input)).pathname;
    if (path === "/v1/invalidations") return this.#watch(init.signal as AbortSignal);
    const body = JSON.parse(String(init.body)) as Record<string, unknown>;
    if (path === "/v1/invalidations:acknowledge") {
      this.acknowledged.push(body);
      return this.acknowledging(init.signal as AbortSignal);
    }
    this.count++;
    if (this.keep) this.asked.push({ path, body });
    if (this.status !== 200) return new Response("{}", { status: this.status });
    const text = JSON.stringify(path === "/v1/introspect" ? await this.answer(body) : {});
    // A Response has a cost that is not the library's.
    let left: Uint8Array | undefined = new TextEncoder().encode(text);
    const read = async () => {
      const value = left;
      left = undefined;
      return { done: value === undefined, value };
    };
    return { status: 200, headers: new Headers(), body: { getReader: () => ({ read }) } } as unknown as Response;
  }) as typeof fetch;

  #watch(signal: AbortSignal): Response {
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => {
        this.#send = (text) => controller.enqueue(new TextEncoder().encode(text));
        this.#end = () => controller.close();
        signal.addEventListener("abort", () => {
          this.#send = this.#end = undefined;
          controller.error(signal.reason);
        });
      },
    });
    this.event("start-over", [], [], { watch_id: `watch-${++this.watches}` });
    return new Response(body, { headers: { "Content-Type": "text/event-stream" } });
  }

  event(type: string, tokenIds: string[] = [], users: string[] = [], more: object = {}): void {
    if (type === "invalidations") this.#sequence++;
    const data = {
      sequence: String(this.#sequence),
      history: "h",
      start_over: type === "start-over",
      token_ids: tokenIds,
      users,
      ...more,
    };
    this.#send?.(`event: ${type}\nid: ${this.#sequence}-h\ndata: ${JSON.stringify(data)}\n\n`);
  }

  get sequence(): string {
    return String(this.#sequence);
  }

  close(): void {
    clearInterval(this.#beat);
    this.#end?.();
  }
}

/** Waits until something is so. */
export async function until(so: () => boolean): Promise<void> {
  const end = Date.now() + 20_000;
  while (!so()) {
    if (Date.now() > end) throw new Error("it never was so");
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** An answer about an active token. */
export function active(wire: Wire, more: object = {}): object {
  return {
    active: true,
    decision: "ALLOW",
    token_id: "15ODq7pq8Hy",
    user: "alice",
    scopes: ["read"],
    granted_scopes: ["read"],
    any_client_ip: true,
    sequence: wire.sequence,
    ...more,
  };
}
