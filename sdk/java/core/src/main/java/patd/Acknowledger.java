package patd;

import java.time.Duration;
import java.util.Map;

/**
 * Tells patd what was applied, where patd asks for it, so that a call which revokes can return early. The watch never
 * waits for it. A failure is ignored: patd then waits until this memory would be closed by its own rule.
 */
final class Acknowledger {
    /** Bounds one call. It is longer than patd waits for it. */
    private static final Duration TIMEOUT = Duration.ofSeconds(5);

    private final Transport transport;
    private Map<String, String> newest; // a later position includes an earlier one
    private boolean sending;
    private boolean closed;

    Acknowledger(Transport transport) {
        this.transport = transport;
    }

    /** Records that everything up to a position of a watch was applied, and sends it as soon as no call runs. */
    void applied(String watch, long sequence) {
        synchronized (this) {
            newest = Map.of("watch_id", watch, "sequence", Long.toString(sequence));
            if (sending) {
                return;
            }
            sending = true;
        }
        send();
    }

    /** Lets nothing more be sent. The transport ends the call that runs. */
    synchronized void close() {
        closed = true;
    }

    private void send() {
        Map<String, String> body;
        synchronized (this) {
            body = closed ? null : newest;
            newest = null;
            sending = body != null;
        }
        if (body != null) {
            transport.post("/v1/invalidations:acknowledge", body, TIMEOUT).whenComplete((ok, err) -> send());
        }
    }
}
