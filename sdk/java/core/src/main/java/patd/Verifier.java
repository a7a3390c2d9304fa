package patd;

import java.net.URI;
import java.time.Duration;
import java.time.Instant;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.SynchronousQueue;
import java.util.concurrent.ThreadFactory;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Consumer;
import java.util.function.LongSupplier;

/**
 * Decides about tokens by asking patd, and from memory while it receives every change. One serves a whole program, and
 * is safe for use by many threads. It does not wait for patd: until the first event of the watch, every check asks.
 */
public final class Verifier implements Checker, AutoCloseable {
    /** Bounds the last report of uses. */
    private static final Duration CLOSING_REPORT = Duration.ofSeconds(5);
    /** Which part of the bytes is for uses, and what one takes at most. */
    private static final int USES_SHARE = 8;
    private static final int USE_BYTES = 1 << 10;
    private static final AtomicInteger COUNT = new AtomicInteger();

    private final String audience;
    private final long maxAge;
    private final Duration timeout;
    private final boolean reports;
    private final LongSupplier wall;
    private final Transport transport;
    private final Memory memory;
    private final Acknowledger acks;
    private final Watcher watcher;
    private final Uses uses;
    private final Keys keys = new Keys();
    private final Slots slots;
    private final ConcurrentHashMap<Keys.Key, Flight> flights = new ConcurrentHashMap<>();
    private final ExecutorService executor;
    private final ScheduledExecutorService timer;
    private final Thread watching;
    private final AtomicLong asked = new AtomicLong();
    private final AtomicLong order = new AtomicLong();
    private volatile boolean closed;

    /**
     * What a request brought.
     *
     * @param outdated it is known to be from before a change
     * @param once it is for the check that asked, and for no other
     */
    private record Reply(Entry entry, boolean outdated, boolean once) {}

    /**
     * A request under way.
     *
     * @param begun its place in the order of all checks and requests
     */
    private record Flight(long begun, CompletableFuture<Reply> reply) {}

    /**
     * The counters of a verifier, for the program's metrics.
     *
     * @param entries how many answers are kept
     * @param hits how many checks were decided from memory
     * @param asked how many requests were sent to patd about tokens
     * @param droppedUses how many uses will not be reported, for lack of room
     * @param watching whether memory may be used at this moment
     * @param serviceTokenExpireTime when the service token of this program expires; null: never, or not known yet
     */
    public record Stats(int entries, long hits, long asked, long droppedUses, boolean watching,
            Instant serviceTokenExpireTime) {}

    private Verifier(Builder b) {
        String name = "patd-" + COUNT.incrementAndGet();
        ThreadFactory threads = run -> daemon(run, name);
        audience = b.audience;
        maxAge = b.maxAge.toNanos();
        timeout = b.timeout;
        wall = b.wall;
        // What is handed to it after close is dropped: there is nobody left to wait for it.
        executor = new ThreadPoolExecutor(0, Integer.MAX_VALUE, 1, TimeUnit.MINUTES, new SynchronousQueue<>(), threads,
                new ThreadPoolExecutor.DiscardPolicy());
        transport = new Transport(b.url, b.token, b.allowPlainHttp, b.timeout, executor);
        memory = new Memory(b.maxEntries, b.maxBytes - b.maxBytes / USES_SHARE);
        uses = new Uses(transport, (int) Math.max(1, Math.min(b.maxEntries, b.maxBytes / USES_SHARE / USE_BYTES)));
        slots = new Slots(b.maxInFlight, executor);
        keys.of("", audience); // it must be an audience
        acks = new Acknowledger(transport);
        watcher = new Watcher(transport, memory, acks, wall, quietly(b.log));
        timer = Executors.newSingleThreadScheduledExecutor(threads);
        watching = daemon(watcher, name + "-watch");
        watching.start();
        reports = !b.reportEvery.isZero();
        if (reports) {
            long every = Math.max(1, b.reportEvery.toMillis());
            timer.scheduleWithFixedDelay(this::report, every, every, TimeUnit.MILLISECONDS);
        }
    }

    private static Thread daemon(Runnable run, String name) {
        Thread thread = new Thread(run, name);
        thread.setDaemon(true);
        return thread;
    }

    /** Returns a log that breaks nothing if it throws. */
    private static Consumer<String> quietly(Consumer<String> log) {
        return message -> {
            try {
                log.accept(message);
            } catch (RuntimeException e) {
                // the watch goes on
            }
        };
    }

    /** Begins the configuration of a verifier. */
    public static Builder builder(URI url, TokenSource token) {
        return new Builder(url, token);
    }

    /**
     * Decides about a token, exactly as the client sent it. Text without the form of a token is not found without a
     * request. An answer in memory without a change since decides at once. Anything else is asked; if that fails, so
     * does the check, whatever was in memory before.
     */
    @Override
    public Result verify(String token, Call call) {
        Check check = new Check(token, call);
        Result known = check.recall();
        if (known != null) {
            return known;
        }
        check.step();
        try {
            return check.out.get();
        } catch (ExecutionException e) {
            FaultException fault = FaultException.of(e, "ask patd");
            throw new FaultException(fault.kind(), fault.getMessage(), fault); // with the caller's own trace
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new FaultException(FaultException.Kind.INTERRUPTED, "the thread was interrupted", e);
        }
    }

