import { decide, refused, type Decision, type Result, type Token } from "./decision.js";
import type { Usage } from "./uses.js";

/** A token or a user with answers in memory. One number makes all of them from before a change unsound. */
export interface Owner {
  readonly name: string;
  /** The position of its last change; Infinity: all its answers are dropped. */
  changed: number;
  /** How many answers in memory depend on it. */
  entries: number;
  /** The latest position of its answers. */
  newest: number;
}

// The cost of an entry beside its texts, and of a text beside its characters, estimated from above.
const entryBytes = 1024;
const textBytes = 48;

/** One answer. */
export class Entry {
  key = "";
  /** On the monotonic clock, in milliseconds: not to be used from then on. */
  until = 0;
  /** The same by the wall clock, for a machine that slept; Infinity: never. */
  readonly expire: number;
  /** That of the memory when the answer was asked for. */
  epoch = -1;
  /** The position that the answer is at least as new as. */
  sequence = 0;
  // The owners, once the answer is in memory. A refusal depends on nothing.
  ofToken: Owner | undefined;
  ofUser: Owner | undefined;
  slot = 0;
  recent = false;
  readonly bytes: number;
  readonly usage: Usage | undefined;

  constructor(
    readonly decision: Decision,
    readonly token: Token | undefined,
    readonly endTime?: Date,
    readonly expireTime?: Date,
  ) {
    this.expire = token?.expireTime?.getTime() ?? Infinity;
    this.bytes = sizeOf(token);
    this.usage = token && { tokenId: token.id, time: 0, ip: undefined, scopes: [], unscoped: false, queued: false };
  }

  /** Whether a change was received since the answer was made. */
  get isVoid(): boolean {
    return (
      this.ofToken !== undefined &&
      (this.sequence < this.ofToken.changed || this.sequence < (this.ofUser as Owner).changed)
    );
  }

  /** Reports whether the entry may still be used, as far as the entry itself shows. */
  isSound(mono: number, wall: number): boolean {
    return mono < this.until && wall < this.expire && !this.isVoid;
  }

  /** Whether it is good for other checks than the one that asked. */
  get isShared(): boolean {
    return this.token === undefined || this.ofToken !== undefined;
  }

  result(required: readonly string[] | undefined): Result {
    return this.token ? decide(this.token, required) : refused(this.decision, this.endTime, this.expireTime);
  }
}

function sizeOf(token: Token | undefined): number {
  let n = entryBytes;
  if (!token) return n;
  const add = (text: string | undefined): void => {
    if (text !== undefined) n += textBytes + 2 * text.length;
  };
  // Owners have the texts of the token and the user as well.
  for (const text of [token.id, token.id, token.user, token.user, token.name, token.accessTokenId, token.clientId])
    add(text);
  for (const list of [token.scopes, token.granted, token.suspended, token.paused, token.audiences]) list.forEach(add);
  for (const [name, value] of Object.entries(token.labels)) {
    add(name);
    add(value);
  }
  return n;
}
