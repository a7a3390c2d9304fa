package patd.servlet;

import jakarta.servlet.FilterChain;
import jakarta.servlet.ServletException;
import jakarta.servlet.http.HttpFilter;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletRequestWrapper;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.security.Principal;
import java.util.Collections;
import java.util.List;
import java.util.Objects;
import java.util.function.Function;
import java.util.function.Supplier;
import patd.Checker;
import patd.Guard;
import patd.Result;
import patd.RouteTable;

/**
 * A servlet filter: it lets requests pass whose token has the scopes. The request's user is then that of the token. The
 * client's address is that of the connection, since anybody can write a header; behind a proxy that you trust, have the
 * container set it, or give a function.
 */
public final class PatdFilter extends HttpFilter {
    private static final String ATTRIBUTE = "patd.result";
    private static final long serialVersionUID = 1;

    private final transient Guard guard;
    private final transient Function<HttpServletRequest, String> clientIp;
    private final List<String> scopes;
    private final transient RouteTable routes; // null: the scopes count

    /** Makes a filter that requires these scopes, or any active token if there are none. */
    public PatdFilter(Checker checker, String... scopes) {
        this(new Guard(checker), HttpServletRequest::getRemoteAddr, scopes);
    }

    /** Makes a filter with a guard that was configured, and a function that returns where a request comes from. */
    public PatdFilter(Guard guard, Function<HttpServletRequest, String> clientIp, String... scopes) {
        this.guard = guard;
        this.clientIp = clientIp;
        this.scopes = List.of(scopes);
        this.routes = null;
    }

    /**
     * Makes a filter for a whole program: what a request needs is in a table of routes, which closes all others. The
     * paths are those below the context path.
     */
    public PatdFilter(Guard guard, Function<HttpServletRequest, String> clientIp, RouteTable routes) {
        this.guard = guard;
        this.clientIp = clientIp;
        this.scopes = List.of();
        this.routes = Objects.requireNonNull(routes);
    }

    @Override
    protected void doFilter(HttpServletRequest request, HttpServletResponse response, FilterChain chain)
            throws IOException, ServletException {
        List<String> authorization = Collections.list(request.getHeaders("Authorization"));
        Supplier<String> from = () -> clientIp.apply(request);
        Guard.Outcome outcome = routes == null ? guard.decide(authorization, scopes, from)
                : guard.decide(routes, request.getMethod(), path(request), authorization, from);
        outcome.headers().forEach(response::setHeader);
        if (outcome.passes()) {
            request.setAttribute(ATTRIBUTE, outcome.result());
            chain.doFilter(new Authenticated(request, outcome.result()), response);
            return;
        }
        byte[] body = outcome.body().getBytes(StandardCharsets.UTF_8);
        response.setStatus(outcome.status());
        response.setContentType("application/json");
        response.setContentLength(body.length);
        response.getOutputStream().write(body);
    }

    /** Returns the path below the context path, as it was written. */
    private static String path(HttpServletRequest request) {
        String uri = request.getRequestURI();
        String context = request.getContextPath();
        return uri.startsWith(context) ? uri.substring(context.length()) : "";
    }

    /** Returns the decision about a request that the filter let pass. */
    public static Result caller(HttpServletRequest request) {
        if (request.getAttribute(ATTRIBUTE) instanceof Result result) {
            return result;
        }
        throw new IllegalStateException("no filter of patd let this request pass: map one to its path");
    }

    private static final class Authenticated extends HttpServletRequestWrapper {
        private final Result result;

        Authenticated(HttpServletRequest request, Result result) {
            super(request);
            this.result = result;
        }

        @Override
        public String getRemoteUser() {
            return result.token().user();
        }

        @Override
        public Principal getUserPrincipal() {
            return () -> result.token().user();
        }

        @Override
        public String getAuthType() {
            return "Bearer";
        }
    }
}
