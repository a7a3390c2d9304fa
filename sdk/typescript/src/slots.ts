import { Fault } from "./fault.js";
import { closed } from "./transport.js";

/** Bounds how many requests are under way. */
export class Slots {
  #free: number;
  readonly #waiting = new Set<(err?: Fault) => void>(); // in the order in which they came
  #closed = false;

  constructor(slots: number) {
    this.#free = slots;
  }

  /** Waits for a slot, for a number of milliseconds at most. */
  take(timeout: number, signal: AbortSignal | undefined): Promise<void> | void {
    if (this.#closed) throw closed();
    if (this.#free > 0) {
      this.#free--;
      return;
    }
    return new Promise((resolve, reject) => {
      const end = (err?: Fault) => {
        clearTimeout(alarm);
        signal?.removeEventListener("abort", abort);
        this.#waiting.delete(end);
        if (err) reject(err);
        else resolve();
      };
      const abort = () => end(new Fault("aborted", "the caller gave up", { cause: signal?.reason }));
      const alarm = setTimeout(() => end(new Fault("unavailable", "too many checks are waiting for patd")), timeout);
      this.#waiting.add(end);
      signal?.addEventListener("abort", abort, { once: true });
      if (signal?.aborted) abort();
    });
  }

  /** Gives a slot back, to the one that has waited for longest. */
  give(): void {
    for (const next of this.#waiting) return next();
    this.#free++;
  }

  /** Lets all that wait fail. */
  close(): void {
    this.#closed = true;
    for (const next of [...this.#waiting]) next(closed());
  }
}
