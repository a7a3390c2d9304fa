// A checker without a patd, for tests of programs that accept tokens.

import { decide, refused, type Call, type Checker, type Decision, type Result, type Token } from "./decision.js";
import { Fault } from "./fault.js";
import { isPlausible, randomToken } from "./form.js";

/** What a token of the fake is like. */
export interface FakeToken {
  readonly user: string;
  readonly scopes?: readonly string[];
  /** Empty: none in particular. */
  readonly audiences?: readonly string[];
  /** The client addresses that it works from; absent: all. */
  readonly clientIps?: readonly string[];
  readonly expireTime?: Date;
  readonly name?: string;
}

interface Minted {
  readonly token: Token;
  readonly clientIps: readonly string[] | undefined;
  ended: "REVOKED" | undefined;
}

/**
 * Decides about tokens that a test minted, as patd would: in the order of its decisions, with its reasons. It checks
 * the form of a token too, so that a test with a made-up text sees `NOT_FOUND`.
 */
export class FakePatd implements Checker {
  readonly #tokens = new Map<string, Minted>();
  readonly #suspended = new Set<string>();
  #down = false;
  /** All checks that let a token pass, in their order. */
  readonly uses: { tokenId: string; scopes: readonly string[]; clientIp?: string | undefined }[] = [];

  constructor(
    readonly audience = "",
    readonly now: () => number = Date.now,
  ) {}

  /** Makes a token. The secret is what a client sends. */
  mint(like: FakeToken): { secret: string; id: string } {
    const { text, id } = randomToken();
    const scopes = Object.freeze([...(like.scopes ?? [])].sort());
    const token: Token = Object.freeze({
      id,
      user: like.user,
      name: like.name ?? "a token of a test",
      scopes,
      granted: scopes,
      suspended: Object.freeze([]),
      paused: Object.freeze([]),
      audiences: Object.freeze([...(like.audiences ?? [])]),
      labels: Object.freeze({}),
      issueTime: new Date(this.now()),
      stale: false,
      ...(like.expireTime && { expireTime: like.expireTime }),
    });
    this.#tokens.set(text, { token, clientIps: like.clientIps, ended: undefined });
    return { secret: text, id };
  }

  /** Revokes a token by its id. */
  revoke(id: string): void {
    for (const m of this.#tokens.values()) if (m.token.id === id) m.ended = "REVOKED";
  }

  /** Suspends a user, or ends that. */
  suspend(user: string, suspended = true): void {
    if (suspended) this.#suspended.add(user);
    else this.#suspended.delete(user);
  }

  /** From now on, nothing is known about any token that has the form of one. */
  outage(down = true): void {
    this.#down = down;
  }

  async verify(token: string, call: Call = {}): Promise<Result> {
    if (!isPlausible(token)) return refused("NOT_FOUND");
    if (this.#down) throw new Fault("unavailable", "the fake has an outage");
    const m = this.#tokens.get(token);
    if (!m) return refused("NOT_FOUND");
    const no = this.#inactive(m, call);
    if (no) return refused(no, undefined, m.token.expireTime);
    const result = decide(m.token, call.scopes);
    if (result.allowed)
      this.uses.push({ tokenId: m.token.id, scopes: [...(call.scopes ?? [])], clientIp: call.clientIp });
    return result;
  }

  #inactive(m: Minted, call: Call): Decision | undefined {
    const audience = call.audience || this.audience;
    const { token } = m;
    if (m.ended) return m.ended;
    if (token.expireTime && token.expireTime.getTime() <= this.now()) return "EXPIRED";
    if (this.#suspended.has(token.user)) return "USER_SUSPENDED";
    if (audience !== "" && token.audiences.length > 0 && !token.audiences.includes(audience))
      return "AUDIENCE_MISMATCH";
    if (m.clientIps && (call.clientIp === undefined || !m.clientIps.includes(call.clientIp))) return "IP_NOT_ALLOWED";
    return undefined;
  }
}
