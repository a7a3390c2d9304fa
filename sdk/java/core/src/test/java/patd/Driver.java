package patd;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/** The program that puts the library through sdk/conformance. */
final class Driver {
    private static final PrintStream OUT = new PrintStream(System.out, false, StandardCharsets.UTF_8);
    private static volatile Verifier verifier;
    private static volatile long offset; // of the wall clock, in milliseconds
    private static final Load LOAD = new Load();

    private Driver() {}

    public static void main(String[] args) throws IOException {
        ExecutorService commands = Executors.newCachedThreadPool(run -> {
            Thread thread = new Thread(run);
            thread.setDaemon(true);
            return thread;
        });
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            Map<?, ?> command = (Map<?, ?>) Json.read(line);
            if ("configure".equals(command.get("do"))) {
                answer(command); // before the checks that follow it
            } else {
                commands.execute(() -> answer(command));
            }
        }
        LOAD.run(null, Map.of(), new LinkedHashMap<>());
        close();
    }

    private static void answer(Map<?, ?> command) {
        Map<String, Object> out = new LinkedHashMap<>();
        out.put("id", command.get("id"));
        try {
            run(command, out);
        } catch (FaultException e) {
            out.put("error", e.kind().name().toLowerCase(java.util.Locale.ROOT));
            out.put("message", e.toString());
        }
        synchronized (OUT) {
            OUT.println(Json.write(out));
            OUT.flush();
        }
    }

    private static void run(Map<?, ?> c, Map<String, Object> out) {
        switch (String.valueOf(c.get("do"))) {
            case "hello" -> {
                out.put("protocol", 1);
                out.put("library", "patd for Java");
                out.put("speaks", "http");
                out.put("can", List.of("clock", "key", "load"));
            }
            case "configure" -> {
                close();
                configure(c);
                out.put("ok", true);
            }
            case "check" -> check(c, out);
            case "status" -> {
                Verifier.Stats stats = current().stats();
                out.put("watching", stats.watching());
                out.put("entries", stats.entries());
                out.put("dropped_uses", stats.droppedUses());
            }
            case "load" -> LOAD.run(verifier, c, out);
            case "clock" -> {
                offset = number(c, "wall_ms");
                out.put("ok", true);
            }
            case "form" -> out.put("plausible", Form.isPlausible(text(c, "token")));
            case "key" -> {
                String ip = text(c, "ip");
                Address address = ip.isEmpty() ? null : Address.parse(ip);
                HexFormat hex = HexFormat.of();
                out.put("everywhere", hex.formatHex(Keys.material(text(c, "token"), text(c, "audience"))));
                out.put("address", address == null ? null : hex.formatHex(Keys.bytesOf(address)));
            }
            case "close" -> {
                Verifier v = verifier;
                if (v != null) {
                    v.close();
                }
                out.put("ok", true);
            }
            default -> out.put("error", "unsupported");
        }
    }

    private static void configure(Map<?, ?> c) {
        offset = number(c, "clock_ms");
        Verifier.Builder b = Verifier.builder(URI.create(text(c, "http")), () -> text(c, "token"))
                .audience(text(c, "audience")).reportEvery(Duration.ofMillis(number(c, "report_every_ms")))
                .wall(() -> System.currentTimeMillis() + offset).log(System.err::println);
        if (number(c, "max_age_ms") > 0) {
            b.maxAge(Duration.ofMillis(number(c, "max_age_ms")));
        }
        if (number(c, "max_entries") > 0) {
            b.maxEntries((int) number(c, "max_entries"));
        }
        if (number(c, "timeout_ms") > 0) {
            b.timeout(Duration.ofMillis(number(c, "timeout_ms")));
        }
        verifier = b.build();
    }

    private static void check(Map<?, ?> c, Map<String, Object> out) {
        String[] scopes = c.get("scopes") instanceof List<?> list ? list.toArray(String[]::new) : new String[0];
        Call call = Call.requires(scopes).at(text(c, "audience")).from(text(c, "ip"));
        Result r = current().verify(text(c, "token"), call);
        out.put("decision", r.decision().name());
        out.put("reason", r.decision().reason());
        if (r.token() != null) {
            out.put("token_id", r.token().id());
            out.put("user", r.token().user());
            out.put("scopes", r.token().scopes());
        }
        out.put("missing", r.missing());
    }

    private static Verifier current() {
        Verifier v = verifier;
        if (v == null) {
            throw FaultException.closed();
        }
        return v;
    }

    private static void close() {
        try {
            if (verifier != null) {
                verifier.close();
            }
        } catch (FaultException e) {
            System.err.println(e);
        }
    }

    private static String text(Map<?, ?> c, String name) {
        return c.get(name) instanceof String text ? text : "";
    }

    private static long number(Map<?, ?> c, String name) {
        return c.get(name) instanceof Number n ? n.longValue() : 0;
    }
}
