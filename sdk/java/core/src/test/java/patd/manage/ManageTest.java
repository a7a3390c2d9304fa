package patd.manage;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import patd.Json;
import patd.manage.types.CreateFeatureRequest;
import patd.manage.types.CreateTokenRequest;
import patd.manage.types.CreateTokenResponse;
import patd.manage.types.Feature;
import patd.manage.types.ListTokensQuery;
import patd.manage.types.Token;

class ManageTest {
    private static final String ERROR = """
            {"error": {"code": 400, "status": "S", "message": "m", "details": [
              {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "SCOPE_NOT_HELD", "domain": "patd",
               "metadata": {"a": "b"}},
              {"@type": "type.googleapis.com/google.rpc.BadRequest",
               "field_violations": [{"field": "scopes", "description": "no"}]},
              {"@type": "type.googleapis.com/google.rpc.RequestInfo", "request_id": "r1"}]}}""";

    private record Sent(String method, String uri, String key, String match, String authorization, Object body) {}

    private record Answer(int status, String body) {}

    private final List<Sent> sent = new ArrayList<>();
    private final Deque<Answer> answers = new ArrayDeque<>();
    private HttpServer server;
    private Manage patd;

    @BeforeEach
    void start() throws IOException {
        server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
        server.createContext("/", this::handle);
        server.start();
        URI url = URI.create("http://127.0.0.1:" + server.getAddress().getPort() + "/base/");
        patd = new Manage(url, () -> "pats_x\n");
    }

    @AfterEach
    void stop() {
        server.stop(0);
    }

    private void handle(HttpExchange x) throws IOException {
        byte[] body = x.getRequestBody().readAllBytes();
        sent.add(new Sent(x.getRequestMethod(), x.getRequestURI().toString(),
                x.getRequestHeaders().getFirst("Idempotency-Key"), x.getRequestHeaders().getFirst("If-Match"),
                x.getRequestHeaders().getFirst("Authorization"), body.length == 0 ? null : Json.read(body)));
        Answer answer = answers.size() > 1 ? answers.pop() : answers.peek();
        byte[] text = answer.body.getBytes(StandardCharsets.UTF_8);
        if (answer.status == 429) {
            x.getResponseHeaders().set("Retry-After", "0");
        }
        x.sendResponseHeaders(answer.status, text.length == 0 ? -1 : text.length);
        x.getResponseBody().write(text);
        x.close();
    }

    private void answer(int status, String body) {
        answers.add(new Answer(status, body));
    }

    @Test
    void aCallThatCreatesCarriesAKeyTheSameWhenItIsRepeated() {
        answer(503, "{}");
        answer(200, "{\"secret\": \"pat_s\", \"token\": {\"token_id\": \"i\", \"issue_time\": \"1970-01-01T00:00:01Z\","
                + " \"new_member\": 1}}");
        CreateTokenRequest wanted = new CreateTokenRequest().name("n").scopes(List.of("reports.read"))
                .ttl(Duration.ofDays(90)).renewableUntil(Instant.EPOCH).labels(Map.of("a", "b"));
        CreateTokenResponse made = patd.createToken("a/b ä", wanted);
        assertEquals("pat_s", made.secret());
        assertEquals(Instant.ofEpochSecond(1), made.token().issueTime());
        assertEquals("", made.token().name());
        assertEquals("CreateTokenResponse", made.toString());
        assertEquals(2, sent.size());
        assertEquals("/base/v1/users/a%2Fb%20%C3%A4/tokens", sent.get(0).uri);
        assertEquals("Bearer pats_x", sent.get(0).authorization);
        assertTrue(sent.get(0).key.matches("[0-9a-f-]{36}"));
        assertEquals(sent.get(0).key, sent.get(1).key);
        assertEquals(Map.of("name", "n", "scopes", List.of("reports.read"), "ttl", "7776000s", "renewable_until",
                "1970-01-01T00:00:00Z", "labels", Map.of("a", "b")), sent.get(0).body);
        assertEquals(Duration.ofDays(90), wanted.ttl());
        patd.createToken("alice", wanted);
        assertNotEquals(sent.get(0).key, sent.get(2).key);
    }

