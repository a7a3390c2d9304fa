import type { Transport } from "./transport.js";

/** Bounds one call, in milliseconds. It is longer than patd waits for it. */
const timeout = 5000;

/**
 * Tells patd what was applied, where patd asks for it, so that a call which revokes can return early. The watch never
 * waits for it. A failure is ignored: patd then waits until this memory would be closed by its own rule.
 */
export class Acknowledger {
  #newest: object | undefined; // a later position includes an earlier one
  #sending: Promise<void> | undefined;

  constructor(readonly transport: Transport) {}

  /** Records that everything up to a position of a watch has been applied, and sends it as soon as no call runs. */
  applied(watchId: string, sequence: number): void {
    this.#newest = { watch_id: watchId, sequence: String(sequence) };
    this.#sending ??= this.#send();
  }

  /** Waits for the call that runs, and the one after it. Once the transport is closed, both fail at once. */
  async idle(): Promise<void> {
    await this.#sending;
  }

  async #send(): Promise<void> {
    while (this.#newest) {
      const body = this.#newest;
      this.#newest = undefined;
      await this.transport.post("/v1/invalidations:acknowledge", body, timeout).catch(() => {});
    }
    this.#sending = undefined;
  }
}
