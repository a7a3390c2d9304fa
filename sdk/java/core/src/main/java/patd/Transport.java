package patd;

import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodySubscriber;
import java.net.http.HttpTimeoutException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.List;
import java.util.Locale;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executor;
import java.util.concurrent.Flow;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/** Sends requests to patd. For this library. */
public final class Transport {
    /** The longest answer that is read, in bytes. */
    private static final int MAX_ANSWER = 4 << 20;

    private final String base;
    private final TokenSource token;
    private final HttpClient client;
    private final Executor executor;
    private final Set<CompletableFuture<?>> open = ConcurrentHashMap.newKeySet();
    private volatile boolean closed;

    Transport(URI url, TokenSource token, boolean allowPlainHttp, Duration timeout, Executor executor) {
        this.base = base(url, allowPlainHttp);
        this.token = token;
        this.executor = executor;
        this.client = client(timeout, executor);
    }

    /** Returns a client that follows no redirect, which would carry tokens to where it points. */
    public static HttpClient client(Duration timeout, Executor executor) {
        // HTTP/1.1: over one connection of HTTP/2, the server bounds how many requests are under way, and others fail.
        HttpClient.Builder builder = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1)
                .followRedirects(HttpClient.Redirect.NEVER).connectTimeout(timeout);
        return (executor == null ? builder : builder.executor(executor)).build();
    }

    /** Ends all requests, and refuses later ones. */
    void close() {
        closed = true;
        open.forEach(request -> request.completeExceptionally(FaultException.closed()));
    }

    /** Lets requests be sent again, for a last report. */
    void reopen() {
        closed = false;
    }

    /** Posts a JSON body and returns that of the response, whose status must be 200. */
    CompletableFuture<Object> post(String path, Object body, Duration timeout) {
        if (closed) {
            return CompletableFuture.failedFuture(FaultException.closed());
        }
        byte[] text = Json.write(body).getBytes(StandardCharsets.UTF_8);
        CompletableFuture<HttpResponse<byte[]>> out = new CompletableFuture<>();
        open.add(out);
        out.orTimeout(timeout.toMillis(), TimeUnit.MILLISECONDS);
        executor.execute(() -> send(path, text, out, true));
        return out.handle((response, err) -> {
            open.remove(out);
            if (err != null) {
                throw late(err);
            }
            return parse(response.body());
        });
    }

    private void send(String path, byte[] text, CompletableFuture<HttpResponse<byte[]>> out, boolean again) {
        if (closed) {
            out.completeExceptionally(FaultException.closed());
            return;
        }
        HttpRequest request;
        try {
            request = request(path).header("Content-Type", "application/json")
                    .POST(BodyPublishers.ofByteArray(text)).build();
        } catch (IOException | RuntimeException e) {
            out.completeExceptionally(e);
            return;
        }
        CompletableFuture<HttpResponse<byte[]>> sent = client.sendAsync(request, info -> new Bounded(MAX_ANSWER));
        out.whenComplete((ok, err) -> {
            if (err != null) {
                sent.cancel(true); // it was late, or the verifier is closed
            }
        });
        sent.whenComplete((response, err) -> {
            if (err == null && response.statusCode() == 200) {
                out.complete(response);
            } else if (err == null) {
                out.completeExceptionally(refused(response.statusCode()));
            } else if (again && isBroken(err) && !out.isDone()) {
                // A connection that was kept open may have ended. To ask again does no harm.
                send(path, text, out, false);
            } else {
                out.completeExceptionally(FaultException.unwrap(err));
            }
        });
    }

    private static boolean isBroken(Throwable err) {
        Throwable cause = FaultException.unwrap(err);
        return cause instanceof IOException && !(cause instanceof HttpTimeoutException);
    }

    /** Opens a stream of events. The future completes when the headers have come, and the subscriber gets the bytes. */
    CompletableFuture<HttpResponse<Void>> stream(String path, BodySubscriber<Void> subscriber) throws IOException {
        if (closed) {
            return CompletableFuture.failedFuture(FaultException.closed());
        }
        HttpRequest request = request(path).header("Accept", "text/event-stream").GET().build();
        return client.sendAsync(request, info -> {
            String type = info.headers().firstValue("Content-Type").orElse("").toLowerCase(Locale.ROOT);
            return info.statusCode() == 200 && type.startsWith("text/event-stream") ? subscriber : new Nothing();
        });
    }

    private HttpRequest.Builder request(String path) throws IOException {
        return HttpRequest.newBuilder(URI.create(base + path)).header("Authorization", authorization(token));
    }

    /** Returns the header for a service token. The error for what is none does not say it, unlike the client's own. */
    public static String authorization(TokenSource source) throws IOException {
        String token = source.token();
        token = token == null ? "" : token.strip();
        if (!token.matches("[!-~]+")) {
            throw new IOException("the service token is no token: it has no or other characters");
        }
        return "Bearer " + token;
    }

    private static RuntimeException late(Throwable err) {
        Throwable cause = FaultException.unwrap(err);
        if (cause instanceof TimeoutException || cause instanceof HttpTimeoutException) {
            return new FaultException(FaultException.Kind.UNAVAILABLE, "patd did not answer in time", cause);
        }
        return FaultException.of(cause, "ask patd");
    }

    static FaultException refused(int status) {
        FaultException.Kind kind = status == 401 || status == 403 ? FaultException.Kind.FORBIDDEN
                : status == 400 ? FaultException.Kind.INVALID : FaultException.Kind.UNAVAILABLE;
        return new FaultException(kind, "patd answered with status " + status, null);
    }

    private static Object parse(byte[] body) {
        try {
            return Json.read(body);
        } catch (IllegalArgumentException e) {
            throw FaultException.unavailable("the answer of patd is not JSON");
        }
    }

    /** Returns the address that paths are added to. */
    public static String base(URI url, boolean allowPlainHttp) {
        String scheme = url.getScheme() == null ? "" : url.getScheme().toLowerCase(Locale.ROOT);
        if (url.getHost() == null || url.getUserInfo() != null || url.getQuery() != null || url.getFragment() != null) {
            throw new IllegalArgumentException("the address of patd has a host, and no user, query or fragment");
        }
        if (!scheme.equals("https") && !(scheme.equals("http") && (allowPlainHttp || isLoopback(url.getHost())))) {
            throw new IllegalArgumentException(
                    "the address of patd must be https, unless it is this machine: " + scheme + "://" + url.getHost());
        }
        return url.toString().replaceAll("/+$", "");
    }

    private static boolean isLoopback(String host) {
        return host.equals("localhost") || host.equals("[::1]") || host.matches("127\\.\\d+\\.\\d+\\.\\d+");
    }

    /** Reads a body up to a number of bytes. */
    public static final class Bounded implements BodySubscriber<byte[]> {
        private final BodySubscriber<byte[]> inner = HttpResponse.BodySubscribers.ofByteArray();
        private final long max;
        private long length;
        private Flow.Subscription subscription;

        /** Makes a reader of so many bytes at most. */
        public Bounded(long max) {
            this.max = max;
        }

        @Override
        public CompletionStage<byte[]> getBody() {
            return inner.getBody();
        }

        @Override
        public void onSubscribe(Flow.Subscription subscription) {
            this.subscription = subscription;
            inner.onSubscribe(subscription);
        }

        @Override
        public void onNext(List<ByteBuffer> buffers) {
            for (ByteBuffer one : buffers) {
                length += one.remaining();
            }
            if (length > max) {
                subscription.cancel();
                inner.onError(new TooLongException());
                return;
            }
            inner.onNext(buffers);
        }

        @Override
        public void onError(Throwable err) {
            inner.onError(err);
        }

        @Override
        public void onComplete() {
            inner.onComplete();
        }
    }

    /** An answer that is longer than it may be. */
    static final class TooLongException extends RuntimeException {
        TooLongException() {
            super("the answer of patd is too long");
        }
    }

    /** Reads nothing, and closes the connection. */
    private static final class Nothing implements BodySubscriber<Void> {
        @Override
        public CompletionStage<Void> getBody() {
            return CompletableFuture.completedFuture(null);
        }

        @Override
        public void onSubscribe(Flow.Subscription subscription) {
            subscription.cancel();
        }

        @Override
        public void onNext(List<ByteBuffer> buffers) {}

        @Override
        public void onError(Throwable err) {}

        @Override
        public void onComplete() {}
    }
}