    @Override
    public CompletableFuture<Result> verifyAsync(String token, Call call) {
        try {
            Check check = new Check(token, call);
            Result known = check.recall();
            if (known != null) {
                return CompletableFuture.completedFuture(known);
            }
            check.step();
            return check.out.copy();
        } catch (FaultException fault) {
            return CompletableFuture.failedFuture(fault);
        }
    }

    /** One check. */
    private final class Check {
        final String token;
        final Call call;
        final CompletableFuture<Result> out = new CompletableFuture<>();
        private Address address;
        private Keys.Key everywhere;
        private Keys.Key here;
        private long began;
        private boolean again = true;

        Check(String token, Call call) {
            this.token = token;
            this.call = call;
        }

        /** Decides what needs no request; null: patd has to be asked. */
        Result recall() {
            if (closed) {
                throw FaultException.closed();
            }
            if (token.length() > Form.MAX_TOKEN) {
                return Result.refuse(Decision.NOT_FOUND, null, null);
            }
            address = address(call.clientIp());
            everywhere = keys.of(token, call.audience().isEmpty() ? audience : call.audience());
            if (everywhere == null) {
                return Result.refuse(Decision.NOT_FOUND, null, null);
            }
            long mono = Clock.mono();
            long now = wall.getAsLong();
            Entry entry = memory.recall(everywhere, mono, now);
            if (entry == null) {
                here = keys.at(everywhere, address);
                entry = memory.recall(here, mono, now);
            }
            if (entry != null) {
                return let(entry, now);
            }
            if (!Form.isPlausible(token)) {
                return Result.refuse(Decision.NOT_FOUND, null, null);
            }
            began = order.incrementAndGet();
            return null;
        }

        /** Decides from memory, and notes a use if the token passes. */
        private Result let(Entry entry, long now) {
            Result result = entry.result(call.scopes());
            if (reports && result.allowed() && uses.note(entry.usage, address, call.scopes(), now)) {
                executor.execute(Verifier.this::report);
            }
            return result;
        }

        /** Asks patd, or waits for the answer to another check's request. */
        void step() {
            Flight flight = flights.get(here);
            if (flight != null) {
                follow(flight, false);
                return;
            }
            slots.take(timeout).whenComplete((ok, err) -> {
                if (err != null) {
                    fail(err);
                    return;
                }
                Flight mine = new Flight(order.incrementAndGet(), new CompletableFuture<>());
                Flight other = flights.putIfAbsent(here, mine);
                if (other != null) {
                    slots.give();
                    follow(other, false);
                } else {
                    fly(mine);
                    follow(mine, true);
                }
            });
        }

        /** Sends one request on behalf of all waiting checks, so that it does not end when one of them gives up. */
        private void fly(Flight flight) {
            long sent = Clock.mono();
            asked.incrementAndGet();
            long epoch = memory.epoch();
            String where = call.audience().isEmpty() ? audience : call.audience();
            Map<String, Object> request = new LinkedHashMap<>();
            request.put("token", token);
            request.put("audience", where.isEmpty() ? null : where);
            // The required scopes go along so that patd counts the use if, and only if, the token passes.
            request.put("required_scopes", call.scopes().isEmpty() ? null : call.scopes());
            request.put("client_ip", address == null ? null : address.text());
            transport.post("/v1/introspect", request, timeout).thenApply(body -> {
                Answer answer = Answer.read(body, sent, maxAge);
                Entry entry = answer.entry();
                entry.key = answer.everywhere() ? everywhere : here;
                boolean outdated = memory.keep(entry, epoch, answer.sequence());
                if (!outdated) {
                    memory.replaced(everywhere, here, entry);
                }
                return new Reply(entry, outdated, entry.token != null && answer.sequence() == 0);
            }).whenComplete((reply, err) -> {
                flights.remove(here, flight); // before anybody asks again
                slots.give();
                if (err == null) {
                    flight.reply.complete(reply);
                } else {
                    flight.reply.completeExceptionally(FaultException.of(err, "ask patd"));
                }
            });
        }

        /**
         * Waits for an answer. It counts if it was asked for after this check began, or if memory may use it; otherwise
         * the next one does. So a check never rests on an answer from before it, unless the watch confirms it.
         */
        private void follow(Flight flight, boolean mine) {
            flight.reply.whenComplete((r, err) -> {
                try {
                    land(flight, mine, r, err);
                } catch (RuntimeException e) {
                    fail(e);
                }
            });
        }

        private void land(Flight flight, boolean mine, Reply r, Throwable err) {
            if (err != null || closed) {
                fail(closed ? FaultException.closed() : err);
                return;
            }
            if (r.outdated && again) {
                again = false; // once: a replica that lags behind would make this a loop
                step();
                return;
            }
            // The first use of a new secret: patd is to be asked about each.
            long now = wall.getAsLong();
            if (!mine && (r.once || flight.begun < began && !memory.usable(r.entry, Clock.mono(), now))) {
                step();
                return;
            }
            out.complete(mine ? r.entry.result(call.scopes()) : let(r.entry, now)); // patd has counted mine
        }

