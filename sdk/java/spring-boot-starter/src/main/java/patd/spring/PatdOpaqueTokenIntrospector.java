package patd.spring;

import java.util.ArrayList;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.Map;
import org.springframework.security.core.GrantedAuthority;
import org.springframework.security.core.authority.SimpleGrantedAuthority;
import org.springframework.security.oauth2.core.OAuth2AuthenticatedPrincipal;
import org.springframework.security.oauth2.core.OAuth2TokenIntrospectionClaimNames;
import org.springframework.security.oauth2.server.resource.introspection.BadOpaqueTokenException;
import org.springframework.security.oauth2.server.resource.introspection.OAuth2IntrospectionAuthenticatedPrincipal;
import org.springframework.security.oauth2.server.resource.introspection.OAuth2IntrospectionException;
import org.springframework.security.oauth2.server.resource.introspection.OpaqueTokenIntrospector;
import org.springframework.web.context.request.RequestContextHolder;
import org.springframework.web.context.request.ServletRequestAttributes;
import patd.Call;
import patd.Checker;
import patd.FaultException;
import patd.Refusal;
import patd.Result;
import patd.Token;

/**
 * Decides about tokens from memory. Each scope in effect is an authority with {@code SCOPE_} in front, and the name of
 * the principal is the user. The token's record is the attribute {@link #TOKEN}.
 */
public final class PatdOpaqueTokenIntrospector implements OpaqueTokenIntrospector {
    /** The attribute that has the {@link Token}. */
    public static final String TOKEN = "patd.token";

    private final Checker checker;

    /** Makes one. */
    public PatdOpaqueTokenIntrospector(Checker checker) {
        this.checker = checker;
    }

    @Override
    public OAuth2AuthenticatedPrincipal introspect(String token) {
        Result result;
        try {
            result = checker.verify(token, Call.requires().from(clientIp()));
        } catch (FaultException e) {
            throw new OAuth2IntrospectionException("nothing is known about the token: " + e.kind(), e);
        }
        if (!result.allowed()) {
            throw new BadOpaqueTokenException(Refusal.of(result).text());
        }
        return principal(result.token());
    }

    /** Returns the address of the connection, or what the container has put in its place; empty: not known. */
    private static String clientIp() {
        if (RequestContextHolder.getRequestAttributes() instanceof ServletRequestAttributes attributes) {
            return attributes.getRequest().getRemoteAddr();
        }
        return "";
    }

    private static OAuth2AuthenticatedPrincipal principal(Token token) {
        Collection<GrantedAuthority> authorities = new ArrayList<>();
        token.scopes().forEach(scope -> authorities.add(new SimpleGrantedAuthority("SCOPE_" + scope)));
        Map<String, Object> attributes = new LinkedHashMap<>();
        attributes.put(OAuth2TokenIntrospectionClaimNames.ACTIVE, true);
        attributes.put(OAuth2TokenIntrospectionClaimNames.SUB, token.user());
        attributes.put(OAuth2TokenIntrospectionClaimNames.JTI, token.id());
        attributes.put(OAuth2TokenIntrospectionClaimNames.SCOPE, token.scopes());
        if (!token.audiences().isEmpty()) {
            attributes.put(OAuth2TokenIntrospectionClaimNames.AUD, token.audiences());
        }
        if (token.issueTime() != null) {
            attributes.put(OAuth2TokenIntrospectionClaimNames.IAT, token.issueTime());
        }
        if (token.expireTime() != null) {
            attributes.put(OAuth2TokenIntrospectionClaimNames.EXP, token.expireTime());
        }
        attributes.put(TOKEN, token);
        return new OAuth2IntrospectionAuthenticatedPrincipal(token.user(), attributes, authorities);
    }
}
