package patd;

import java.security.SecureRandom;
import java.util.HashMap;
import java.util.Map;

/**
 * Which tokens and users the watch reported, and at which position, so that older answers are recognized. Names are
 * kept as hashes: two that share one cost a request, never a wrong answer. Old changes are dropped, and the floor rises
 * instead: an answer below the floor cannot be judged, and is not kept. The memory's lock guards it.
 */
final class Changes {
    /** How many tokens and users each of two generations holds. */
    private static final int REMEMBERED = 1 << 15;

    private long floor;
    private Map<Long, Long> young = new HashMap<>();
    private Map<Long, Long> old = new HashMap<>();
    private long youngest; // position of the newest change in young
    private long oldest; // the same in old
    private final long seed = new SecureRandom().nextLong();

    Changes(long floor) {
        this.floor = floor;
    }

    long floor() {
        return floor;
    }

    /** Records a change of a token ('t') or a user ('u') at a position. */
    void note(char kind, String name, long sequence) {
        if (young.size() >= REMEMBERED) {
            floor = Math.max(floor, oldest);
            old = young;
            oldest = youngest;
            young = new HashMap<>();
            youngest = 0;
        }
        young.merge(hash(kind, name), sequence, Math::max);
        youngest = Math.max(youngest, sequence);
    }

    /** Reports whether a token or its user changed after a position. */
    boolean after(long sequence, String token, String user) {
        return latest(hash('t', token)) > sequence || latest(hash('u', user)) > sequence;
    }

    private long latest(long hash) {
        return Math.max(young.getOrDefault(hash, 0L), old.getOrDefault(hash, 0L));
    }

    private long hash(char kind, String name) {
        long h = seed ^ kind;
        for (int i = 0; i < name.length(); i++) {
            h = (h ^ name.charAt(i)) * 0x9e3779b97f4a7c15L;
            h ^= h >>> 29;
        }
        return h;
    }
}
