import { Changes } from "./changes.js";
import { isFinal } from "./decision.js";
import type { Entry, Owner } from "./entry.js";
import { Table } from "./table.js";

/** The greatest age of the watch's last event while memory is used, in milliseconds. */
export const silence = 3000;
/** The refusals' part of the entries and bytes, in a table of their own: garbage evicts only garbage. */
const refusalShare = 8;

/** What the watch sends. */
export interface News {
  readonly sequence: number;
  readonly startOver: boolean;
  readonly tokenIds: readonly string[];
  readonly users: readonly string[];
}

/**
 * The memory of answers. It is used only while the watch is alive, and for answers without a change since.
 *
 * An answer that was made before a change may arrive after the news of it. Positions in the change feed decide: an
 * answer is kept only if it is at least as new as every change received of its token and its user.
 */
export class Memory {
  readonly answers: Table;
  readonly refusals: Table;
  /** Counts the calls of forget and resumed. An answer that was asked for in an earlier one is not kept. */
  epoch = 0;
  #changes = new Changes();
  #byToken = new Map<string, Owner>();
  #byUser = new Map<string, Owner>();
  #knownMono = -Infinity;
  #knownWall = -Infinity;

  constructor(maxEntries: number, maxBytes: number) {
    const entries = Math.floor(maxEntries / refusalShare);
    const bytes = Math.floor(maxBytes / refusalShare);
    this.answers = new Table(maxEntries - entries, maxBytes - bytes, (e) => this.#disown(e));
    this.refusals = new Table(entries, bytes, () => {});
  }

  /** Closes memory until the next call of known. */
  distrust(): void {
    this.#knownMono = -Infinity;
  }

  /** Opens memory: up to that time, every change is known. */
  known(mono: number, wall: number): void {
    this.#knownMono = mono;
    this.#knownWall = wall;
  }

  /**
   * Reports whether memory may be used. Both clocks must agree: the monotonic one may stand still while a machine
   * sleeps, the other may be set back.
   */
  isOpen(mono: number, wall: number): boolean {
    return mono - this.#knownMono < silence && wall - this.#knownWall < silence;
  }

  /** Returns an entry that may be used, or undefined. */
  recall(key: string, mono: number, wall: number): Entry | undefined {
    if (!this.isOpen(mono, wall)) return undefined;
    return this.#recall(this.answers, key, mono, wall) ?? this.#recall(this.refusals, key, mono, wall);
  }

  #recall(from: Table, key: string, mono: number, wall: number): Entry | undefined {
    const e = from.get(key);
    if (e === undefined) return undefined;
    if (!e.isSound(mono, wall)) {
      if (mono >= e.until || e.isVoid) from.remove(e); // a wall clock that is ahead may be set right again
      return undefined;
    }
    from.hits++;
    e.recent = true;
    return e;
  }

  /** Reports whether the entry that a request brought may serve other checks than the one that asked. */
  usable(e: Entry, mono: number, wall: number): boolean {
    return e.epoch === this.epoch && e.isShared && this.isOpen(mono, wall) && e.isSound(mono, wall);
  }

  /**
   * Keeps an answer, unless a received change may be newer. Also reports whether a newer change of this very token or
   * user was received, or all was forgotten meanwhile, which means that the answer is outdated.
   */
  keep(e: Entry, epoch: number, sequence: number): boolean {
    if (epoch !== this.epoch) return true;
    e.epoch = epoch;
    if (!e.token) {
      if (isFinal(e.decision)) this.refusals.put(e);
      return false;
    }
    if (sequence === 0) return false; // it is for this check only
    if (this.#changes.after(sequence, e.token.id, e.token.user)) return true;
    if (e.token.stale || sequence < this.#changes.floor) return false;
    e.sequence = sequence;
    e.ofToken = own(this.#byToken, e.token.id);
    e.ofUser = own(this.#byUser, e.token.user);
    e.ofToken.newest = Math.max(e.ofToken.newest, sequence);
    if (!this.answers.put(e)) {
      this.#disown(e);
      e.ofToken = e.ofUser = undefined;
    }
    return false;
  }

  /**
   * Drops what was kept for the same request before an answer, under either key. Otherwise a check could pass by what
   * memory holds, after patd refused another one, until the watch tells why.
   */
  replaced(keys: readonly string[], by: Entry): void {
    if (!by.isShared) return; // it was not kept, for a reason of its own
    for (const key of keys) {
      const old = this.answers.get(key);
      if (old && old !== by) this.answers.remove(old);
    }
  }

  /** Applies an event. From then on, no answer from before its changes is used. */
  apply(news: News): void {
    if (news.startOver) {
      this.#forget();
      this.#changes = new Changes(news.sequence); // what changed before is not known
    }
    for (const id of news.tokenIds) {
      this.#changes.note("t", id, news.sequence);
      change(this.#byToken, id, news.sequence);
    }
    for (const user of news.users) {
      this.#changes.note("u", user, news.sequence);
      change(this.#byUser, user, news.sequence);
    }
  }

  /**
   * Drops the answers that are newer than the position at which a watch was resumed, and those under way. They rest on
   * changes that this watch never received. A server that was restored does not have these changes, and nothing would
   * ever make the answers unsound.
   */
  resumed(at: number): void {
    this.epoch++;
    for (const [name, owner] of this.#byToken) {
      if (owner.newest > at) {
        owner.changed = Infinity;
        this.#byToken.delete(name);
      }
    }
  }

  /** Drops all, whatever its size, at once: no entry of an earlier epoch is used. */
  #forget(): void {
    this.epoch++;
    this.#byToken = new Map();
    this.#byUser = new Map();
    this.answers.clear();
    this.refusals.clear();
  }

  #disown(e: Entry): void {
    disown(this.#byToken, e.ofToken as Owner);
    disown(this.#byUser, e.ofUser as Owner);
  }
}

function own(by: Map<string, Owner>, name: string): Owner {
  let owner = by.get(name);
  if (!owner) by.set(name, (owner = { name, changed: 0, entries: 0, newest: 0 }));
  owner.entries++;
  return owner;
}

function disown(by: Map<string, Owner>, owner: Owner): void {
  if (--owner.entries === 0 && by.get(owner.name) === owner) by.delete(owner.name);
}

function change(by: Map<string, Owner>, name: string, sequence: number): void {
  const owner = by.get(name);
  if (owner) owner.changed = Math.max(owner.changed, sequence);
}
