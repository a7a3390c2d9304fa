package patd.servlet;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Path;
import java.util.List;
import org.apache.catalina.Context;
import org.apache.catalina.startup.Tomcat;
import org.apache.tomcat.util.descriptor.web.FilterDef;
import org.apache.tomcat.util.descriptor.web.FilterMap;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import patd.Guard;
import patd.RouteTable;
import patd.testing.FakePatd;

class PatdFilterTest {
    @TempDir
    Path dir;

    private final FakePatd patd = new FakePatd();
    private int port;

    @Test
    void aTableOfRoutesGuardsAWholeProgram() throws Exception {
        RouteTable table = RouteTable.parse("{\"version\":1,\"routes\":["
                + "{\"method\":\"GET\",\"path\":\"/reports/{id}\",\"scopes\":[\"reports.read\"]},"
                + "{\"method\":\"GET\",\"path\":\"/reports/secret\",\"scopes\":[]}]}");
        Tomcat tomcat = tomcat("/api", new PatdFilter(new Guard(patd), HttpServletRequest::getRemoteAddr, table));
        try {
            String may = "Bearer " + patd.mint(FakePatd.token("alice", "reports.read")).secret();
            assertEquals(200, send("/api/reports/7?x=1", may).statusCode());
            String lacks = "Bearer " + patd.mint(FakePatd.token("bob")).secret();
            assertEquals(403, send("/api/reports/7", lacks).statusCode());
            // Tomcat takes ;x off before it looks for the servlet.
            for (String closed : List.of("/reports/secret", "/reports/secret;x=1", "/reports/%73ecret", "/other")) {
                HttpResponse<String> answer = send("/api" + closed, may);
                assertEquals(403, answer.statusCode(), closed);
                assertTrue(answer.body().contains("ROUTE_CLOSED"), closed);
            }
        } finally {
            tomcat.stop();
            tomcat.destroy();
        }
    }

    @Test
    void onlyATokenWithTheScopePasses() throws Exception {
        Tomcat tomcat = tomcat("", new PatdFilter(patd, "reports.read"));
        try {
            FakePatd.Minted alice = patd.mint(FakePatd.token("alice", "reports.read").from("127.0.0.1"));
            HttpResponse<String> good = get("Bearer " + alice.secret());
            assertEquals(200, good.statusCode());
            assertEquals("alice " + alice.id(), good.body());
            assertEquals(401, get().statusCode());
            assertEquals(401, get("Basic " + alice.secret()).statusCode());
            assertEquals(400, get("Bearer " + alice.secret(), "Bearer " + alice.secret()).statusCode());
            HttpResponse<String> lacks = get("bearer   " + patd.mint(FakePatd.token("bob")).secret());
            assertEquals(403, lacks.statusCode());
            assertTrue(lacks.body().contains("\"reason\":\"SCOPE_INSUFFICIENT\""), lacks.body());
            assertEquals("application/json", lacks.headers().firstValue("Content-Type").orElse("").split(";")[0]);
            assertTrue(lacks.headers().firstValue("WWW-Authenticate").orElse("").contains("scope=\"reports.read\""));
            patd.outage(true);
            assertEquals(503, get("Bearer " + alice.secret()).statusCode());
            patd.outage(false);
            patd.revoke(alice.id());
            HttpResponse<String> revoked = get("Bearer " + alice.secret());
            assertEquals(401, revoked.statusCode());
            assertTrue(revoked.body().contains("TOKEN_REVOKED"), revoked.body());
        } finally {
            tomcat.stop();
            tomcat.destroy();
        }
    }

    /** Starts a Tomcat with the filter in front of everything. */
    private Tomcat tomcat(String path, PatdFilter filter) throws Exception {
        Tomcat tomcat = new Tomcat();
        tomcat.setBaseDir(dir.toString());
        tomcat.setPort(0);
        tomcat.setHostname("127.0.0.1");
        tomcat.getConnector().setProperty("address", "127.0.0.1");
        Context context = tomcat.addContext(path, dir.toString());
        HttpServlet servlet = new HttpServlet() {
            private static final long serialVersionUID = 1;

            @Override
            protected void doGet(HttpServletRequest request, HttpServletResponse response) throws IOException {
                String id = PatdFilter.caller(request).token().id();
                response.getWriter().print(request.getRemoteUser() + " " + id);
            }
        };
        Tomcat.addServlet(context, "reports", servlet);
        context.addServletMappingDecoded("/", "reports");
        FilterDef def = new FilterDef();
        def.setFilterName("patd");
        def.setFilter(filter);
        context.addFilterDef(def);
        FilterMap map = new FilterMap();
        map.setFilterName("patd");
        map.addURLPattern("/*");
        context.addFilterMap(map);
        tomcat.start();
        port = tomcat.getConnector().getLocalPort();
        return tomcat;
    }

    private HttpResponse<String> get(String... authorization) throws Exception {
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create("http://127.0.0.1:" + port + "/reports"));
        for (String one : authorization) {
            request.header("Authorization", one);
        }
        return HttpClient.newHttpClient().send(request.build(), BodyHandlers.ofString());
    }

    private HttpResponse<String> send(String path, String authorization) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create("http://127.0.0.1:" + port + path))
                .header("Authorization", authorization).build();
        return HttpClient.newHttpClient().send(request, BodyHandlers.ofString());
    }
}
