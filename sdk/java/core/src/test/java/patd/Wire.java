package patd;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.function.BooleanSupplier;
import java.util.function.Function;

/** Answers requests of the library as patd would, and lets a test send events. */
final class Wire implements AutoCloseable {
    /** What was asked. */
    record Asked(String path, Map<?, ?> body, String authorization) {}

    final List<Asked> asked = new CopyOnWriteArrayList<>();
    volatile boolean keep = true;
    volatile Function<Map<?, ?>, Object> answer = body -> Map.of("active", false, "decision", "NOT_FOUND");
    volatile int status = 200;
    volatile int reports = 200;
    final List<Map<?, ?>> acknowledged = new CopyOnWriteArrayList<>();
    volatile int acknowledging = 200; // the status of the answer; 0: there is none
    volatile int watches;
    private final HttpServer server;
    private final ExecutorService threads = Executors.newCachedThreadPool();
    private volatile OutputStream watch;
    private long sequence = 1;

    Wire() {
        try {
            server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
        } catch (IOException e) {
            throw new IllegalStateException(e);
        }
        server.setExecutor(threads);
        server.createContext("/", this::handle);
        server.start();
        threads.execute(this::beat);
    }

    URI url() {
        return URI.create("http://127.0.0.1:" + server.getAddress().getPort());
    }

    private void handle(HttpExchange x) throws IOException {
        String path = x.getRequestURI().getPath();
        if (path.equals("/v1/invalidations")) {
            x.getResponseHeaders().set("Content-Type", "text/event-stream");
            x.sendResponseHeaders(200, 0);
            watch = x.getResponseBody();
            event("start-over", List.of(), List.of(), Map.of("watch_id", "watch-" + ++watches));
            return;
        }
        Map<?, ?> body = (Map<?, ?>) Json.read(x.getRequestBody().readAllBytes());
        if (path.equals("/v1/invalidations:acknowledge")) {
            acknowledge(x, body);
            return;
        }
        if (keep) {
            asked.add(new Asked(path, body, x.getRequestHeaders().getFirst("Authorization")));
        }
        boolean report = path.equals("/v1/uses:report");
        int code = report ? reports : status;
        byte[] out = (code != 200 || report ? "{}" : Json.write(answer.apply(body))).getBytes(StandardCharsets.UTF_8);
        x.sendResponseHeaders(code, out.length);
        x.getResponseBody().write(out);
        x.close();
    }

    private void acknowledge(HttpExchange x, Map<?, ?> body) throws IOException {
        acknowledged.add(body);
        try {
            while (acknowledging == 0) {
                Thread.sleep(5);
            }
        } catch (InterruptedException e) {
            return; // the test is over
        }
        x.sendResponseHeaders(acknowledging, 2);
        x.getResponseBody().write("{}".getBytes(StandardCharsets.UTF_8));
        x.close();
    }

    private void beat() {
        try {
            while (!Thread.currentThread().isInterrupted()) {
                Thread.sleep(300);
                event("heartbeat", List.of(), List.of());
            }
        } catch (InterruptedException e) {
            // the test is over
        }
    }

    void event(String type, List<String> tokenIds, List<String> users) {
        event(type, tokenIds, users, Map.of());
    }

    synchronized void event(String type, List<String> tokenIds, List<String> users, Map<String, Object> more) {
        OutputStream to = watch;
        if (type.equals("invalidations")) {
            sequence++;
        }
        Map<String, Object> data = new LinkedHashMap<>();
        data.put("sequence", Long.toString(sequence));
        data.put("history", "h");
        data.put("start_over", type.equals("start-over"));
        data.put("token_ids", tokenIds);
        data.put("users", users);
        data.putAll(more);
        try {
            if (to != null) {
                to.write(("event: " + type + "\ndata: " + Json.write(data) + "\n\n").getBytes(StandardCharsets.UTF_8));
                to.flush();
            }
        } catch (IOException e) {
            watch = null;
        }
    }

    synchronized String sequence() {
        return Long.toString(sequence);
    }

    /** Returns an answer about an active token. */
    Map<String, Object> active(String id, String user) {
        Map<String, Object> out = new LinkedHashMap<>();
        out.put("active", true);
        out.put("decision", "ALLOW");
        out.put("token_id", id);
        out.put("user", user);
        out.put("scopes", List.of("read"));
        out.put("granted_scopes", List.of("read"));
        out.put("any_client_ip", true);
        out.put("sequence", sequence());
        return out;
    }

    /** Waits until something is so. */
    static void until(BooleanSupplier so) throws InterruptedException {
        for (long end = System.nanoTime() + 60_000_000_000L; !so.getAsBoolean(); Thread.sleep(5)) {
            if (System.nanoTime() - end > 0) {
                throw new AssertionError("it never was so");
            }
        }
    }

    @Override
    public void close() {
        server.stop(0);
        threads.shutdownNow();
    }
}
