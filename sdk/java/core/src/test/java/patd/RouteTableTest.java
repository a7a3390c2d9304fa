package patd;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import patd.httpserver.PatdFilter;
import patd.testing.FakePatd;

/** Tables of routes, with the requests that the libraries of all languages must decide alike. */
class RouteTableTest {
    private static final Path VECTORS = Path.of("../../conformance/routes.json");

    private static Map<?, ?> vectors() throws IOException {
        return (Map<?, ?>) Json.read(Files.readString(VECTORS));
    }

    @SuppressWarnings("unchecked")
    private static String json(Object table) {
        return table instanceof Map<?, ?> map ? Json.write((Map<String, Object>) map) : "[]";
    }

    @Test
    void aTableOpensWhatItListsAndNothingElse() throws IOException {
        RouteTable table = RouteTable.parse(json(vectors().get("table")));
        int decided = 0;
        for (Object one : (List<?>) vectors().get("requests")) {
            Map<?, ?> r = (Map<?, ?>) one;
            if (!"only".equals(r.get("decoded"))) {
                decided++;
                assertEquals(r.get("scopes"), table.find((String) r.get("method"), (String) r.get("path")),
                        (String) r.get("why"));
            }
        }
        assertTrue(decided > 50);
    }

    @Test
    void aTableThatIsNotUnderstoodIsRefused() throws IOException {
        for (Object one : (List<?>) vectors().get("bad")) {
            Map<?, ?> bad = (Map<?, ?>) one;
            String text = json(bad.get("table"));
            assertThrows(IllegalArgumentException.class, () -> RouteTable.parse(text), (String) bad.get("why"));
        }
        for (String text : List.of("", "{", "null")) {
            assertThrows(IllegalArgumentException.class, () -> RouteTable.parse(text), text);
        }
    }

    @Test
    void aTableGuardsAWholeProgram() throws Exception {
        FakePatd patd = new FakePatd();
        RouteTable table = RouteTable.parse("{\"version\":1,\"routes\":["
                + "{\"method\":\"GET\",\"path\":\"/reports/{id}\",\"scopes\":[\"read\"]},"
                + "{\"method\":\"GET\",\"path\":\"/reports/secret\",\"scopes\":[]}]}");
        HttpServer server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
        server.createContext("/", exchange -> {
            byte[] body = PatdFilter.caller(exchange).token().user().getBytes();
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        }).getFilters().add(new PatdFilter(new Guard(patd), table));
        server.start();
        try {
            String base = "http://127.0.0.1:" + server.getAddress().getPort();
            String may = patd.mint(FakePatd.token("alice", "read")).secret();
            String lacks = patd.mint(FakePatd.token("bob", "write")).secret();
            assertEquals("alice", send("GET", base + "/reports/7?x=/reports/secret", may).body());
            assertTrue(send("GET", base + "/reports/7", lacks).body().contains("SCOPE_INSUFFICIENT"));
            assertEquals(401, send("GET", base + "/reports/7", "x").statusCode());
            for (String closed : List.of("/reports/secret", "/reports/%73ecret", "/reports/SECRET", "/other", "/")) {
                HttpResponse<String> answer = send("GET", base + closed, may);
                assertEquals(403, answer.statusCode(), closed);
                assertTrue(answer.body().contains("ROUTE_CLOSED"), closed);
            }
            assertEquals(403, send("PUT", base + "/reports/7", may).statusCode());
        } finally {
            server.stop(0);
        }
    }

    private static HttpResponse<String> send(String method, String url, String token) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create(url)).header("Authorization", "Bearer " + token)
                .method(method, HttpRequest.BodyPublishers.noBody()).build();
        return HttpClient.newHttpClient().send(request, BodyHandlers.ofString());
    }
}
