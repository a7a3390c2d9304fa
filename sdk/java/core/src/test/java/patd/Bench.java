package patd;

import java.lang.management.ManagementFactory;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.LongAdder;

/** Measures what a check from memory costs, and what memory holds after many different tokens. Prints JSON. */
final class Bench {
    private static final int THREADS = 2;
    /** Bounds a request, on a machine that has other things to do. */
    private static final Duration PATIENCE = Duration.ofMinutes(1);
    private static final Call CALL = Call.requires("reports.read").from("192.0.2.7");

    private Bench() {}

    public static void main(String[] args) throws Exception {
        System.out.println(Json.write(memory()));
        System.exit(0);
    }

    private static int number(String name, int or) {
        String text = System.getenv(name);
        return text == null ? or : Integer.parseInt(text);
    }

    private static Map<String, Object> memory() throws Exception {
        int tokens = number("TOKENS", 1_000_000);
        int checks = number("CHECKS", 2_000_000);
        int maxEntries = number("ENTRIES", 10_000);
        Map<String, Object> out = new LinkedHashMap<>();
        try (Wire wire = new Wire()) {
            wire.keep = false;
            wire.answer = body -> {
                // Half of them are unknown, and half are of users that come once.
                String token = body.get("token").toString();
                if (token.charAt(20) % 2 == 0) {
                    return Map.of("active", false, "decision", "NOT_FOUND");
                }
                Map<String, Object> active = wire.active(token.substring(4, 15), "user-" + token.substring(16, 36));
                active.put("scopes", List.of("reports.read"));
                return active;
            };
            Verifier verifier = Verifier.builder(wire.url(), () -> "t").maxEntries(maxEntries).audience("reports")
                    .log(System.err::println).timeout(PATIENCE).build();
            Wire.until(() -> verifier.stats().watching());
            List<String> mine = new ArrayList<>();
            while (mine.size() < 100) {
                String token = Form.random();
                if (verifier.verify(token, CALL).allowed()) {
                    mine.add(token);
                }
            }
            perCheck(verifier, mine, checks / 4);
            long before = verifier.stats().asked();
            double[] best = {Double.MAX_VALUE, Double.MAX_VALUE};
            for (int i = 0; i < 3; i++) {
                double[] took = perCheck(verifier, mine, checks);
                best[0] = Math.min(best[0], took[0]);
                best[1] = Math.min(best[1], took[1]);
            }
            out.put("check_us", best[0]);
            out.put("check_cpu_us", best[1]);
            out.put("digest_us", digest(checks));
            out.put("asked_from_memory", verifier.stats().asked() - before);
            out.put("tokens", tokens);
            out.put("max_entries", maxEntries);
            ask(verifier, tokens / 10);
            out.put("heap_at_tenth", heap());
            ask(verifier, tokens - tokens / 10);
            out.put("heap_at_end", heap());
            out.put("entries", verifier.stats().entries());
            verifier.close();
        }
        return out;
    }

    /** Returns how long a check takes while so many threads check, and its CPU time, in microseconds. */
    private static double[] perCheck(Verifier verifier, List<String> tokens, int checks) throws InterruptedException {
        List<Thread> threads = new ArrayList<>();
        LongAdder cpu = new LongAdder();
        long begun = System.nanoTime();
        for (int t = 0; t < THREADS; t++) {
            int from = t * tokens.size() / THREADS;
            Thread thread = new Thread(() -> {
                for (int i = 0; i < checks; i++) {
                    if (!verifier.verify(tokens.get((from + i) % tokens.size()), CALL).allowed()) {
                        throw new IllegalStateException("a token is not allowed");
                    }
                }
                cpu.add(ManagementFactory.getThreadMXBean().getCurrentThreadCpuTime());
            });
            thread.start();
            threads.add(thread);
        }
        for (Thread thread : threads) {
            thread.join();
        }
        return new double[] {(System.nanoTime() - begun) / 1e3 / checks, cpu.sum() / 1e3 / checks / THREADS};
    }

    private static double digest(int times) throws Exception {
        MessageDigest digest = MessageDigest.getInstance("SHA-256");
        byte[] text = new byte[90];
        byte[] out = new byte[32];
        long begun = 0;
        for (int i = -times / 4; i < times; i++) {
            if (i == 0) {
                begun = System.nanoTime();
            }
            digest.update(text);
            digest.digest(out, 0, 32);
        }
        return (System.nanoTime() - begun) / 1e3 / times;
    }

    /** Has so many different tokens checked. */
    private static void ask(Verifier verifier, int tokens) throws InterruptedException {
        Semaphore underway = new Semaphore(64);
        LongAdder failed = new LongAdder();
        for (int i = 0; i < tokens; i++) {
            underway.acquire();
            verifier.verifyAsync(Form.random(), CALL).whenComplete((result, err) -> {
                underway.release();
                if (err != null) {
                    failed.increment();
                }
            });
        }
        underway.acquire(64);
        if (failed.sum() > tokens / 100) {
            throw new IllegalStateException(failed + " checks failed");
        }
    }

    private static long heap() throws InterruptedException {
        for (int i = 0; i < 3; i++) {
            System.gc();
            TimeUnit.MILLISECONDS.sleep(50);
        }
        return Runtime.getRuntime().totalMemory() - Runtime.getRuntime().freeMemory();
    }
}
