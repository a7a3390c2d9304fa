package patd.manage;

import java.io.IOException;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.Function;
import patd.Json;
import patd.TokenSource;
import patd.Transport;
import patd.manage.types.Operations;

/**
 * Calls the operations of patd. Calls that create or rotate carry an idempotency key of their own, so they are repeated
 * safely when a connection breaks; a change that could happen twice is not repeated. It is safe for use by many
 * threads.
 */
public final class Manage extends Operations {
    private static final Duration LONGEST_PAUSE = Duration.ofSeconds(10);
    private static final int MAX_ANSWER = 64 << 20;

    private final String base;
    private final TokenSource token;
    private final Duration timeout;
    private final int attempts;
    private final HttpClient client;

    /** Makes a client of a patd, whose address is https, or this machine's. */
    public Manage(URI url, TokenSource token) {
        this(url, token, Duration.ofSeconds(30), 4, false);
    }

    /**
     * Makes a client of a patd.
     *
     * @param timeout bounds a call with all its repetitions
     * @param attempts how often a call is sent at most, where that is safe
     * @param allowPlainHttp allows plain http to other machines, which shows every token to the network in between
     */
    public Manage(URI url, TokenSource token, Duration timeout, int attempts, boolean allowPlainHttp) {
        this.base = Transport.base(url, allowPlainHttp);
        this.token = token;
        this.timeout = timeout;
        this.attempts = attempts;
        this.client = Transport.client(timeout, null);
    }

    @Override
    protected <T> Pages<T> pages(Operation operation, List<String> path, Message query,
            Function<Map<String, Object>, T> item, Option... options) {
        return new Pages<>(next -> {
            Map<String, Object> members = new LinkedHashMap<>(query == null ? Map.of() : query.members());
            if (next != null) {
                members.put(operation.ask(), next);
            }
            Map<String, Object> page = send(operation, path, members, null, options);
            List<T> items = new Members(page).messages(operation.items(), item);
            return new Pages.Page<>(items, page.get(operation.next()) instanceof String text ? text : "");
        });
    }

    private static final class Members extends Message {
        Members(Map<String, Object> members) {
            super(members);
        }
    }

    @Override
    protected Map<String, Object> call(Operation operation, List<String> path, Message query, Message body,
            Option... options) {
        return send(operation, path, query == null ? Map.of() : query.members(), body, options);
    }

    private Map<String, Object> send(Operation operation, List<String> path, Map<String, Object> query, Message body,
            Option... options) {
        String etag = null;
        String key = operation.key() ? UUID.randomUUID().toString() : null;
        Duration limit = timeout;
        for (Option option : options) {
            switch (option.kind()) {
                case ETAG -> etag = option.text();
                case IDEMPOTENCY_KEY -> key = option.text();
                case TIMEOUT -> limit = option.time();
            }
        }
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(base + fill(operation, path) + search(query)))
                .method(operation.method(), body == null ? BodyPublishers.noBody()
                        : BodyPublishers.ofString(body.toJson()));
        if (body != null) {
            request.header("Content-Type", "application/json");
        }
        if (key != null) {
            request.header("Idempotency-Key", key);
        }
        if (etag != null) {
            request.header("If-Match", etag);
        }
        boolean repeat = (operation.repeat() || key != null) && etag == null;
        long deadline = System.nanoTime() + limit.toNanos();
        for (int attempt = 1;; attempt++) {
            try {
                return attempt(request, deadline);
            } catch (PatdException e) {
                Duration pause = pause(e, repeat, attempt);
                if (attempt >= attempts || pause == null || System.nanoTime() + pause.toNanos() - deadline >= 0) {
                    throw e;
                }
                sleep(pause);
            }
        }
    }

    private static String fill(Operation operation, List<String> values) {
        String[] parts = operation.path().split("\\{\\w+\\}", -1);
        StringBuilder out = new StringBuilder(parts[0]);
        for (int i = 1; i < parts.length; i++) {
            String value = values.get(i - 1);
            // Some fold a segment of dots away, and the call would be another one.
            if (value == null || value.matches("\\.{0,2}")) {
                throw new IllegalArgumentException("an id in the path of " + operation.id() + " is empty or dots");
            }
            out.append(encode(value)).append(parts[i]);
        }
        return out.toString();
    }

    private static String encode(String text) {
        return URLEncoder.encode(text, StandardCharsets.UTF_8).replace("+", "%20");
    }

    private static String search(Map<String, Object> query) {
        List<String> out = new ArrayList<>();
        query.forEach((name, value) -> {
            for (Object one : value instanceof List<?> list ? list : List.of(value)) {
                out.add(encode(name) + "=" + encode(one.toString()));
            }
        });
        return out.isEmpty() ? "" : "?" + String.join("&", out);
    }

    private Map<String, Object> attempt(HttpRequest.Builder request, long deadline) {
        HttpResponse<byte[]> response;
        CompletableFuture<HttpResponse<byte[]>> sent = null;
        try {
            request.setHeader("Authorization", Transport.authorization(token));
            sent = client.sendAsync(request.build(), info -> new Transport.Bounded(MAX_ANSWER));
            response = sent.get(Math.max(1, deadline - System.nanoTime()), TimeUnit.NANOSECONDS);
        } catch (TimeoutException e) {
            sent.cancel(true);
            throw PatdException.of(0, "DEADLINE_EXCEEDED", "patd did not answer in time", e);
        } catch (InterruptedException e) {
            sent.cancel(true);
            Thread.currentThread().interrupt();
            throw PatdException.of(0, "CANCELLED", "the thread was interrupted", e);
        } catch (ExecutionException e) {
            throw PatdException.of(0, "UNAVAILABLE", "the connection to patd failed", e.getCause());
        } catch (IOException e) {
            throw PatdException.of(0, "UNAUTHENTICATED", "the token of this program cannot be read", e);
        }
        byte[] body = response.body();
        if (response.statusCode() / 100 != 2) {
            String id = response.headers().firstValue("X-Request-Id").orElse("");
            String after = response.headers().firstValue("Retry-After").orElse("");
            throw PatdException.read(response.statusCode(), body, id,
                    after.matches("[0-9]{1,9}") ? Duration.ofSeconds(Long.parseLong(after)) : null);
        }
        return body.length == 0 ? Map.of() : members(response.statusCode(), body);
    }

    @SuppressWarnings("unchecked")
    private static Map<String, Object> members(int status, byte[] body) {
        try {
            if (Json.read(body) instanceof Map<?, ?> map) {
                return (Map<String, Object>) map;
            }
        } catch (IllegalArgumentException e) {
            // below
        }
        throw PatdException.of(status, "INTERNAL", "the answer of patd is no JSON object", null);
    }

    /** Returns how long to wait before a call is repeated; null: it is not. */
    private static Duration pause(PatdException e, boolean repeat, int attempt) {
        boolean busy = e.httpStatus() == 429; // the call was refused before it began
        boolean lost = e.httpStatus() == 0 && e.status().equals("UNAVAILABLE")
                || e.httpStatus() >= 502 && e.httpStatus() <= 504;
        if (!busy && !(lost && repeat)) {
            return null;
        }
        if (e.retryAfter() != null) {
            return e.retryAfter().compareTo(LONGEST_PAUSE) > 0 ? null : e.retryAfter();
        }
        long longest = 200L << attempt - 1;
        return Duration.ofMillis(longest / 2 + ThreadLocalRandom.current().nextLong(longest));
    }

    private static void sleep(Duration pause) {
        try {
            Thread.sleep(pause.toMillis());
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw PatdException.of(0, "CANCELLED", "the thread was interrupted", e);
        }
    }
}
