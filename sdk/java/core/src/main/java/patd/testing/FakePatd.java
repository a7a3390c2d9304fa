package patd.testing;

import java.time.Clock;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.CompletableFuture;
import patd.Call;
import patd.Checker;
import patd.Decision;
import patd.FaultException;
import patd.Result;
import patd.Token;
import patd.Tokens;

/**
 * A checker without a patd, for tests of programs that accept tokens. It decides about tokens that a test minted, as
 * patd would: in the order of its decisions, with its reasons. It checks the form of a token too, so that a test with a
 * made-up text sees {@code NOT_FOUND}.
 */
public final class FakePatd implements Checker {
    /**
     * What a token of the fake is like. {@code FakePatd.token("alice", "reports.read")} makes one.
     *
     * @param audiences empty: none in particular
     * @param clientIps the client addresses that it works from; null: all
     * @param expireTime null: never
     */
    public record Like(String user, List<String> scopes, List<String> audiences, List<String> clientIps,
            Instant expireTime) {
        /** Returns the same for audiences. */
        public Like at(String... audiences) {
            return new Like(user, scopes, List.of(audiences), clientIps, expireTime);
        }

        /** Returns the same for addresses. */
        public Like from(String... clientIps) {
            return new Like(user, scopes, audiences, List.of(clientIps), expireTime);
        }

        /** Returns the same until a time. */
        public Like until(Instant expireTime) {
            return new Like(user, scopes, audiences, clientIps, expireTime);
        }
    }

    /**
     * A token that was minted.
     *
     * @param secret what a client sends
     * @param id its public id
     */
    public record Minted(String secret, String id) {}

    /** A check that let a token pass. */
    public record Use(String tokenId, List<String> scopes, String clientIp) {}

    private record Known(Token token, List<String> clientIps) {}

    private final String audience;
    private final Clock clock;
    private final Map<String, Known> tokens = new HashMap<>();
    private final Set<String> revoked = new HashSet<>();
    private final Set<String> suspended = new HashSet<>();
    private final List<Use> uses = new ArrayList<>();
    private boolean down;

    /** Makes a fake that checks no audience. */
    public FakePatd() {
        this("", Clock.systemUTC());
    }

    /** Makes a fake for an audience, with a clock. */
    public FakePatd(String audience, Clock clock) {
        this.audience = audience;
        this.clock = clock;
    }

    /** Returns what a token of a user with scopes is like. */
    public static Like token(String user, String... scopes) {
        return new Like(user, List.of(scopes), List.of(), null, null);
    }

    /** Makes a token. */
    public synchronized Minted mint(Like like) {
        String secret = Tokens.random();
        String id = secret.split("_")[1];
        List<String> scopes = List.copyOf(new TreeSet<>(like.scopes));
        Token token = new Token(id, like.user, "a token of a test", scopes, scopes, List.of(), List.of(),
                like.audiences, Map.of(), clock.instant(), like.expireTime, null, null, false);
        tokens.put(secret, new Known(token, like.clientIps));
        return new Minted(secret, id);
    }

    /** Revokes a token by its id. */
    public synchronized void revoke(String id) {
        revoked.add(id);
    }

    /** Suspends a user, or ends that. */
    public synchronized void suspend(String user, boolean isSuspended) {
        if (isSuspended) {
            suspended.add(user);
        } else {
            suspended.remove(user);
        }
    }

    /** Sets whether nothing is known about any token that has the form of one. */
    public synchronized void outage(boolean isDown) {
        down = isDown;
    }

    /** Returns all checks that let a token pass, in their order. */
    public synchronized List<Use> uses() {
        return List.copyOf(uses);
    }

    @Override
    public synchronized Result verify(String token, Call call) {
        if (!Tokens.isPlausible(token)) {
            return refused(Decision.NOT_FOUND, null);
        }
        if (down) {
            throw new FaultException(FaultException.Kind.UNAVAILABLE, "the fake has an outage", null);
        }
        Known known = tokens.get(token);
        if (known == null) {
            return refused(Decision.NOT_FOUND, null);
        }
        Decision no = inactive(known, call);
        if (no != null) {
            return refused(no, known.token.expireTime());
        }
        TreeSet<String> missing = new TreeSet<>(call.scopes());
        known.token.scopes().forEach(missing::remove);
        if (!missing.isEmpty()) {
            return new Result(Decision.INSUFFICIENT_SCOPE, known.token, List.copyOf(missing), null, null);
        }
        uses.add(new Use(known.token.id(), call.scopes(), call.clientIp()));
        return new Result(Decision.ALLOW, known.token, List.of(), null, null);
    }

    private static Result refused(Decision decision, Instant expireTime) {
        return new Result(decision, null, List.of(), null, expireTime);
    }

    @Override
    public CompletableFuture<Result> verifyAsync(String token, Call call) {
        try {
            return CompletableFuture.completedFuture(verify(token, call));
        } catch (FaultException fault) {
            return CompletableFuture.failedFuture(fault);
        }
    }

    private Decision inactive(Known known, Call call) {
        String where = call.audience().isEmpty() ? audience : call.audience();
        Token token = known.token;
        if (revoked.contains(token.id())) {
            return Decision.REVOKED;
        }
        if (token.expireTime() != null && !clock.instant().isBefore(token.expireTime())) {
            return Decision.EXPIRED;
        }
        if (suspended.contains(token.user())) {
            return Decision.USER_SUSPENDED;
        }
        if (!where.isEmpty() && !token.audiences().isEmpty() && !token.audiences().contains(where)) {
            return Decision.AUDIENCE_MISMATCH;
        }
        if (known.clientIps != null && !known.clientIps.contains(call.clientIp())) {
            return Decision.IP_NOT_ALLOWED;
        }
        return null;
    }
}
