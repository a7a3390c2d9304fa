package patd;

import java.io.IOException;
import java.net.URLEncoder;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodySubscriber;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.time.format.DateTimeParseException;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Flow;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.Consumer;
import java.util.function.LongSupplier;

/** Follows the change feed and updates memory, in a thread of its own. */
final class Watcher implements Runnable {
    private static final long MS = 1_000_000; // nanoseconds
    private static final long FIRST_PAUSE_MS = 50;
    private static final long LONG_PAUSE_MS = 2000;
    private static final long MAX_ELAPSED_MS = 1L << 42; // a hundred years; more would not fit
    private static final long HOPELESS_PAUSE_MS = 15000; // only a change of the server or of its rights helps

    private final Transport transport;
    private final Memory memory;
    private final Acknowledger acks;
    private final LongSupplier wall;
    private final Consumer<String> log;
    private long sequence; // where to resume: the last event's position and history
    private String history = "";
    private String watchId = ""; // of the first event of the watch; empty: an older patd
    private volatile Instant tokenExpireTime;

    Watcher(Transport transport, Memory memory, Acknowledger acks, LongSupplier wall, Consumer<String> log) {
        this.transport = transport;
        this.memory = memory;
        this.acks = acks;
        this.wall = wall;
        this.log = log;
    }

    /** Returns when the service token expires, as of the latest watch; null: not known, or never. */
    Instant tokenExpireTime() {
        return tokenExpireTime;
    }

    /** Watches until the thread is interrupted. */
    @Override
    public void run() {
        int tries = 0;
        while (!Thread.currentThread().isInterrupted()) {
            long began = Clock.mono();
            boolean renewed = false;
            boolean hopeless = false;
            String end = "";
            try {
                watch();
                renewed = true;
            } catch (InterruptedException e) {
                return;
            } catch (HopelessException e) {
                hopeless = true;
                end = e.getMessage();
            } catch (IOException | RuntimeException e) {
                end = String.valueOf(e.getMessage());
            }
            if (renewed || Clock.mono() - began > LONG_PAUSE_MS * MS) {
                tries = 0;
            }
            if (!renewed && tries == 0) {
                log.accept("the watch of patd broke; watching again: " + end);
            }
            long pause = hopeless ? HOPELESS_PAUSE_MS : Math.min(LONG_PAUSE_MS, FIRST_PAUSE_MS << Math.min(tries, 10));
            tries++;
            try {
                Thread.sleep(pause / 2 + ThreadLocalRandom.current().nextLong(pause));
            } catch (InterruptedException e) {
                return;
            }
        }
    }

    /** Follows one stream. Returns when the server renews its connection; any other end is an exception. */
    private void watch() throws IOException, InterruptedException {
        Stream stream = new Stream();
        Pace pace = new Pace(now());
        // A silent stream is abandoned: its pipe may hold back old events.
        long deadline = pace.asked.mono() + Memory.SILENCE_MS * MS;
        long from = sequence;
        String path = from == 0 ? ""
                : "?after=" + from + "&history=" + URLEncoder.encode(history, StandardCharsets.UTF_8);
        CompletableFuture<HttpResponse<Void>> request = transport.stream("/v1/invalidations" + path, stream);
        try {
            open(request, deadline);
            Events events = new Events();
            for (;;) {
                for (Events.Event event : events.take(stream.next(deadline))) {
                    if (event.type().equals("end")) {
                        end(event);
                        return;
                    }
                    apply(event, pace, from);
                    deadline = Clock.mono() + Memory.SILENCE_MS * MS;
                }
            }
        } finally {
            stream.cancel();
            request.cancel(true);
        }
    }

