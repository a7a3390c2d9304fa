package patd;

import java.util.ArrayList;
import java.util.List;

/** The uses of an answer since they were last reported. Its lock guards all but last and the id. */
final class Usage {
    /** A token whose programs need more scopes than this, or longer ones, counts as used in any. */
    private static final int MAX_SCOPES = 4;
    private static final int MAX_SCOPE = 128;
    /** A use so soon after one in the same scopes is left out, in milliseconds. */
    private static final long TOGETHER = 100;

    /** The last use that was noted. */
    record Last(long wall, List<String> scopes) {
        boolean covers(long now, List<String> required) {
            return now >= wall && now - wall < TOGETHER && (scopes == required || scopes.equals(required));
        }
    }

    final String tokenId;
    volatile Last last;
    /** Of the last use, in milliseconds of the wall clock. */
    long time;
    String ip;
    List<String> scopes = new ArrayList<>(0);
    /** Some uses named no scope, or there were too many. */
    boolean unscoped;
    /** It waits to be reported. */
    boolean queued;

    Usage(String tokenId) {
        this.tokenId = tokenId;
    }

    /** Adds the scopes of a use. */
    void need(List<String> required) {
        if (required.isEmpty()) {
            unscoped = true;
        }
        for (String scope : required) {
            if (!scopes.contains(scope)) {
                if (scopes.size() >= MAX_SCOPES || scope.length() > MAX_SCOPE) {
                    unscoped = true;
                } else {
                    scopes.add(scope);
                }
            }
        }
    }

    /** Moves what was noted into a record of its own, and leaves an empty one. */
    synchronized Usage take() {
        Usage out = new Usage(tokenId);
        out.time = time;
        out.ip = ip;
        out.scopes = scopes;
        out.unscoped = unscoped;
        scopes = new ArrayList<>(0);
        unscoped = false;
        queued = false;
        last = null;
        return out;
    }

    /** Adds an earlier report that could not be sent. */
    void merge(Usage before) {
        if (!before.scopes.isEmpty()) {
            need(before.scopes);
        }
        unscoped |= before.unscoped;
        if (before.time > time) {
            time = before.time;
            ip = before.ip;
        }
    }
}
