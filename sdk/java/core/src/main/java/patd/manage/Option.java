package patd.manage;

import java.time.Duration;

/**
 * What is special about one call.
 *
 * @param kind what it sets
 */
public record Option(Kind kind, String text, Duration time) {
    /** What an option sets. */
    public enum Kind { ETAG, IDEMPOTENCY_KEY, TIMEOUT }

    /** Changes a record only if it still has this etag. Then the call is not repeated by itself. */
    public static Option etag(String etag) {
        return new Option(Kind.ETAG, etag, null);
    }

    /**
     * Sets the key of a call that creates or rotates, at least 16 characters that are hard to guess. By default each
     * call has one of its own, so that a repetition returns the first secret.
     */
    public static Option idempotencyKey(String key) {
        return new Option(Kind.IDEMPOTENCY_KEY, key, null);
    }

    /** Bounds the call with all its repetitions, in place of the client's timeout. */
    public static Option timeout(Duration timeout) {
        return new Option(Kind.TIMEOUT, null, timeout);
    }
}