    @Test
    void aChangeThatMayNotBeRepeatedIsSentOnceUnlessPatdRefusedItAsTooMuch() {
        CreateFeatureRequest create = new CreateFeatureRequest().name("f");
        answer(503, ERROR);
        assertThrows(PatdException.class, () -> patd.createFeature(create));
        assertEquals(1, sent.size());
        assertThrows(PatdException.class, () -> patd.suspendUser("alice", null, Option.etag("\"1\"")));
        assertEquals(2, sent.size());
        assertEquals("\"1\"", sent.get(1).match);
        answers.clear();
        answer(429, ERROR);
        answer(200, "{\"name\": \"f\"}");
        assertEquals("f", patd.createFeature(create).name());
        assertEquals(4, sent.size());
        assertEquals(Map.of("name", "f"), sent.get(3).body);
    }

    @Test
    void anErrorHasItsReasonAndARefusalIsNotRepeated() {
        answer(400, ERROR);
        PatdException e = assertThrows(PatdException.class, () -> patd.createToken("alice", new CreateTokenRequest()));
        assertTrue(e.is("SCOPE_NOT_HELD"));
        assertFalse(e.is("TOKEN_REVOKED"));
        assertEquals(400, e.httpStatus());
        assertEquals("S", e.status());
        assertEquals(Map.of("a", "b"), e.metadata());
        assertEquals(List.of(new PatdException.Violation("scopes", "no", "")), e.violations());
        assertEquals("r1", e.requestId());
        assertEquals(1, sent.size());
        answers.clear();
        answer(404, "<html>");
        PatdException proxy = assertThrows(PatdException.class, () -> patd.whoAmI());
        assertEquals("", proxy.reason());
        answers.clear();
        answer(200, "<html>");
        assertEquals("INTERNAL", assertThrows(PatdException.class, () -> patd.whoAmI()).status());
    }

    @Test
    void pagesAreAskedForAsTheyAreNeededOfBothKinds() {
        answer(200, "{\"tokens\": [{\"token_id\": \"1\"}, {\"token_id\": \"2\"}], \"next_page_token\": \"p/2\"}");
        answer(200, "{\"tokens\": [], \"next_page_token\": \"p3\"}");
        answer(200, "{\"tokens\": [{\"token_id\": \"3\"}]}");
        Iterator<Token> tokens = patd.listTokens("alice", new ListTokensQuery().pageSize(2).q("a b")).iterator();
        assertEquals("1", tokens.next().tokenId());
        assertEquals("2", tokens.next().tokenId());
        assertEquals(1, sent.size());
        assertEquals("3", tokens.next().tokenId());
        assertFalse(tokens.hasNext());
        assertEquals("/base/v1/users/alice/tokens?page_size=2&q=a%20b&page_token=p%2F2", sent.get(1).uri);
        answers.clear();
        answer(200, "{\"features\": [{\"name\": \"a\"}], \"after\": \"a\"}");
        answer(200, "{\"features\": [{\"name\": \"b\"}], \"after\": \"\"}");
        assertEquals(List.of("a", "b"), patd.listFeatures(null).stream().map(Feature::name).toList());
        assertTrue(sent.get(4).uri.endsWith("?after=a"));
    }

    @Test
    void noIdBecomesAnotherPath() {
        for (String user : List.of("", ".", "..")) {
            assertThrows(IllegalArgumentException.class, () -> patd.getUser(user));
        }
        assertEquals(0, sent.size());
    }

    @Test
    void aCallEndsInTime() throws Exception {
        try (java.net.ServerSocket silent = new java.net.ServerSocket(0, 50, InetAddress.getLoopbackAddress())) {
            Manage slow = new Manage(URI.create("http://127.0.0.1:" + silent.getLocalPort()), () -> "t");
            PatdException e = assertThrows(PatdException.class,
                    () -> slow.whoAmI(Option.timeout(Duration.ofMillis(50))));
            assertEquals("DEADLINE_EXCEEDED", e.status());
        }
    }
}
