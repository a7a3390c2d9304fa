package patd;

import java.time.Instant;
import java.time.format.DateTimeParseException;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ThreadLocalRandom;

/**
 * An answer of patd, read.
 *
 * @param everywhere it is good for every address
 */
record Answer(Entry entry, long sequence, boolean everywhere) {
    /** How long a final refusal is kept, in nanoseconds. */
    private static final long REFUSAL_AGE = 2_000_000_000L;
    private static final long MAX_SECONDS = 100_000_000_000L; // three thousand years; more would not fit

    /**
     * Reads an answer that was asked for at a time of the monotonic clock. What contradicts itself is a fault: nothing
     * is known about the token.
     */
    static Answer read(Object body, long sent, long maxAge) {
        Map<?, ?> r = object(body, "the answer");
        Decision decision = decision(r.get("decision"));
        if (decision == null || !Boolean.valueOf(decision.isActive()).equals(r.get("active"))) {
            throw nonsense("the answer of patd contradicts itself");
        }
        boolean everywhere = Boolean.TRUE.equals(r.get("any_client_ip"));
        if (!decision.isActive()) {
            Entry entry = new Entry(decision, time(r.get("end_time")), time(r.get("expire_time")));
            entry.until = decision.isFinal() ? sent + REFUSAL_AGE : Long.MIN_VALUE;
            return new Answer(entry, 0, decision.isFinal() || everywhere);
        }
        Entry entry = new Entry(token(r));
        // Less up to a tenth, so that answers do not end together.
        entry.until = sent + maxAge - (long) (maxAge / 10.0 * ThreadLocalRandom.current().nextDouble());
        if (r.get("expires_in") != null) {
            entry.until = Math.min(entry.until, sent + nanoseconds(r.get("expires_in")));
        }
        Object sequence = r.get("sequence");
        return new Answer(entry, sequence == null ? 0 : position(sequence), everywhere);
    }

    private static Decision decision(Object name) {
        for (Decision one : Decision.values()) {
            if (one.name().equals(name)) {
                return one;
            }
        }
        return null;
    }

    private static Token token(Map<?, ?> r) {
        String id = text(r.get("token_id"));
        String user = text(r.get("user"));
        if (id.isEmpty() || user.isEmpty()) {
            throw nonsense("the answer of patd does not say whose token it is");
        }
        return new Token(id, user, text(r.get("name")), texts(r.get("scopes")), texts(r.get("granted_scopes")),
                texts(r.get("suspended_scopes")), texts(r.get("paused_scopes")), texts(r.get("audiences")),
                labels(r.get("labels")), time(r.get("issue_time")), time(r.get("expire_time")),
                none(text(r.get("access_token_id"))), none(text(r.get("client_id"))),
                Boolean.TRUE.equals(r.get("stale")));
    }

    private static String none(String text) {
        return text.isEmpty() ? null : text;
    }

    /** Returns the fault of an answer that makes no sense. */
    static FaultException nonsense(String message) {
        return FaultException.unavailable(message);
    }

    static Map<?, ?> object(Object value, String what) {
        if (value instanceof Map<?, ?> map) {
            return map;
        }
        throw nonsense(what + " of patd is no object");
    }

    private static String text(Object value) {
        if (value == null) {
            return "";
        }
        if (value instanceof String text) {
            return text;
        }
        throw nonsense("a text in the answer of patd is none");
    }

    /** Reads a list of texts; null: an empty one. */
    static List<String> texts(Object value) {
        if (value == null) {
            return List.of();
        }
        if (!(value instanceof List<?> list) || !list.stream().allMatch(String.class::isInstance)) {
            throw nonsense("a list in the answer of patd is none");
        }
        return list.stream().map(String.class::cast).toList();
    }

    private static Map<String, String> labels(Object value) {
        if (value == null) {
            return Map.of();
        }
        Map<String, String> out = new HashMap<>();
        object(value, "a label").forEach((name, label) -> out.put((String) name, text(label)));
        return out;
    }

    /** Reads a position in the change feed: a decimal number, as text. */
    static long position(Object value) {
        if (value instanceof String text && text.matches("[0-9]{1,18}")) { // 10^18 changes are not made
            return Long.parseLong(text);
        }
        throw nonsense("a position in the answer of patd is none");
    }

    private static Instant time(Object value) {
        if (value == null) {
            return null;
        }
        try {
            return Instant.parse(text(value));
        } catch (DateTimeParseException e) {
            throw nonsense("a time in the answer of patd is none");
        }
    }

    private static long nanoseconds(Object value) {
        String text = text(value);
        if (!text.matches("-?[0-9]{1,15}(\\.[0-9]{1,9})?s")) {
            throw nonsense("a duration in the answer of patd is none");
        }
        double seconds = Double.parseDouble(text.substring(0, text.length() - 1));
        return (long) (Math.max(-MAX_SECONDS, Math.min(MAX_SECONDS, seconds)) * 1e9) / 2 * 2;
    }
}
