package patd;

import java.util.List;

/**
 * What the call at hand requires of a token. {@code Call.requires("reports.read").from("192.0.2.7")} makes one.
 *
 * @param audience the caller's own API; empty: that of the checker
 * @param scopes the scopes that the call needs, all of them; empty: an active token is enough
 * @param clientIp the address that the token was presented from; empty: not known. A token that is bound to networks is
 *     refused without it.
 */
public record Call(String audience, List<String> scopes, String clientIp) {
    private static final Call ANY = new Call("", List.of(), "");

    public Call {
        audience = audience == null ? "" : audience;
        scopes = scopes == null ? List.of() : List.copyOf(scopes);
        clientIp = clientIp == null ? "" : clientIp;
    }

    /** Returns a call that needs these scopes, or any active token if there are none. */
    public static Call requires(String... scopes) {
        return scopes.length == 0 ? ANY : new Call("", List.of(scopes), "");
    }

    /** Returns the same call from an address. */
    public Call from(String clientIp) {
        return new Call(audience, scopes, clientIp);
    }

    /** Returns the same call to an audience. */
    public Call at(String audience) {
        return new Call(audience, scopes, clientIp);
    }
}
