package patd;

import java.time.Duration;
import java.util.Iterator;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;

/** Bounds how many requests are under way. */
final class Slots {
    private final Executor executor;
    private final Set<CompletableFuture<Void>> waiting = new LinkedHashSet<>(); // in the order in which they came
    private int free;
    private boolean closed;

    Slots(int slots, Executor executor) {
        this.free = slots;
        this.executor = executor;
    }

    /** Waits for a slot. The future fails with a fault if none is free in time. */
    CompletableFuture<Void> take(Duration timeout) {
        CompletableFuture<Void> slot = new CompletableFuture<>();
        synchronized (this) {
            if (closed) {
                return CompletableFuture.failedFuture(FaultException.closed());
            }
            if (free > 0) {
                free--;
                return CompletableFuture.completedFuture(null);
            }
            waiting.add(slot);
        }
        return slot.orTimeout(timeout.toMillis(), TimeUnit.MILLISECONDS).handle((ok, err) -> {
            if (err == null) {
                return null;
            }
            synchronized (this) {
                waiting.remove(slot);
            }
            FaultException fault = FaultException.unwrap(err) instanceof FaultException f
                    ? f : FaultException.unavailable("too many checks are waiting for patd");
            throw fault;
        });
    }

    /** Gives a slot back, to the one that has waited for longest. */
    void give() {
        CompletableFuture<Void> next;
        synchronized (this) {
            Iterator<CompletableFuture<Void>> all = waiting.iterator();
            if (!all.hasNext()) {
                free++;
                return;
            }
            next = all.next();
            all.remove();
        }
        // By another thread: what waits may fail at once, and give the slot to the next, and so on.
        executor.execute(() -> {
            if (!next.complete(null)) {
                give(); // it gave up meanwhile
            }
        });
    }

    /** Lets all that wait fail. */
    void close() {
        List<CompletableFuture<Void>> all;
        synchronized (this) {
            closed = true;
            all = List.copyOf(waiting);
            waiting.clear();
        }
        all.forEach(slot -> slot.completeExceptionally(FaultException.closed()));
    }
}
