package patd;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.LongAdder;

/** Loops of checks without a pause, for the driver. */
final class Load {
    private final List<Thread> loops = new ArrayList<>();
    private LongAdder checks = new LongAdder();
    private LongAdder refused = new LongAdder();
    private volatile boolean over;

    /** Ends the load that there is, puts out what it was, and begins another one if a command has loops. */
    synchronized void run(Verifier verifier, Map<?, ?> c, Map<String, Object> out) {
        over = true;
        for (Thread loop : loops) {
            try {
                loop.join();
            } catch (InterruptedException e) {
                throw new IllegalStateException(e);
            }
        }
        loops.clear();
        out.put("ok", true);
        out.put("checks", checks.sumThenReset());
        out.put("refused", refused.sumThenReset());
        if (verifier == null || !(c.get("loops") instanceof Number n) || !(c.get("tokens") instanceof List<?> tokens)) {
            return;
        }
        String[] texts = tokens.toArray(String[]::new);
        String[] scopes = c.get("scopes") instanceof List<?> list ? list.toArray(String[]::new) : new String[0];
        Call call = Call.requires(scopes);
        over = false;
        for (int i = 0; i < n.intValue(); i++) {
            int from = i;
            Thread loop = new Thread(() -> loop(verifier, texts, call, from));
            loop.setDaemon(true);
            loop.start();
            loops.add(loop);
        }
    }

    private void loop(Verifier verifier, String[] tokens, Call call, int from) {
        for (int i = from; !over; i = (i + 1) % tokens.length) {
            checks.increment();
            try {
                if (!verifier.verify(tokens[i], call).allowed()) {
                    refused.increment();
                }
            } catch (FaultException e) {
                Thread.onSpinWait(); // patd is out
            }
        }
    }
}
