package patd;

import java.time.Instant;
import java.util.List;

/** One answer. */
final class Entry {
    /** A token or a user with answers in memory. One number makes all of them from before a change unsound. */
    static final class Owner {
        final String name;
        /** The position of its last change; Long.MAX_VALUE: all its answers are dropped. */
        volatile long changed;
        // The lock of the memory guards the others: how many answers depend on it, and their latest position.
        int entries;
        long newest;

        Owner(String name) {
            this.name = name;
        }
    }

    // The cost of an entry beside its texts, and of a text beside its characters, estimated from above.
    private static final int ENTRY_BYTES = 1024;
    private static final int TEXT_BYTES = 64;

    final Decision decision;
    final Token token;
    final Usage usage;
    /** By the wall clock, in milliseconds, for a machine that slept: not to be used from then on. */
    final long expire;
    final int bytes;
    private final Result whole; // what it is for a call that it has all scopes of

    Keys.Key key;
    /** The same on the monotonic clock, in nanoseconds. */
    long until;
    /** The position that the answer is at least as new as. */
    long sequence;
    // The owners, once the answer is in memory. A refusal depends on nothing.
    volatile Owner ofToken;
    Owner ofUser;
    /** It was used since the hand of the clock last passed. */
    volatile boolean recent;
    int slot; // in the table

    Entry(Token token) {
        this.decision = Decision.ALLOW; // scopes are decided for each call
        this.token = token;
        this.whole = Result.allow(token);
        this.usage = new Usage(token.id());
        this.expire = token.expireTime() == null ? Long.MAX_VALUE : milliseconds(token.expireTime());
        this.bytes = sizeOf(token);
    }

    Entry(Decision refusal, Instant endTime, Instant expireTime) {
        this.decision = refusal;
        this.token = null;
        this.whole = Result.refuse(refusal, endTime, expireTime);
        this.usage = null;
        this.expire = Long.MAX_VALUE;
        this.bytes = ENTRY_BYTES;
    }

    private static long milliseconds(Instant at) {
        return at.getEpochSecond() >= Long.MAX_VALUE / 2000 ? Long.MAX_VALUE : at.toEpochMilli();
    }

    /** Reports whether a change was received since the answer was made. */
    boolean isVoid() {
        Owner owner = ofToken;
        return owner != null && (sequence < owner.changed || sequence < ofUser.changed);
    }

    /** Reports whether the entry may still be used, as far as the entry itself shows. */
    boolean isSound(long mono, long wall) {
        return mono < until && wall < expire && !isVoid();
    }

    /** Reports whether it is good for other checks than the one that asked. */
    boolean isShared() {
        return token == null || ofToken != null;
    }

    Result result(List<String> required) {
        return token == null ? whole : Result.decide(whole, required);
    }

    private static int sizeOf(Token t) {
        int n = ENTRY_BYTES;
        // Owners have the texts of the token and the user as well.
        for (String text : new String[] {t.id(), t.id(), t.user(), t.user(), t.name(), t.accessTokenId(),
                t.clientId()}) {
            n += sizeOf(text);
        }
        for (List<String> list : List.of(t.scopes(), t.granted(), t.suspended(), t.paused(), t.audiences())) {
            for (String text : list) {
                n += sizeOf(text);
            }
        }
        for (var label : t.labels().entrySet()) {
            n += sizeOf(label.getKey()) + sizeOf(label.getValue());
        }
        return n;
    }

    private static int sizeOf(String text) {
        return text == null ? 0 : TEXT_BYTES + 2 * text.length();
    }
}
