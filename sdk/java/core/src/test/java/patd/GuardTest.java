package patd;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.sun.net.httpserver.HttpServer;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Clock;
import java.time.Duration;
import java.time.Instant;
import java.util.List;
import org.junit.jupiter.api.Test;
import patd.httpserver.PatdFilter;
import patd.testing.FakePatd;

class GuardTest {
    private final FakePatd patd = new FakePatd("reports", Clock.systemUTC());
    private final Guard guard = new Guard(patd, "", "re\"alm", "https://renew.example.com/");

    private Guard.Outcome ask(String secret, String... scopes) {
        return guard.decide(List.of("Bearer " + secret), List.of(scopes), () -> "192.0.2.7");
    }

    @Test
    void eachRefusalHasItsStatusReasonAndChallenge() {
        Instant soon = Instant.now().plus(Duration.ofDays(3));
        FakePatd.Minted alice = patd.mint(FakePatd.token("alice", "read").until(soon));
        Guard.Outcome good = ask(alice.secret(), "read");
        assertTrue(good.passes());
        assertEquals("https://renew.example.com/", good.headers().get("Patd-Token-Renew"));
        Guard.Outcome lacks = ask(alice.secret(), "read", "write");
        assertEquals(403, lacks.status());
        assertEquals("Bearer realm=\"re'alm\", error=\"insufficient_scope\", error_description=\"the token was not "
                + "granted write\", scope=\"read write\"", lacks.headers().get("WWW-Authenticate"));
        assertTrue(lacks.body().contains("\"missing_scopes\":[\"write\"]"), lacks.body());
        patd.suspend("alice", true);
        assertTrue(ask(alice.secret()).body().contains("USER_SUSPENDED"));
        patd.suspend("alice", false);
        assertEquals(401, ask(patd.mint(FakePatd.token("bob").at("other")).secret()).status());
        assertTrue(ask(patd.mint(FakePatd.token("bob").from("192.0.2.8")).secret()).body().contains("IP_NOT_ALLOWED"));
        assertTrue(ask(patd.mint(FakePatd.token("bob").until(Instant.EPOCH)).secret()).body()
                .contains("TOKEN_EXPIRED"));
        assertTrue(ask("pat_nonsense").body().contains("CREDENTIAL_INVALID"));
        assertEquals(400, ask(alice.secret() + ",x").status());
        assertEquals("Bearer realm=\"re'alm\"", guard.decide(List.of(), List.of(), () -> "").headers()
                .get("WWW-Authenticate"));
        patd.outage(true);
        Guard.Outcome down = ask(alice.secret());
        assertEquals(503, down.status());
        assertFalse(down.headers().containsKey("WWW-Authenticate"));
        assertEquals(List.of(new FakePatd.Use(alice.id(), List.of("read"), "192.0.2.7")), patd.uses());
    }

    @Test
    void theFilterOfTheJdkServerGuardsARoute() throws Exception {
        HttpServer server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
        server.createContext("/reports", exchange -> {
            byte[] body = PatdFilter.caller(exchange).token().user().getBytes();
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        }).getFilters().add(new PatdFilter(patd, "read"));
        server.createContext("/open", exchange -> {
            assertThrows(IllegalStateException.class, () -> PatdFilter.caller(exchange));
            exchange.sendResponseHeaders(204, -1);
        });
        server.start();
        try {
            String base = "http://127.0.0.1:" + server.getAddress().getPort();
            String secret = patd.mint(FakePatd.token("alice", "read")).secret();
            assertEquals("alice", get(base + "/reports", "Bearer " + secret).body());
            assertEquals(401, get(base + "/reports", "Bearer x").statusCode());
            assertEquals(204, get(base + "/open", "Bearer x").statusCode());
        } finally {
            server.stop(0);
        }
    }

    private static HttpResponse<String> get(String url, String authorization) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create(url)).header("Authorization", authorization).build();
        return HttpClient.newHttpClient().send(request, BodyHandlers.ofString());
    }
}
