import { isActive, isDecision, isFinal, type Token } from "./decision.js";
import { Entry } from "./entry.js";
import { Fault } from "./fault.js";

/** How long a final refusal is kept, in milliseconds. */
const refusalAge = 2000;

/** An answer of patd, read. */
export interface Answer {
  readonly entry: Entry;
  readonly sequence: number;
  /** It is good for every address. */
  readonly everywhere: boolean;
}

/**
 * Reads an answer of patd that was asked for at a time of the monotonic clock. What contradicts itself is a fault:
 * nothing is known about the token.
 */
export function readAnswer(body: unknown, sent: number, maxAge: number): Answer {
  const r = record(body, "the answer");
  const decision = r["decision"];
  if (!isDecision(decision) || r["active"] !== isActive(decision))
    throw nonsense("the answer of patd contradicts itself");
  if (!isActive(decision)) {
    const entry = new Entry(decision, undefined, time(r["end_time"]), time(r["expire_time"]));
    if (isFinal(decision)) entry.until = sent + refusalAge;
    return { entry, sequence: 0, everywhere: isFinal(decision) || r["any_client_ip"] === true };
  }
  const entry = new Entry(decision, readToken(r));
  entry.until = sent + maxAge * (1 - Math.random() / 10); // so that answers do not end together
  const left = r["expires_in"];
  if (left !== undefined && left !== null) entry.until = Math.min(entry.until, sent + milliseconds(left));
  return { entry, sequence: position(r["sequence"] ?? "0"), everywhere: r["any_client_ip"] === true };
}

function readToken(r: Record<string, unknown>): Token {
  const id = text(r["token_id"]);
  const user = text(r["user"]);
  if (!id || !user) throw nonsense("the answer of patd does not say whose token it is");
  const issueTime = time(r["issue_time"]);
  const expireTime = time(r["expire_time"]);
  const accessTokenId = text(r["access_token_id"]);
  const clientId = text(r["client_id"]);
  return Object.freeze({
    id,
    user,
    name: text(r["name"]),
    scopes: texts(r["scopes"]),
    granted: texts(r["granted_scopes"]),
    suspended: texts(r["suspended_scopes"]),
    paused: texts(r["paused_scopes"]),
    audiences: texts(r["audiences"]),
    labels: labels(r["labels"]),
    stale: r["stale"] === true,
    ...(issueTime && { issueTime }),
    ...(expireTime && { expireTime }),
    ...(accessTokenId && { accessTokenId }),
    ...(clientId && { clientId }),
  });
}

/** Returns the fault of an answer that makes no sense. */
export function nonsense(message: string): Fault {
  return new Fault("unavailable", message);
}

/** Reads an object. */
export function record(value: unknown, what: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw nonsense(`${what} of patd is no object`);
  return value as Record<string, unknown>;
}

function text(value: unknown): string {
  if (value === undefined || value === null) return "";
  if (typeof value !== "string") throw nonsense("a text in the answer of patd is none");
  return value;
}

/** Reads a list of texts; absent: an empty one. */
export function texts(value: unknown): readonly string[] {
  if (value === undefined || value === null) return Object.freeze([]);
  if (!Array.isArray(value) || value.some((v) => typeof v !== "string"))
    throw nonsense("a list in the answer of patd is none");
  return Object.freeze(value as string[]);
}

function labels(value: unknown): Readonly<Record<string, string>> {
  if (value === undefined || value === null) return Object.freeze({});
  const out = record(value, "a label");
  Object.values(out).forEach(text);
  return Object.freeze(out as Record<string, string>);
}

/** Reads a position in the change feed: a decimal number, as text. */
export function position(value: unknown): number {
  const n = typeof value === "string" && /^[0-9]{1,20}$/.test(value) ? Number(value) : NaN;
  if (!Number.isSafeInteger(n)) throw nonsense("a position in the answer of patd is none"); // 2^53 changes are not made
  return n;
}

function time(value: unknown): Date | undefined {
  if (value === undefined || value === null) return undefined;
  const at = typeof value === "string" ? Date.parse(value) : NaN;
  if (Number.isNaN(at)) throw nonsense("a time in the answer of patd is none");
  return new Date(at);
}

function milliseconds(value: unknown): number {
  const found = typeof value === "string" ? /^(-?[0-9]+(?:\.[0-9]+)?)s$/.exec(value) : null;
  if (!found) throw nonsense("a duration in the answer of patd is none");
  return Number(found[1]) * 1000;
}
