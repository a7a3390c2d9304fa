package patd;

import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * The memory of answers. It is used only while the watch is alive, and for answers without a change since. Checks read
 * it without a lock; all else takes the lock.
 *
 * <p>An answer that was made before a change may arrive after the news of it. Positions in the change feed decide: an
 * answer is kept only if it is at least as new as every change received of its token and its user.
 */
final class Memory {
    /** The greatest age of the watch's last event while memory is used. */
    static final long SILENCE_MS = 3000;
    private static final long SILENCE_NANOS = SILENCE_MS * 1_000_000;
    /** The refusals' part of the entries and bytes, in a table of their own: garbage evicts only garbage. */
    private static final int REFUSALS = 8;

    /** What the watch sends. */
    record News(long sequence, boolean startOver, List<String> tokenIds, List<String> users) {
        boolean isQuiet() {
            return tokenIds.isEmpty() && users.isEmpty();
        }
    }

    /** Up to when every change is known: on the monotonic clock in nanoseconds, on the other in milliseconds. */
    private record Known(long mono, long wall) {}

    final Table answers;
    final Table refusals;
    private volatile Known known; // null: memory is closed
    private volatile long epoch;
    private Changes changes = new Changes(0);
    private final Map<String, Entry.Owner> byToken = new HashMap<>();
    private final Map<String, Entry.Owner> byUser = new HashMap<>();

    Memory(int maxEntries, long maxBytes) {
        int entries = maxEntries / REFUSALS;
        long bytes = maxBytes / REFUSALS;
        answers = new Table(maxEntries - entries, maxBytes - bytes, this::disown);
        refusals = new Table(entries, bytes, e -> {});
    }

    /** Closes memory until the next call of known. */
    void distrust() {
        known = null;
    }

    /** Opens memory: up to that time, every change is known. */
    void known(long mono, long wall) {
        known = new Known(mono, wall);
    }

    /**
     * Reports whether memory may be used. Both clocks must agree: the monotonic one may stand still while a machine
     * sleeps, the other may be set back.
     */
    boolean isOpen(long mono, long wall) {
        Known k = known;
        return k != null && mono - k.mono < SILENCE_NANOS && wall - k.wall < SILENCE_MS;
    }

    /** Counts the calls of forget and resumed. An answer that was asked for in an earlier epoch is not kept. */
    long epoch() {
        return epoch;
    }

    /** Returns an entry that may be used, or null. */
    Entry recall(Keys.Key key, long mono, long wall) {
        if (!isOpen(mono, wall)) {
            return null;
        }
        Entry e = recall(answers, key, mono, wall);
        return e != null ? e : recall(refusals, key, mono, wall);
    }

    private Entry recall(Table from, Keys.Key key, long mono, long wall) {
        Entry e = from.get(key);
        if (e == null) {
            return null;
        }
        if (!e.isSound(mono, wall)) {
            if (mono >= e.until || e.isVoid()) { // a wall clock that is ahead may be set right again
                synchronized (this) {
                    from.remove(e);
                }
            }
            return null;
        }
        from.hits.increment();
        if (!e.recent) {
            e.recent = true;
        }
        return e;
    }

    /** Reports whether the entry that a request brought may serve other checks than the one that asked. */
    boolean usable(Entry e, long mono, long wall) {
        return e.isShared() && isOpen(mono, wall) && e.isSound(mono, wall);
    }

    /**
     * Keeps an answer, unless a received change may be newer. Also reports whether a newer change of this very token or
     * user was received, or all was forgotten meanwhile, which means that the answer is outdated.
     */
    synchronized boolean keep(Entry e, long asked, long sequence) {
        if (asked != epoch) {
            return true;
        }
        if (e.token == null) {
            if (e.decision.isFinal()) {
                refusals.put(e);
            }
            return false;
        }
        if (sequence == 0) {
            return false; // it is for this check only
        }
        if (changes.after(sequence, e.token.id(), e.token.user())) {
            return true;
        }
        if (e.token.stale() || sequence < changes.floor()) {
            return false;
        }
        e.sequence = sequence;
        Entry.Owner owner = own(byToken, e.token.id());
        owner.newest = Math.max(owner.newest, sequence);
        e.ofUser = own(byUser, e.token.user());
        e.ofToken = owner; // last: it publishes the others
        if (!answers.put(e)) {
            disown(e);
            e.ofToken = null;
        }
        return false;
    }

    /**
     * Drops what was kept for the same request before an answer, under either key. Otherwise a check could pass by what
     * memory holds, after patd refused another one, until the watch tells why.
     */
    synchronized void replaced(Keys.Key everywhere, Keys.Key here, Entry by) {
        if (!by.isShared()) {
            return; // it was not kept, for a reason of its own
        }
        for (Keys.Key key : new Keys.Key[] {everywhere, here}) {
            Entry old = answers.get(key);
            if (old != null && old != by) {
                answers.remove(old);
            }
        }
    }

    /** Applies an event. From then on, no answer from before its changes is used. */
    synchronized void apply(News news) {
        if (news.startOver) {
            forget();
            changes = new Changes(news.sequence); // what changed before is not known
        }
        for (String id : news.tokenIds) {
            changes.note('t', id, news.sequence);
            change(byToken, id, news.sequence);
        }
        for (String user : news.users) {
            changes.note('u', user, news.sequence);
            change(byUser, user, news.sequence);
        }
    }

    /**
     * Drops the answers that are newer than the position at which a watch was resumed, and those under way. They rest
     * on changes that this watch never received. A server that was restored does not have these changes, and nothing
     * would ever make the answers unsound.
     */
    synchronized void resumed(long at) {
        epoch++;
        byToken.values().removeIf(owner -> {
            if (owner.newest <= at) {
                return false;
            }
            owner.changed = Long.MAX_VALUE;
            return true;
        });
    }

    /** Returns how many tokens and users have answers in memory. */
    synchronized int owners() {
        return byToken.size() + byUser.size();
    }

    private void forget() {
        epoch++;
        for (Map<String, Entry.Owner> by : List.of(byToken, byUser)) {
            by.values().forEach(owner -> owner.changed = Long.MAX_VALUE);
            by.clear();
        }
        answers.clear();
        refusals.clear();
    }

    private void disown(Entry e) {
        disown(byToken, e.ofToken);
        disown(byUser, e.ofUser);
    }

    private static Entry.Owner own(Map<String, Entry.Owner> by, String name) {
        Entry.Owner owner = by.computeIfAbsent(name, Entry.Owner::new);
        owner.entries++;
        return owner;
    }

    private static void disown(Map<String, Entry.Owner> by, Entry.Owner owner) {
        if (--owner.entries == 0) {
            by.remove(owner.name, owner);
        }
    }

    private static void change(Map<String, Entry.Owner> by, String name, long sequence) {
        Entry.Owner owner = by.get(name);
        if (owner != null) {
            owner.changed = Math.max(owner.changed, sequence);
        }
    }
}
