/** What was decided about a token. Only `ALLOW` lets a call pass. */
export type Decision =
  | "ALLOW"
  | "INSUFFICIENT_SCOPE"
  | "NOT_FOUND"
  | "EXPIRED"
  | "REVOKED"
  | "SUPERSEDED"
  | "USER_SUSPENDED"
  | "AUDIENCE_MISMATCH"
  | "IP_NOT_ALLOWED"
  | "POLICY_BLOCKED"
  | "TOKEN_IDLE";

const reasons: Readonly<Record<Decision, string | undefined>> = {
  ALLOW: undefined,
  INSUFFICIENT_SCOPE: "SCOPE_INSUFFICIENT",
  NOT_FOUND: "CREDENTIAL_INVALID",
  EXPIRED: "TOKEN_EXPIRED",
  REVOKED: "TOKEN_REVOKED",
  SUPERSEDED: "TOKEN_SUPERSEDED",
  USER_SUSPENDED: "USER_SUSPENDED",
  AUDIENCE_MISMATCH: "AUDIENCE_MISMATCH",
  IP_NOT_ALLOWED: "IP_NOT_ALLOWED",
  POLICY_BLOCKED: "POLICY_BLOCKED",
  TOKEN_IDLE: "TOKEN_IDLE",
};

/** Returns the stable reason of a refusal, as patd's own errors have it; undefined for `ALLOW`. */
export function reasonOf(decision: Decision): string | undefined {
  return reasons[decision];
}

/** Reports whether a text is a decision that this library knows. */
export function isDecision(text: unknown): text is Decision {
  return typeof text === "string" && Object.hasOwn(reasons, text);
}

/** Reports whether a decision means an active token. */
export function isActive(decision: Decision): boolean {
  return decision === "ALLOW" || decision === "INSUFFICIENT_SCOPE";
}

/** Reports whether a refusal will never be taken back for the same secret. */
export function isFinal(decision: Decision): boolean {
  return decision === "NOT_FOUND" || decision === "EXPIRED" || decision === "REVOKED" || decision === "SUPERSEDED";
}

/** An active token. It is shared between checks, and frozen. */
export interface Token {
  /** The public id of the personal access token; safe to log. */
  readonly id: string;
  /** The id of its owner. */
  readonly user: string;
  readonly name: string;
  /** The scopes in effect: granted, and held by the user now. Sorted. */
  readonly scopes: readonly string[];
  /** The scopes as granted. Sorted. */
  readonly granted: readonly string[];
  /** Granted, but not held by the user now. Sorted. */
  readonly suspended: readonly string[];
  /** Granted, but not in effect until the owner resumes them. Sorted. */
  readonly paused: readonly string[];
  /** Empty: none in particular. */
  readonly audiences: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
  readonly issueTime?: Date;
  /** When the presented secret stops working; absent: never. */
  readonly expireTime?: Date;
  /** The public id of the short-lived access token that was presented; absent: a personal one was. */
  readonly accessTokenId?: string;
  /** The client that a short-lived access token was given to, as it named itself. */
  readonly clientId?: string;
  /** The source of features does not respond: the scopes rest on its last answer. */
  readonly stale: boolean;
}

/** A decision about a token. */
export interface Result {
  /** Whether the call may go on: the decision is `ALLOW`. */
  readonly allowed: boolean;
  readonly decision: Decision;
  /** Of an active token, which is one whose decision is `ALLOW` or `INSUFFICIENT_SCOPE`. */
  readonly token?: Token;
  /** The required scopes that are not in effect. Sorted. */
  readonly missing: readonly string[];
  /** When the token expired, was revoked, or its secret stopped working; absent: not known, or another decision. */
  readonly endTime?: Date;
  /** When the secret of a token that is not active stops working, or stopped; absent: never, or not known. */
  readonly expireTime?: Date;
}

/** What the call at hand requires of a token. */
export interface Call {
  /** The caller's own API; absent or empty: that of the checker's configuration. */
  readonly audience?: string | undefined;
  /** The scopes that the call needs, all of them. Absent or empty: an active token is enough. */
  readonly scopes?: readonly string[] | undefined;
  /** The address that the token was presented from. A token that is bound to networks is refused without it. */
  readonly clientIp?: string | undefined;
  /** Ends the wait of this check. A request that other checks wait for goes on. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Decides about tokens. A decision is a value. A rejection is a fault: nothing is known about the token, and the call
 * at hand must fail with 503, and never pass.
 */
export interface Checker {
  /** Decides about a token, exactly as the client sent it. */
  verify(token: string, call?: Call): Promise<Result>;
}

const none: readonly string[] = Object.freeze([]);

/** Decides about an active token for one call. */
export function decide(token: Token, required: readonly string[] | undefined): Result {
  let missing: string[] | undefined;
  if (required !== undefined) {
    for (const scope of required) {
      if (!token.scopes.includes(scope) && !missing?.includes(scope)) (missing ??= []).push(scope);
    }
  }
  return missing === undefined
    ? { allowed: true, decision: "ALLOW", token, missing: none }
    : { allowed: false, decision: "INSUFFICIENT_SCOPE", token, missing: missing.sort() };
}

/** Returns a refusal. */
export function refused(decision: Decision, endTime?: Date, expireTime?: Date): Result {
  return {
    allowed: false,
    decision,
    missing: none,
    ...(endTime && { endTime }),
    ...(expireTime && { expireTime }),
  };
}
