package patd;

import java.time.Duration;
import java.time.Instant;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Supplier;

/**
 * Decides about requests by their bearer token, and makes the responses to those that may not pass, as RFC 6750
 * requires: 401 without a token or for one that is not active, 403 for one that lacks a scope, 400 for more than one
 * credential, 503 when nothing is known about the token. The token is read from the Authorization header alone. The
 * filters of this library are made of it.
 */
public final class Guard {
    private static final Duration RENEW_BEFORE = Duration.ofDays(30);

    private final Checker checker;
    private final String audience;
    private final String realm;
    private final String renewUrl;

    /**
     * What a guard decided about a request.
     *
     * @param result the decision, if the request may pass; null: it may not, and status, headers and body are the
     *     response
     * @param headers of the response, whether or not the request passes
     * @param body of the response, JSON
     */
    public record Outcome(Result result, int status, Map<String, String> headers, String body) {
        /** Reports whether the request may pass. */
        public boolean passes() {
            return result != null;
        }
    }

    /** Makes a guard. */
    public Guard(Checker checker) {
        this(checker, "", "", "");
    }

    /**
     * Makes a guard.
     *
     * @param audience the API of the handlers; empty: that of the checker
     * @param realm is sent in WWW-Authenticate; empty: none
     * @param renewUrl the page where users renew tokens: clients get it in Patd-Token-Renew in a token's last 30 days;
     *     empty: none
     */
    public Guard(Checker checker, String audience, String realm, String renewUrl) {
        this.checker = checker;
        this.audience = audience;
        this.realm = realm;
        this.renewUrl = renewUrl;
    }

    /**
     * Decides about a request with these values of the Authorization header. It never throws: whatever breaks is a 503.
     *
     * @param clientIp is called if it is needed; null: the address is not known
     */
    public Outcome decide(List<String> authorization, List<String> scopes, Supplier<String> clientIp) {
        if (authorization.size() > 1) {
            return many();
        }
        String token = authorization.isEmpty() ? null : bearer(authorization.get(0));
        if (token == null) {
            return refuse(401, challenge(null, null, null), body("unauthorized",
                    "this request needs a token: Authorization: Bearer and a token", "CREDENTIAL_REQUIRED"), Map.of());
        }
        if (token.indexOf(',') >= 0) {
            return many(); // two headers, joined: no token contains a comma
        }
        try {
            return outcome(checker.verify(token, new Call(audience, scopes, clientIp.get())), scopes);
        } catch (RuntimeException e) {
            return new Outcome(null, 503, Map.of("Cache-Control", "no-store", "Retry-After", "1"),
                    "{\"error\":\"temporarily_unavailable\"}");
        }
    }

    /**
     * Decides about a request by a table of routes. One that the table closes gets 403, whatever its token.
     *
     * @param path that of the request line, without the query and as it was written
     */
    public Outcome decide(RouteTable table, String method, String path, List<String> authorization,
            Supplier<String> clientIp) {
        List<String> scopes = table.find(method, path);
        if (scopes != null) {
            return decide(authorization, scopes, clientIp);
        }
        return new Outcome(null, 403, Map.of("Cache-Control", "no-store"), Json.write(body("forbidden",
                "no token opens this route: it is not in the table of routes, or has no scope there", "ROUTE_CLOSED")));
    }

    private Outcome outcome(Result r, List<String> scopes) {
        Map<String, String> headers = renewal(r);
        if (r.allowed()) {
            return new Outcome(r, 200, headers, "");
        }
        Refusal why = Refusal.of(r);
        boolean lacks = r.decision() == Decision.INSUFFICIENT_SCOPE;
        String error = lacks ? "insufficient_scope" : "invalid_token";
        Map<String, Object> body = body(error, why.text(), why.reason());
        body.put("missing_scopes", why.missing().isEmpty() ? null : why.missing());
        body.put("suspended_scopes", why.suspended().isEmpty() ? null : why.suspended());
        body.put("paused_scopes", why.paused().isEmpty() ? null : why.paused());
        String challenge = challenge(error, why.text(), lacks ? String.join(" ", scopes) : null);
        return refuse(lacks ? 403 : 401, challenge, body, headers);
    }

    private Outcome many() {
        return refuse(400, challenge("invalid_request", null, null),
                body("invalid_request", "give one token, once", "CREDENTIAL_INVALID"), Map.of());
    }

    private static Outcome refuse(int status, String challenge, Map<String, Object> body, Map<String, String> more) {
        Map<String, String> headers = new LinkedHashMap<>(more);
        headers.put("Cache-Control", "no-store");
        headers.put("WWW-Authenticate", challenge);
        return new Outcome(null, status, headers, Json.write(body));
    }

    private static Map<String, Object> body(String error, String description, String reason) {
        Map<String, Object> out = new LinkedHashMap<>();
        out.put("error", error);
        out.put("error_description", description);
        out.put("reason", reason);
        return out;
    }

    private String challenge(String error, String description, String scope) {
        StringBuilder out = new StringBuilder("Bearer");
        Map<String, String> params = new LinkedHashMap<>();
        params.put("realm", realm);
        params.put("error", error);
        params.put("error_description", description);
        params.put("scope", scope);
        params.forEach((name, value) -> {
            if (value != null && !value.isEmpty()) {
                out.append(out.length() == 6 ? " " : ", ").append(name).append("=\"").append(printable(value))
                        .append('"');
            }
        });
        return out.toString();
    }

    private Map<String, String> renewal(Result r) {
        Instant expires = r.token() != null ? r.token().expireTime() : r.expireTime();
        if (expires == null) {
            return Map.of();
        }
        Map<String, String> out = new LinkedHashMap<>();
        out.put("Patd-Token-Expires-At", Refusal.seconds(expires));
        if (!renewUrl.isEmpty() && !Instant.now().isBefore(expires.minus(RENEW_BEFORE))) {
            out.put("Patd-Token-Renew", renewUrl);
        }
        return out;
    }

    /** Reads an Authorization header (RFC 9110 section 11.4): a scheme, one or more spaces, a credential. */
    private static String bearer(String value) {
        int space = value.indexOf(' ');
        if (space < 0 || !value.substring(0, space).equalsIgnoreCase("bearer")) {
            return null;
        }
        int from = space;
        while (from < value.length() && value.charAt(from) == ' ') {
            from++;
        }
        return value.substring(from);
    }

    /** Keeps what a quoted-string of a challenge may contain (RFC 6750 section 3). */
    private static String printable(String text) {
        return text.replaceAll("[\"`]", "'").replaceAll("[^ -~]|\\\\", "?");
    }
}
