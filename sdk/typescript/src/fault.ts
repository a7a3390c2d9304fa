/**
 * Why nothing is known about a token:
 *
 * - `unavailable`: patd did not answer in time, cannot decide now, or its answer made no sense;
 * - `forbidden`: patd refuses the service token of this program (401, 403);
 * - `invalid`: the arguments of the call are refused;
 * - `aborted`: the signal of the call ended the wait;
 * - `closed`: the verifier was closed.
 */
export type FaultKind = "unavailable" | "forbidden" | "invalid" | "aborted" | "closed";

/** A check that has no decision. The call at hand must fail with 503, never with 401, and never pass. */
export class Fault extends Error {
  override readonly name = "Fault";
  constructor(
    readonly kind: FaultKind,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** Returns the fault that an error is, or stands for. */
export function faultOf(err: unknown, doing: string): Fault {
  if (err instanceof Fault) return err;
  return new Fault("unavailable", `${doing}: ${err instanceof Error ? err.message : String(err)}`, { cause: err });
}
