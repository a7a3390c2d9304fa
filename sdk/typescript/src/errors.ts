import type { KnownReason } from "./generated/operations.js";

/** Why a call failed, for programs: the reasons of docs/api.md. */
export type Reason = KnownReason | (string & {});

/** What is wrong with a field of a request. */
export interface Violation {
  /** In snake_case. */
  readonly field: string;
  readonly description: string;
  readonly reason?: string;
}

/** A call of the management client that failed. Decide by `reason`, which is stable, not by the message. */
export class PatdError extends Error {
  override readonly name = "PatdError";
  readonly reason: Reason | undefined;
  readonly metadata: Readonly<Record<string, string>>;
  readonly violations: readonly Violation[];
  readonly requestId: string | undefined;
  /** How long to wait before the call is repeated, in milliseconds, if patd says so. */
  readonly retryAfter: number | undefined;

  constructor(
    /** 0: there was no response. Then a change may have happened. */
    readonly httpStatus: number,
    /** The name of the status, such as `INVALID_ARGUMENT`. */
    readonly status: string,
    message: string,
    more: {
      reason?: string | undefined;
      metadata?: Record<string, string> | undefined;
      violations?: Violation[] | undefined;
      requestId?: string | undefined;
      retryAfter?: number | undefined;
      cause?: unknown;
    } = {},
  ) {
    super(message, "cause" in more ? { cause: more.cause } : undefined);
    this.reason = more.reason;
    this.metadata = more.metadata ?? {};
    this.violations = more.violations ?? [];
    this.requestId = more.requestId;
    this.retryAfter = more.retryAfter;
  }

  /** Reports whether something is an error for this reason. */
  static is<R extends Reason>(err: unknown, reason: R): err is PatdError & { readonly reason: R } {
    return err instanceof PatdError && err.reason === reason;
  }
}

interface Detail {
  "@type"?: string;
  reason?: string;
  metadata?: Record<string, string>;
  field_violations?: Violation[];
  request_id?: string;
}

/** Reads the error of a response. What is not of patd's form has a status and no reason. */
export function errorOf(response: Response, text: string): PatdError {
  let error: { status?: string; message?: string; details?: Detail[] } = {};
  try {
    error = (JSON.parse(text) as { error?: typeof error }).error ?? {};
  } catch {
    // a proxy's
  }
  const details = Array.isArray(error.details) ? error.details : [];
  const info = details.find((d) => d["@type"]?.endsWith("google.rpc.ErrorInfo"));
  const seconds = Number(response.headers.get("retry-after") ?? NaN);
  return new PatdError(
    response.status,
    typeof error.status === "string" ? error.status : "UNKNOWN",
    typeof error.message === "string" ? error.message : `patd answered with status ${response.status}`,
    {
      reason: info?.reason,
      metadata: info?.metadata,
      violations: details.flatMap((d) => d.field_violations ?? []),
      requestId: details.find((d) => d.request_id)?.request_id ?? response.headers.get("x-request-id") ?? undefined,
      retryAfter: Number.isNaN(seconds) ? undefined : seconds * 1000,
    },
  );
}
