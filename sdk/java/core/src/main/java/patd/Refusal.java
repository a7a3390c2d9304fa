package patd;

import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.List;

/**
 * Why a token is refused, in the words of patd, for its bearer.
 *
 * @param text printable ASCII without quotes and backslashes, as long as scopes have their syntax
 * @param missing required, and never granted
 * @param suspended required and granted, but not held by the user now
 * @param paused required and granted, but paused: the owner may resume them
 */
public record Refusal(String reason, String text, List<String> missing, List<String> suspended, List<String> paused) {
    /** Says why a result is a refusal. */
    public static Refusal of(Result r) {
        List<String> missing = new ArrayList<>();
        List<String> suspended = new ArrayList<>();
        List<String> paused = new ArrayList<>();
        for (String scope : r.missing()) {
            if (r.token().paused().contains(scope)) {
                paused.add(scope);
            } else if (r.token().granted().contains(scope)) {
                suspended.add(scope);
            } else {
                missing.add(scope);
            }
        }
        String text = switch (r.decision()) {
            case EXPIRED -> at("the token expired", "the token has expired", r.endTime());
            case REVOKED -> at("the token was revoked", "the token was revoked", r.endTime());
            case SUPERSEDED -> at("the token was rotated, and this secret stopped working",
                    "the token was rotated, and this secret has stopped working", r.endTime());
            case INSUFFICIENT_SCOPE -> lacks(missing, suspended, paused);
            case USER_SUSPENDED -> "the user of the token is suspended";
            case POLICY_BLOCKED ->
                "the operator has blocked the token, since it exceeds the policy of an audience";
            case TOKEN_IDLE -> "the token is paused, since it was not used for long; its owner can resume it";
            case AUDIENCE_MISMATCH -> "the token is not for this audience";
            case IP_NOT_ALLOWED -> "the token is not allowed from this address";
            case NOT_FOUND, ALLOW -> "the token is not valid";
        };
        return new Refusal(r.decision().reason(), text, List.copyOf(missing), List.copyOf(suspended),
                List.copyOf(paused));
    }

    private static String lacks(List<String> missing, List<String> suspended, List<String> paused) {
        List<String> parts = new ArrayList<>();
        if (!missing.isEmpty()) {
            parts.add("the token was not granted " + String.join(" ", missing));
        }
        if (!suspended.isEmpty()) {
            parts.add("its user does not hold " + String.join(" ", suspended) + " now");
        }
        if (!paused.isEmpty()) {
            parts.add("its owner can resume " + String.join(" ", paused) + ", which was paused");
        }
        return parts.isEmpty() ? "the token lacks a scope that this request needs" : String.join("; ", parts);
    }

    private static String at(String when, String without, Instant time) {
        return time == null ? without : when + " at " + seconds(time);
    }

    /** Returns a time in RFC 3339, cut to whole seconds, so that a token never seems to last longer than it does. */
    static String seconds(Instant time) {
        return time.truncatedTo(ChronoUnit.SECONDS).toString();
    }
}
