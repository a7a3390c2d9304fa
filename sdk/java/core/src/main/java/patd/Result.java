package patd;

import java.time.Instant;
import java.util.List;
import java.util.TreeSet;

/**
 * A decision about a token.
 *
 * @param token the active token, whose decision is {@code ALLOW} or {@code INSUFFICIENT_SCOPE}; null for any other
 * @param missing the required scopes that are not in effect; sorted
 * @param endTime when the token expired, was revoked, or its secret stopped working; null: not known, or another
 *     decision
 * @param expireTime when the secret of a token that is not active stops working, or stopped; null: never, or not known
 */
public record Result(Decision decision, Token token, List<String> missing, Instant endTime, Instant expireTime) {
    public Result {
        if (decision.isActive() != (token != null)) {
            throw new IllegalArgumentException("an active decision has a token, and no other");
        }
        missing = List.copyOf(missing);
    }

    /** Reports whether the call may go on: the decision is {@code ALLOW}. */
    public boolean allowed() {
        return decision == Decision.ALLOW;
    }

    static Result allow(Token token) {
        return new Result(Decision.ALLOW, token, List.of(), null, null);
    }

    static Result refuse(Decision decision, Instant endTime, Instant expireTime) {
        return new Result(decision, null, List.of(), endTime, expireTime);
    }

    /** Decides about an active token for one call. The first argument is what it is if no scope is missing. */
    static Result decide(Result allow, List<String> required) {
        List<String> scopes = allow.token.scopes();
        TreeSet<String> missing = null;
        for (int i = 0; i < required.size(); i++) {
            String scope = required.get(i);
            if (!scopes.contains(scope)) {
                if (missing == null) {
                    missing = new TreeSet<>();
                }
                missing.add(scope);
            }
        }
        if (missing == null) {
            return allow;
        }
        return new Result(Decision.INSUFFICIENT_SCOPE, allow.token, List.copyOf(missing), null, null);
    }
}
