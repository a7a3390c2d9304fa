package patd;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.LongAdder;
import java.util.function.Consumer;

/**
 * A map of entries, bounded in number and bytes. What was not used lately makes room (second chance). Anybody may get;
 * all other methods are called with the memory's lock.
 */
final class Table {
    final LongAdder hits = new LongAdder();
    private final ConcurrentHashMap<Keys.Key, Entry> byKey = new ConcurrentHashMap<>();
    private final List<Entry> ring = new ArrayList<>(); // all of byKey, in the order of the clock
    private final int maxEntries;
    private final long maxBytes;
    private final Consumer<Entry> left;
    private int hand;
    private long bytes;

    /** Makes a table. The function is called with each entry that leaves. */
    Table(int maxEntries, long maxBytes, Consumer<Entry> left) {
        this.maxEntries = maxEntries;
        this.maxBytes = maxBytes;
        this.left = left;
    }

    Entry get(Keys.Key key) {
        return byKey.get(key);
    }

    int size() {
        return byKey.size();
    }

    /** Adds an entry, unless it is too large. */
    boolean put(Entry e) {
        if (e.bytes > maxBytes || maxEntries < 1) {
            return false;
        }
        Entry old = byKey.get(e.key);
        if (old != null) {
            remove(old);
        }
        while (!ring.isEmpty() && (ring.size() >= maxEntries || bytes + e.bytes > maxBytes)) {
            remove(victim());
        }
        e.slot = ring.size();
        ring.add(e);
        byKey.put(e.key, e);
        bytes += e.bytes;
        return true;
    }

    /** Takes an entry out, unless it is not in the table any more; the last of the ring takes its place. */
    void remove(Entry e) {
        if (byKey.get(e.key) != e) {
            return;
        }
        Entry last = ring.remove(ring.size() - 1);
        if (last != e) {
            ring.set(e.slot, last);
            last.slot = e.slot;
        }
        if (hand >= ring.size()) {
            hand = 0;
        }
        byKey.remove(e.key);
        bytes -= e.bytes;
        left.accept(e);
    }

    /** Advances the hand of the clock to an entry that is void, or was not used since the hand last passed. */
    private Entry victim() {
        for (;;) {
            Entry e = ring.get(hand);
            hand = (hand + 1) % ring.size();
            if (e.isVoid() || !e.recent) {
                return e;
            }
            e.recent = false;
        }
    }

    void clear() {
        byKey.clear();
        ring.clear();
        hand = 0;
        bytes = 0;
    }
}
