package patd;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletionException;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

class VerifierTest {
    private final Wire wire = new Wire();

    @AfterEach
    void close() {
        wire.close();
    }

    private Verifier.Builder builder() {
        return Verifier.builder(wire.url(), () -> "pats_x").log(message -> {})
                .timeout(Duration.ofMinutes(1)); // the machine may have other things to do
    }

    private Verifier watching() throws InterruptedException {
        Verifier verifier = builder().reportEvery(Duration.ofHours(1)).build();
        Wire.until(() -> verifier.stats().watching());
        return verifier;
    }

    @Test
    void anAnswerIsRememberedUntilItsTokenOrUserChanges() throws Exception {
        wire.answer = body -> wire.active("15ODq7pq8Hy", "alice");
        Verifier verifier = watching();
        String token = Form.random();
        assertTrue(verifier.verify(token, Call.requires("read").from("192.0.2.7")).allowed());
        Result lacks = verifier.verify(token, Call.requires("write", "read", "admin"));
        assertEquals(Decision.INSUFFICIENT_SCOPE, lacks.decision());
        assertEquals(List.of("admin", "write"), lacks.missing());
        Wire.until(() -> verifier.verify(token, Call.requires("read")).allowed() && verifier.stats().hits() > 0);
        wire.event("invalidations", List.of("15ODq7pq8Hy"), List.of());
        wire.answer = body -> Map.of("active", false, "decision", "REVOKED", "end_time", "2026-01-02T03:04:05.678Z");
        Wire.until(() -> verifier.verify(token, Call.requires("read")).decision() == Decision.REVOKED);
        Result revoked = verifier.verify(token, Call.requires());
        assertEquals("the token was revoked at 2026-01-02T03:04:05Z", Refusal.of(revoked).text());
        verifier.close();
        verifier.close();
        FaultException late = assertThrows(FaultException.class, () -> verifier.verify(token, Call.requires()));
        assertEquals(FaultException.Kind.CLOSED, late.kind());
        Map<?, ?> first = wire.asked.get(0).body();
        assertEquals("192.0.2.7", first.get("client_ip"));
        assertEquals(List.of("read"), first.get("required_scopes"));
    }

    @Test
    void usesFromMemoryAreReportedAtTheEnd() throws Exception {
        wire.answer = body -> wire.active("15ODq7pq8Hy", "alice");
        Verifier verifier = watching();
        String token = Form.random();
        Wire.until(() -> {
            verifier.verify(token, Call.requires("read").from("::ffff:192.0.2.9"));
            return verifier.stats().hits() > 0;
        });
        verifier.verify(token, Call.requires("nothing"));
        verifier.close();
        Wire.Asked last = wire.asked.get(wire.asked.size() - 1);
        assertEquals("/v1/uses:report", last.path());
        Map<?, ?> use = (Map<?, ?>) ((List<?>) last.body().get("uses")).get(0);
        assertEquals("15ODq7pq8Hy", use.get("token_id"));
        assertEquals("192.0.2.9", use.get("client_ip"));
        assertEquals(List.of("read"), use.get("scopes"));
        assertFalse(use.containsKey("unscoped"));
        assertEquals("Bearer pats_x", last.authorization());
    }

    @Test
    void usesThatCannotBeReportedAreAFaultOfClose() throws Exception {
        wire.answer = body -> wire.active("15ODq7pq8Hy", "alice");
        wire.reports = 503;
        Verifier verifier = watching();
        String token = Form.random();
        Wire.until(() -> verifier.verify(token, Call.requires()).allowed() && verifier.stats().hits() > 0);
        assertEquals(FaultException.Kind.UNAVAILABLE, assertThrows(FaultException.class, verifier::close).kind());
        assertThrows(FaultException.class, () -> verifier.verify(token, Call.requires()));
    }

    private void change(boolean acknowledge) {
        wire.event("invalidations", List.of(), List.of("bob"), Map.of("acknowledge", acknowledge));
    }

    @Test
    void aChangeIsAcknowledgedWherePatdAsksForItAndNowhereElse() throws Exception {
        Verifier verifier = watching();
        change(false);
        change(true);
        String sequence = wire.sequence();
        change(false);
        Wire.until(() -> !wire.acknowledged.isEmpty());
        verifier.close();
        assertEquals(List.of(Map.of("watch_id", "watch-1", "sequence", sequence)), wire.acknowledged);
    }

    @Test
    void acknowledgementsGoOneAtATimeAndTheNewestFirst() throws Exception {
        wire.answer = body -> wire.active("15ODq7pq8Hy", "alice");
        wire.acknowledging = 0;
        try (Verifier verifier = watching()) {
            String token = Form.random();
            for (int i = 0; i < 3; i++) {
                change(true);
            }
            String newest = wire.sequence();
            Wire.until(() -> verifier.verify(token, Call.requires()).allowed() && verifier.stats().hits() > 0);
            wire.answer = body -> Map.of("active", false, "decision", "REVOKED");
            wire.event("invalidations", List.of("15ODq7pq8Hy"), List.of());
            Wire.until(() -> verifier.verify(token, Call.requires()).decision() == Decision.REVOKED);
            assertEquals(1, wire.acknowledged.size());
            wire.acknowledging = 500;
            Wire.until(() -> wire.acknowledged.size() == 2);
            assertEquals(newest, wire.acknowledged.get(1).get("sequence"));
            change(true);
            Wire.until(() -> wire.acknowledged.size() == 3 && verifier.stats().watching());
        }
    }