    private void open(CompletableFuture<HttpResponse<Void>> request, long deadline)
            throws IOException, InterruptedException {
        HttpResponse<Void> response;
        try {
            response = request.get(Math.max(1, deadline - Clock.mono()), TimeUnit.NANOSECONDS);
        } catch (TimeoutException e) {
            throw new IOException("the watch was silent");
        } catch (ExecutionException e) {
            throw FaultException.of(e, "watch");
        }
        int status = response.statusCode();
        if (status == 400) {
            sequence = 0; // the server does not know the position
        }
        if (status == 401 || status == 403 || status == 404) {
            throw new HopelessException("patd answered with status " + status);
        }
        if (status != 200) {
            throw Transport.refused(status);
        }
        if (!response.headers().firstValue("Content-Type").orElse("").startsWith("text/event-stream")) {
            throw new IOException("patd did not answer with events");
        }
        tokenExpireTime = response.headers().firstValue("Patd-Token-Expires-At").map(Watcher::time).orElse(null);
    }

    private static Instant time(String text) {
        try {
            return Instant.parse(text);
        } catch (DateTimeParseException e) {
            return null;
        }
    }

    private void apply(Events.Event event, Pace pace, long from) {
        Map<?, ?> r = Answer.object(parse(event.data()), "an event");
        if (!(r.get("history") instanceof String newest)) {
            throw Answer.nonsense("an event of patd has no history");
        }
        boolean first = pace.isFirst();
        boolean startOver = Boolean.TRUE.equals(r.get("start_over")) || event.type().equals("start-over")
                || from == 0 && first;
        Memory.News news = new Memory.News(Answer.position(r.get("sequence")), startOver,
                Answer.texts(r.get("token_ids")), Answer.texts(r.get("users")));
        if (first) {
            watchId = r.get("watch_id") instanceof String id ? id : "";
        }
        if (first && !startOver) {
            memory.resumed(from);
        }
        memory.apply(news);
        sequence = news.sequence();
        history = newest;
        if (Boolean.TRUE.equals(r.get("acknowledge")) && !watchId.isEmpty()) {
            acks.applied(watchId, sequence);
        }
        long elapsed = r.get("elapsed_ms") instanceof Long ms ? ms : 0;
        Pace.Moment known = pace.event(now(), elapsed, news.isQuiet(), startOver);
        if (pace.behind() > Memory.SILENCE_MS / 2 * MS) {
            throw Answer.nonsense("the watch of patd lags");
        }
        boolean more = Boolean.TRUE.equals(r.get("more")); // further changes are known, and follow
        if (known != null && !more) {
            memory.known(known.mono, known.wall);
        }
    }

    private Pace.Moment now() {
        return new Pace.Moment(Clock.mono(), wall.getAsLong());
    }

    private static Object parse(String data) {
        try {
            return Json.read(data);
        } catch (IllegalArgumentException e) {
            throw Answer.nonsense("an event of patd is not JSON");
        }
    }

    /** Returns if the server renews its connection, or throws what it said at the end of a stream. */
    private static void end(Events.Event event) {
        String reason = "no reason";
        if (parse(event.data()) instanceof Map<?, ?> end && end.get("error") instanceof Map<?, ?> error
                && error.get("details") instanceof List<?> details) {
            for (Object one : details) {
                if (one instanceof Map<?, ?> detail && detail.get("reason") instanceof String text) {
                    reason = text;
                }
            }
        }
        if (!reason.equals("CONNECTION_AGED")) {
            throw Answer.nonsense("patd ended the watch: " + reason);
        }
    }

    /** A watch that a retry is unlikely to help. */
    private static final class HopelessException extends IOException {
        HopelessException(String message) {
            super(message);
        }
    }

    /** Judges how current the events of one stream are. */
    static final class Pace {
        private static final long HEARTBEAT = 1250 * MS; // the longest time between two, with room for a late timer
        private static final long PROMPT = 100 * MS; // how late the first of a resumed watch may be, to open by itself
        private static final long SETTLING = 1000 * MS; // how long after that its events may still be missed ones

        /**
         * A time by the monotonic clock in nanoseconds, and by the wall clock in milliseconds. Either may jump or stand
         * still without the other.
         */
        record Moment(long mono, long wall) {}

