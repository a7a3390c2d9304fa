import { reasonOf, type Result } from "./decision.js";

/** Why a token is refused, in the words of patd, for its bearer. */
export interface Refusal {
  readonly reason: string;
  /** Printable ASCII without quotes and backslashes, as long as scopes have their syntax. */
  readonly text: string;
  /** Required, and never granted. */
  readonly missing: readonly string[];
  /** Required and granted, but not held by the user now. */
  readonly suspended: readonly string[];
  /** Required and granted, but paused: the owner may resume them. */
  readonly paused: readonly string[];
}

const fixed: Readonly<Record<string, string>> = {
  USER_SUSPENDED: "the user of the token is suspended",
  POLICY_BLOCKED: "the operator has blocked the token, since it exceeds the policy of an audience",
  TOKEN_IDLE: "the token is paused, since it was not used for long; its owner can resume it",
  AUDIENCE_MISMATCH: "the token is not for this audience",
  IP_NOT_ALLOWED: "the token is not allowed from this address",
};

/** Says why a result is a refusal. */
export function refusalOf(r: Result): Refusal {
  const reason = reasonOf(r.decision) ?? "";
  const lists = { missing: [] as string[], suspended: [] as string[], paused: [] as string[] };
  for (const scope of r.missing) {
    if (r.token?.paused.includes(scope)) lists.paused.push(scope);
    else if (r.token?.granted.includes(scope)) lists.suspended.push(scope);
    else lists.missing.push(scope);
  }
  return { reason, text: textOf(r, lists), ...lists };
}

function textOf(r: Result, lists: { missing: string[]; suspended: string[]; paused: string[] }): string {
  switch (r.decision) {
    case "EXPIRED":
      return at("the token expired", "the token has expired", r.endTime);
    case "REVOKED":
      return at("the token was revoked", "the token was revoked", r.endTime);
    case "SUPERSEDED":
      return at(
        "the token was rotated, and this secret stopped working",
        "the token was rotated, and this secret has stopped working",
        r.endTime,
      );
    case "INSUFFICIENT_SCOPE": {
      const parts: string[] = [];
      if (lists.missing.length > 0) parts.push(`the token was not granted ${lists.missing.join(" ")}`);
      if (lists.suspended.length > 0) parts.push(`its user does not hold ${lists.suspended.join(" ")} now`);
      if (lists.paused.length > 0) parts.push(`its owner can resume ${lists.paused.join(" ")}, which was paused`);
      return parts.join("; ") || "the token lacks a scope that this request needs";
    }
    default:
      return fixed[r.decision] ?? "the token is not valid";
  }
}

function at(when: string, without: string, time: Date | undefined): string {
  return time ? `${when} at ${seconds(time)}` : without;
}

/** Returns a time in RFC 3339, cut to whole seconds, so that a token never seems to last longer than it does. */
export function seconds(time: Date): string {
  return time.toISOString().replace(/\.\d+Z$/, "Z");
}