        private void fail(Throwable err) {
            out.completeExceptionally(FaultException.of(err, "ask patd"));
        }
    }

    private static Address address(String text) {
        if (text.isEmpty()) {
            return null;
        }
        Address address = Address.parse(text);
        if (address == null) {
            throw FaultException.invalid("the address of the client is no IP address");
        }
        return address;
    }

    private void report() {
        if (!closed && !uses.isReporting()) {
            uses.report(timeout); // uses that failed are reported next time
        }
    }

    /** Returns the counters. */
    public Stats stats() {
        return new Stats(memory.answers.size() + memory.refusals.size(),
                memory.answers.hits.sum() + memory.refusals.hits.sum(), asked.get(), uses.dropped(),
                !closed && memory.isOpen(Clock.mono(), wall.getAsLong()), watcher.tokenExpireTime());
    }

    /**
     * Ends all work in the background and reports the last uses, within 5 seconds. Checks that wait for an answer fail,
     * and so do later ones. A second call does nothing.
     *
     * @throws FaultException the last uses were not reported; nothing else failed
     */
    @Override
    public void close() {
        synchronized (this) {
            if (closed) {
                return;
            }
            closed = true;
        }
        memory.distrust();
        watching.interrupt();
        timer.shutdownNow();
        slots.close();
        acks.close();
        transport.close();
        try {
            CompletableFuture.allOf(flights.values().stream().map(f -> f.reply.handle((ok, err) -> ok))
                    .toArray(CompletableFuture[]::new)).join();
            uses.idle().join();
            watching.join(CLOSING_REPORT.toMillis());
            if (reports) {
                transport.reopen();
                uses.report(CLOSING_REPORT).get();
            }
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new FaultException(FaultException.Kind.INTERRUPTED, "the last uses were not reported", e);
        } catch (ExecutionException e) {
            throw FaultException.of(e, "report uses");
        } finally {
            transport.close();
            executor.shutdown();
        }
    }

    /** Configures a verifier. */
    public static final class Builder {
        private final URI url;
        private final TokenSource token;
        private boolean allowPlainHttp;
        private String audience = "";
        private int maxEntries = 100_000;
        private long maxBytes = 64 << 20;
        private Duration maxAge = Duration.ofMinutes(1);
        private int maxInFlight = 512;
        private Duration timeout = Duration.ofSeconds(5);
        private Duration reportEvery = Duration.ofSeconds(10);
        private Consumer<String> log = message -> System.getLogger("patd").log(System.Logger.Level.WARNING, message);
        private LongSupplier wall = System::currentTimeMillis;

        private Builder(URI url, TokenSource token) {
            this.url = url;
            this.token = token;
        }

        /** Allows plain http to other machines, which shows every token to the network in between. */
        public Builder allowPlainHttp(boolean allow) {
            this.allowPlainHttp = allow;
            return this;
        }

        /** Sets the API of the program, for calls that name none. By default audiences are not checked. */
        public Builder audience(String audience) {
            this.audience = audience == null ? "" : audience;
            return this;
        }

        /** Bounds how many answers are kept. 100 000. */
        public Builder maxEntries(int entries) {
            this.maxEntries = positive(entries);
            return this;
        }

        /** Bounds the bytes of memory for answers, by an estimate from above. 64 MiB. */
        public Builder maxBytes(long bytes) {
            this.maxBytes = positive(bytes);
            return this;
        }

        /** Bounds how long an answer is used. A minute. */
        public Builder maxAge(Duration age) {
            this.maxAge = positive(age);
            return this;
        }

        /** Bounds how many requests are under way at a time; further ones wait. 512. */
        public Builder maxInFlight(int requests) {
            this.maxInFlight = positive(requests);
            return this;
        }

        /** Bounds one request. 5 seconds. */
        public Builder timeout(Duration timeout) {
            this.timeout = positive(timeout);
            return this;
        }

        /** Sets how often uses that were decided from memory are reported. 10 seconds. Zero: never. */
        public Builder reportEvery(Duration every) {
            this.reportEvery = every.isZero() ? every : positive(every);
            return this;
        }

        /** Sets what is called when the watch breaks. It is never given a token. By default a System.Logger. */
        public Builder log(Consumer<String> log) {
            this.log = log;
            return this;
        }

        /** Sets the wall clock, in milliseconds, for tests. */
        Builder wall(LongSupplier wall) {
            this.wall = wall;
            return this;
        }

        private static <N extends Number> N positive(N n) {
            if (n.longValue() <= 0) {
                throw new IllegalArgumentException("a bound of a verifier is positive");
            }
            return n;
        }

        private static Duration positive(Duration d) {
            positive(d.toMillis());
            return d.compareTo(Duration.ofDays(365)) < 0 ? d : Duration.ofDays(365);
        }

        /** Makes the verifier, and begins its watch. */
        public Verifier build() {
            return new Verifier(this);
        }
    }
}
