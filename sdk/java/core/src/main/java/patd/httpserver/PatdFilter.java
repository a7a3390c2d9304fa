package patd.httpserver;

import com.sun.net.httpserver.Filter;
import com.sun.net.httpserver.HttpExchange;
import java.io.IOException;
import java.net.InetAddress;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Objects;
import java.util.function.Supplier;
import patd.Checker;
import patd.Guard;
import patd.Result;
import patd.RouteTable;

/** A filter for the HTTP server of the JDK, module jdk.httpserver: requests pass whose token has the scopes. */
public final class PatdFilter extends Filter {
    private static final String ATTRIBUTE = "patd.result";

    private final Guard guard;
    private final List<String> scopes;
    private final RouteTable routes; // null: the scopes count

    /** Makes a filter that requires these scopes, or any active token if there are none. */
    public PatdFilter(Checker checker, String... scopes) {
        this(new Guard(checker), scopes);
    }

    /** Makes a filter with a guard that was configured. */
    public PatdFilter(Guard guard, String... scopes) {
        this.guard = guard;
        this.scopes = List.of(scopes);
        this.routes = null;
    }

    /** Makes a filter for a whole program: what a request needs is in a table of routes, which closes all others. */
    public PatdFilter(Guard guard, RouteTable routes) {
        this.guard = guard;
        this.scopes = List.of();
        this.routes = Objects.requireNonNull(routes);
    }

    @Override
    public String description() {
        return "requires a token of patd with " + (routes == null ? scopes : "the scopes of a table of routes");
    }

    @Override
    public void doFilter(HttpExchange exchange, Chain chain) throws IOException {
        List<String> authorization = exchange.getRequestHeaders().getOrDefault("Authorization", List.of());
        Supplier<String> clientIp = () -> {
            InetAddress address = exchange.getRemoteAddress().getAddress();
            return address == null ? "" : address.getHostAddress();
        };
        Guard.Outcome outcome = routes == null ? guard.decide(authorization, scopes, clientIp)
                : guard.decide(routes, exchange.getRequestMethod(), exchange.getRequestURI().getRawPath(),
                        authorization, clientIp);
        outcome.headers().forEach(exchange.getResponseHeaders()::set);
        if (outcome.passes()) {
            exchange.setAttribute(ATTRIBUTE, outcome.result());
            chain.doFilter(exchange);
            return;
        }
        byte[] body = outcome.body().getBytes(StandardCharsets.UTF_8);
        exchange.getResponseHeaders().set("Content-Type", "application/json");
        exchange.sendResponseHeaders(outcome.status(), body.length);
        exchange.getResponseBody().write(body);
        exchange.close();
    }

    /** Returns the decision about a request that the filter let pass. */
    public static Result caller(HttpExchange exchange) {
        if (exchange.getAttribute(ATTRIBUTE) instanceof Result result) {
            return result;
        }
        throw new IllegalStateException("no filter of patd let this request pass: add one to the context");
    }
}