    @Test
    void closingEndsAnAcknowledgementThatHangs() throws Exception {
        List<Thread> before = threads();
        wire.acknowledging = 0;
        Verifier verifier = watching();
        change(true);
        Wire.until(() -> wire.acknowledged.size() == 1);
        change(true);
        verifier.close();
        Wire.until(() -> before.containsAll(threads()));
        assertEquals(1, wire.acknowledged.size());
    }

    /** Returns the threads of verifiers. */
    private static List<Thread> threads() {
        return Thread.getAllStackTraces().keySet().stream().filter(t -> t.getName().startsWith("patd-")).toList();
    }

    @Test
    void whatIsNoDecisionIsAFault() throws Exception {
        String token = Form.random();
        try (Verifier verifier = watching()) {
            for (Object nonsense : List.of("", List.of(), Map.of(), Map.of("active", true, "decision", "ALLOW"),
                    Map.of("active", true, "decision", "REVOKED"), Map.of("active", false, "decision", "ALLOW"),
                    Map.of("active", false, "decision", "MAYBE"), Map.of("active", "false", "decision", "NOT_FOUND"))) {
                wire.answer = body -> nonsense;
                FaultException e = assertThrows(FaultException.class, () -> verifier.verify(token, Call.requires()));
                assertEquals(FaultException.Kind.UNAVAILABLE, e.kind());
                assertFalse(e.getMessage().contains(token));
            }
            Map<Integer, FaultException.Kind> kinds = Map.of(500, FaultException.Kind.UNAVAILABLE,
                    302, FaultException.Kind.UNAVAILABLE, 400, FaultException.Kind.INVALID,
                    401, FaultException.Kind.FORBIDDEN, 403, FaultException.Kind.FORBIDDEN);
            kinds.forEach((status, kind) -> {
                wire.status = status;
                assertEquals(kind, assertThrows(FaultException.class,
                        () -> verifier.verify(token, Call.requires())).kind());
            });
            CompletionException async = assertThrows(CompletionException.class,
                    () -> verifier.verifyAsync(token, Call.requires()).join());
            assertTrue(async.getCause() instanceof FaultException);
            assertEquals(FaultException.Kind.INVALID, assertThrows(FaultException.class,
                    () -> verifier.verify(token, Call.requires().from("nowhere"))).kind());
        }
    }

    @Test
    void garbageIsNotFoundWithoutARequest() throws Exception {
        try (Verifier verifier = watching()) {
            String token = Form.random();
            String wrong = token.substring(0, token.length() - 1) + (token.endsWith("0") ? "1" : "0");
            for (String text : List.of("", "pat", "x".repeat(300), wrong, token + " ", "ä" + token)) {
                assertEquals(Decision.NOT_FOUND, verifier.verify(text, Call.requires()).decision());
            }
            assertEquals(0, verifier.stats().asked());
        }
    }

    @Test
    void aServiceTokenThatIsNoneIsNotTold() throws Exception {
        for (String bad : List.of("pats_secret\r\nX: y", "", "pats secret")) {
            try (Verifier verifier = Verifier.builder(wire.url(), () -> bad).log(message -> {}).build()) {
                FaultException e = assertThrows(FaultException.class,
                        () -> verifier.verify(Form.random(), Call.requires()));
                assertFalse(e.toString().contains("secret"), e.toString());
            }
        }
        assertThrows(IOException.class, () -> TokenSource.file(java.nio.file.Path.of("none")).token());
        assertEquals(0, wire.asked.size());
    }

    @Test
    void memoryIsBoundedByItsBytes() throws Exception {
        String id = "15ODq7pq8Hy";
        wire.answer = body -> wire.active(id + body.get("token").toString().substring(20, 30), "u".repeat(2000));
        try (Verifier verifier = builder().maxBytes(64 << 10).reportEvery(Duration.ZERO).build()) {
            Wire.until(() -> verifier.stats().watching());
            Wire.until(() -> verifier.verify(Form.random(), Call.requires()).allowed()
                    && verifier.stats().entries() > 2);
            for (int i = 0; i < 60; i++) {
                verifier.verify(Form.random(), Call.requires());
                // Each takes 8000 bytes for the texts alone.
                assertTrue(verifier.stats().entries() < 8, verifier.stats().toString());
            }
        }
    }

    @Test
    void plainHttpIsForThisMachineOnly() {
        for (String bad : List.of("http://patd.example.com", "ftp://h", "https://u:p@h", "https://h?q", "h",
                "http://127.0.0.1.example.com")) {
            assertThrows(IllegalArgumentException.class,
                    () -> Verifier.builder(java.net.URI.create(bad), () -> "t").build(), bad);
        }
        assertEquals("https://h/base", Transport.base(java.net.URI.create("https://h/base//"), false));
        assertEquals("http://h", Transport.base(java.net.URI.create("http://h"), true));
    }
}