        /** When the stream was asked for. */
        final Moment asked;
        private boolean begun;
        private boolean settled;
        private long first;
        private long last;
        private long behind;

        Pace(Moment asked) {
            this.asked = asked;
        }

        boolean isFirst() {
            return !begun;
        }

        /** Returns how old the latest event may be, but for the first, in nanoseconds. */
        long behind() {
            return behind;
        }

        /**
         * Records an event that came now, and that the server made when so many milliseconds of the stream had elapsed;
         * 0: it does not say. Returns the time up to which every change is known; null: the watch has not caught up
         * yet. The stream began after it was asked for. A first event that a pipe held back opens nothing, since what
         * came after it waits in the same pipe. A resumed watch has caught up when an event has no news, or when all
         * missed changes must have arrived. After a start-over memory is empty.
         */
        Moment event(Moment now, long elapsedMs, boolean quiet, boolean startOver) {
            if (!begun) {
                begun = true;
                first = now.mono;
                last = now.mono;
                settled = startOver || quiet && now.mono - asked.mono <= PROMPT;
                return settled ? asked : null;
            }
            settled |= startOver || quiet || now.mono - first >= SETTLING;
            long elapsed = Math.min(Math.max(0, elapsedMs), MAX_ELAPSED_MS);
            if (elapsed > 0) {
                long byWall = (now.wall - asked.wall - elapsed) * MS;
                behind = Math.max(0, Math.max(now.mono - asked.mono - elapsed * MS, byWall));
            } else {
                // A server that does not say what has elapsed sends events once a second: a later one was held up.
                behind = Math.max(0, behind + now.mono - last - HEARTBEAT);
            }
            last = now.mono;
            if (!settled) {
                return null;
            }
            if (elapsed == 0) {
                return new Moment(now.mono - behind, now.wall - behind / MS);
            }
            return new Moment(Math.min(now.mono, asked.mono + elapsed * MS), Math.min(now.wall, asked.wall + elapsed));
        }
    }

    /** Hands the bytes of a stream from the threads of the client to the one that watches. */
    private static final class Stream implements BodySubscriber<Void> {
        private final BlockingQueue<Object> queue = new LinkedBlockingQueue<>(); // lists of buffers, or the end
        private Flow.Subscription subscription;
        private boolean cancelled;

        @Override
        public CompletionStage<Void> getBody() {
            return CompletableFuture.completedFuture(null);
        }

        @Override
        public void onSubscribe(Flow.Subscription given) {
            boolean end;
            synchronized (this) {
                subscription = given;
                end = cancelled;
            }
            if (end) {
                given.cancel();
            } else {
                given.request(1);
            }
        }

        @Override
        public void onNext(List<ByteBuffer> buffers) {
            queue.add(buffers);
        }

        @Override
        public void onError(Throwable err) {
            queue.add(new IOException("the watch broke: " + err.getMessage(), err));
        }

        @Override
        public void onComplete() {
            queue.add(new IOException("the watch ended"));
        }

        /** Returns the next bytes. */
        ByteBuffer next(long deadline) throws IOException, InterruptedException {
            Object item = queue.poll(Math.max(0, deadline - Clock.mono()), TimeUnit.NANOSECONDS);
            if (item == null || Clock.mono() >= deadline) {
                throw new IOException("the watch was silent");
            }
            if (item instanceof IOException end) {
                throw new IOException(end.getMessage(), end);
            }
            int length = 0;
            for (Object one : (List<?>) item) {
                length += ((ByteBuffer) one).remaining();
            }
            ByteBuffer out = ByteBuffer.allocate(length);
            for (Object one : (List<?>) item) {
                out.put((ByteBuffer) one);
            }
            subscription.request(1);
            return out.flip();
        }

        synchronized void cancel() {
            cancelled = true;
            if (subscription != null) {
                subscription.cancel();
            }
        }
    }
}
