package patd.manage;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import patd.Json;

/** A call of the management client that failed. Decide by {@link #reason}, which is stable, not by the message. */
public final class PatdException extends RuntimeException {
    /**
     * What is wrong with a field of a request.
     *
     * @param field in snake_case
     * @param reason empty: none
     */
    public record Violation(String field, String description, String reason) {}

    private final int httpStatus;
    private final String status;
    private final String reason;
    private final transient Map<String, String> metadata;
    private final transient List<Violation> violations;
    private final String requestId;
    private final Duration retryAfter;

    private PatdException(int httpStatus, String status, String message, String reason, Map<String, String> metadata,
            List<Violation> violations, String requestId, Duration retryAfter, Throwable cause) {
        super(message, cause);
        this.httpStatus = httpStatus;
        this.status = status;
        this.reason = reason;
        this.metadata = metadata;
        this.violations = violations;
        this.requestId = requestId;
        this.retryAfter = retryAfter;
    }

    /** Makes one for a call that had no response, or none that makes sense. */
    static PatdException of(int httpStatus, String status, String message, Throwable cause) {
        return new PatdException(httpStatus, status, message, "", Map.of(), List.of(), "", null, cause);
    }

    /** Reads the error of a response. What is not of patd's form has a status and no reason. */
    static PatdException read(int httpStatus, byte[] body, String requestId, Duration retryAfter) {
        String status = "UNKNOWN";
        String message = "patd answered with status " + httpStatus;
        String reason = "";
        Map<String, String> metadata = Map.of();
        List<Violation> violations = new ArrayList<>();
        if (errorOf(body) instanceof Map<?, ?> error) {
            status = text(error, "status", status);
            message = text(error, "message", message);
            for (Object one : error.get("details") instanceof List<?> list ? list : List.of()) {
                if (!(one instanceof Map<?, ?> detail)) {
                    continue;
                }
                if (text(detail, "@type", "").endsWith("google.rpc.ErrorInfo")) {
                    reason = text(detail, "reason", "");
                    metadata = texts(detail.get("metadata"));
                }
                requestId = text(detail, "request_id", requestId);
                for (Object v : detail.get("field_violations") instanceof List<?> list ? list : List.of()) {
                    if (v instanceof Map<?, ?> field) {
                        violations.add(new Violation(text(field, "field", ""), text(field, "description", ""),
                                text(field, "reason", "")));
                    }
                }
            }
        }
        return new PatdException(httpStatus, status, message, reason, metadata, List.copyOf(violations), requestId,
                retryAfter, null);
    }

    private static Object errorOf(byte[] body) {
        try {
            return Json.read(body) instanceof Map<?, ?> map ? map.get("error") : null;
        } catch (IllegalArgumentException e) {
            return null; // a proxy's
        }
    }

    private static String text(Map<?, ?> from, String name, String or) {
        return from.get(name) instanceof String text ? text : or;
    }

    private static Map<String, String> texts(Object value) {
        Map<String, String> out = new java.util.HashMap<>();
        (value instanceof Map<?, ?> map ? map : Map.of())
                .forEach((name, one) -> out.put(String.valueOf(name), String.valueOf(one)));
        return Map.copyOf(out);
    }

    /** Returns the status of the response; 0: there was none. Then a change may have happened. */
    public int httpStatus() {
        return httpStatus;
    }

    /** Returns the name of the status, such as {@code INVALID_ARGUMENT}. */
    public String status() {
        return status;
    }

    /** Returns the stable reason, as docs/api.md lists them; empty: none. */
    public String reason() {
        return reason;
    }

    /** Reports whether it is for this reason. */
    public boolean is(String reason) {
        return this.reason.equals(reason);
    }

    /** Returns what programs may know besides. */
    public Map<String, String> metadata() {
        return metadata;
    }

    /** Returns what is wrong with which fields. */
    public List<Violation> violations() {
        return violations;
    }

    /** Returns the id of the request in patd's logs; empty: not known. */
    public String requestId() {
        return requestId;
    }

    /** Returns how long to wait before the call is repeated, if patd says so; null: it does not. */
    public Duration retryAfter() {
        return retryAfter;
    }
}
