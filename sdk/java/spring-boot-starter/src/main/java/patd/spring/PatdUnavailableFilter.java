package patd.spring;

import jakarta.servlet.FilterChain;
import jakarta.servlet.ServletException;
import jakarta.servlet.http.HttpFilter;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import org.springframework.security.authentication.AuthenticationServiceException;
import patd.FaultException;

/** Makes a 503 of a request about whose token nothing is known. Spring Security would make it a 500. */
public final class PatdUnavailableFilter extends HttpFilter {
    private static final long serialVersionUID = 1;

    @Override
    protected void doFilter(HttpServletRequest request, HttpServletResponse response, FilterChain chain)
            throws IOException, ServletException {
        try {
            chain.doFilter(request, response);
        } catch (AuthenticationServiceException e) {
            if (!isFault(e) || response.isCommitted()) {
                throw e;
            }
            byte[] body = "{\"error\":\"temporarily_unavailable\"}".getBytes(StandardCharsets.UTF_8);
            response.reset();
            response.setStatus(HttpServletResponse.SC_SERVICE_UNAVAILABLE);
            response.setHeader("Cache-Control", "no-store");
            response.setHeader("Retry-After", "1");
            response.setContentType("application/json");
            response.setContentLength(body.length);
            response.getOutputStream().write(body);
        }
    }

    private static boolean isFault(Throwable e) {
        for (int depth = 0; e != null && depth < 10; depth++) {
            if (e instanceof FaultException) {
                return true;
            }
            e = e.getCause();
        }
        return false;
    }
}
