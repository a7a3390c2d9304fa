package patd;

import java.time.Instant;
import java.util.List;
import java.util.Map;

/**
 * An active token.
 *
 * @param id the public id of the personal access token; safe to log
 * @param user the id of its owner
 * @param scopes the scopes in effect: granted, and held by the user now; sorted
 * @param granted the scopes as granted; sorted
 * @param suspended granted, but not held by the user now; sorted
 * @param paused granted, but not in effect until the owner resumes them; sorted
 * @param audiences empty: none in particular
 * @param issueTime null: not known
 * @param expireTime when the presented secret stops working; null: never
 * @param accessTokenId the public id of the short-lived access token that was presented; null: a personal one was
 * @param clientId the client that a short-lived access token was given to, as it named itself; null: none
 * @param stale the source of features does not respond: the scopes rest on its last answer
 */
public record Token(String id, String user, String name, List<String> scopes, List<String> granted,
        List<String> suspended, List<String> paused, List<String> audiences, Map<String, String> labels,
        Instant issueTime, Instant expireTime, String accessTokenId, String clientId, boolean stale) {
    public Token {
        scopes = List.copyOf(scopes);
        granted = List.copyOf(granted);
        suspended = List.copyOf(suspended);
        paused = List.copyOf(paused);
        audiences = List.copyOf(audiences);
        labels = Map.copyOf(labels);
    }
}
