package patd;

import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.atomic.LongAdder;

/** Collects the uses of tokens that passed from memory, and reports them. */
final class Uses {
    private static final int PER_CALL = 1000;

    private final Transport transport;
    private final int limit;
    private final LongAdder dropped = new LongAdder();
    private List<Usage> queue = new ArrayList<>();
    private final Map<String, Usage> pending = new LinkedHashMap<>(); // could not be reported yet, by token id
    private CompletableFuture<Void> reporting; // null: no report runs

    Uses(Transport transport, int limit) {
        this.transport = transport;
        this.limit = limit;
    }

    long dropped() {
        return dropped.sum();
    }

    /** Notes a use. Reports whether the queue is half full, and should be reported. */
    boolean note(Usage u, Address from, List<String> scopes, long wall) {
        Usage.Last last = u.last;
        if (last != null && last.covers(wall, scopes)) {
            return false;
        }
        boolean half = false;
        synchronized (u) {
            if (!u.queued) {
                synchronized (this) {
                    if (queue.size() >= limit) {
                        dropped.increment();
                        return true;
                    }
                    queue.add(u);
                    half = queue.size() * 2 >= limit;
                }
                u.queued = true;
            }
            u.time = wall;
            u.ip = from == null ? null : from.text();
            u.need(scopes);
            u.last = new Usage.Last(wall, scopes);
        }
        return half;
    }

    /** Reports all uses, one report at a time. Those that it cannot report stay for the next time. */
    CompletableFuture<Void> report(Duration timeout) {
        CompletableFuture<Void> out = new CompletableFuture<>();
        List<Usage> all;
        synchronized (this) {
            if (reporting != null) {
                return reporting;
            }
            reporting = out;
            all = queue;
            queue = new ArrayList<>();
        }
        all.replaceAll(Usage::take); // without this lock: who notes a use takes both the other way around
        synchronized (this) {
            all.forEach(this::gather);
        }
        report(Clock.mono() + timeout.toNanos()).whenComplete((ok, err) -> {
            synchronized (this) {
                reporting = null;
            }
            if (err == null) {
                out.complete(null);
            } else {
                out.completeExceptionally(FaultException.unwrap(err));
            }
        });
        return out;
    }

    /** Returns what completes with the report that runs, whatever its result. */
    synchronized CompletableFuture<Void> idle() {
        return reporting == null ? CompletableFuture.completedFuture(null) : reporting.handle((ok, err) -> null);
    }

    synchronized boolean isReporting() {
        return reporting != null;
    }

    private synchronized CompletableFuture<Void> report(long until) {
        if (pending.isEmpty()) {
            return CompletableFuture.completedFuture(null);
        }
        List<Usage> batch = new ArrayList<>(pending.values());
        batch = batch.subList(0, Math.min(PER_CALL, batch.size()));
        List<Object> uses = new ArrayList<>();
        for (Usage u : batch) {
            Map<String, Object> use = new LinkedHashMap<>();
            use.put("token_id", u.tokenId);
            use.put("time", Instant.ofEpochMilli(u.time));
            use.put("client_ip", u.ip);
            use.put("scopes", u.scopes.isEmpty() ? null : u.scopes);
            use.put("unscoped", u.unscoped ? true : null);
            uses.add(use);
        }
        List<Usage> sent = batch;
        Duration timeout = Duration.ofNanos(Math.max(1_000_000, until - Clock.mono()));
        return transport.post("/v1/uses:report", Map.of("uses", uses), timeout).handle((ok, err) -> {
            if (err != null) {
                FaultException fault = FaultException.of(err, "report uses");
                if (fault.kind() != FaultException.Kind.INVALID) {
                    throw fault;
                }
                dropped.add(sent.size()); // patd will not take them another time either
            }
            synchronized (this) {
                sent.forEach(u -> pending.remove(u.tokenId));
            }
            return null;
        }).thenCompose(ok -> report(until));
    }

    /** Merges a use into the pending ones: of each token, one. */
    private void gather(Usage latest) {
        Usage before = pending.get(latest.tokenId);
        if (before != null) {
            latest.merge(before);
        } else if (pending.size() >= limit) {
            dropped.increment();
            return;
        }
        pending.put(latest.tokenId, latest);
    }
}
