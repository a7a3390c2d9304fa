package patd.spring;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.springframework.beans.factory.annotation.Autowired;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.WebApplicationType;
import org.springframework.boot.autoconfigure.AutoConfigurations;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.boot.autoconfigure.security.servlet.UserDetailsServiceAutoConfiguration;
import org.springframework.boot.test.context.SpringBootTest;
import org.springframework.boot.test.context.runner.ApplicationContextRunner;
import org.springframework.boot.test.web.server.LocalServerPort;
import org.springframework.context.annotation.Bean;
import org.springframework.security.config.Customizer;
import org.springframework.security.config.annotation.web.builders.HttpSecurity;
import org.springframework.security.core.annotation.AuthenticationPrincipal;
import org.springframework.security.oauth2.core.OAuth2AuthenticatedPrincipal;
import org.springframework.security.oauth2.server.resource.introspection.OpaqueTokenIntrospector;
import org.springframework.security.web.SecurityFilterChain;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RestController;
import patd.Checker;
import patd.Token;
import patd.Verifier;
import patd.testing.FakePatd;

@SpringBootTest(webEnvironment = SpringBootTest.WebEnvironment.RANDOM_PORT, classes = StarterTest.Application.class)
class StarterTest {
    @SpringBootApplication(exclude = UserDetailsServiceAutoConfiguration.class)
    @RestController
    static class Application {
        @Bean
        FakePatd patd() {
            return new FakePatd();
        }

        @Bean
        SecurityFilterChain api(HttpSecurity http) throws Exception {
            return http.authorizeHttpRequests(requests -> requests
                    .requestMatchers("/reports").hasAuthority("SCOPE_reports.read")
                    .anyRequest().denyAll())
                    .oauth2ResourceServer(server -> server.opaqueToken(Customizer.withDefaults()))
                    .build();
        }

        @GetMapping("/reports")
        String reports(@AuthenticationPrincipal OAuth2AuthenticatedPrincipal principal) {
            Token token = principal.getAttribute(PatdOpaqueTokenIntrospector.TOKEN);
            return principal.getName() + " " + token.id();
        }
    }

    @Autowired
    private FakePatd patd;

    @LocalServerPort
    private int port;

    @TempDir
    private Path dir;

    @Test
    void onlyATokenWithTheScopePasses() throws Exception {
        FakePatd.Minted alice = patd.mint(FakePatd.token("alice", "reports.read").from("127.0.0.1"));
        HttpResponse<String> good = get(alice.secret());
        assertEquals(200, good.statusCode());
        assertEquals("alice " + alice.id(), good.body());
        assertEquals(401, get(null).statusCode());
        assertEquals(401, get("pat_nonsense").statusCode());
        FakePatd.Like elsewhere = FakePatd.token("bob", "reports.read").from("192.0.2.7");
        assertEquals(401, get(patd.mint(elsewhere).secret()).statusCode());
        HttpResponse<String> lacks = get(patd.mint(FakePatd.token("bob")).secret());
        assertEquals(403, lacks.statusCode());
        assertTrue(challenge(lacks).contains("insufficient_scope"), challenge(lacks));
        patd.suspend("alice", true);
        assertTrue(challenge(get(alice.secret())).contains("the user of the token is suspended"));
        patd.suspend("alice", false);
        patd.outage(true);
        HttpResponse<String> down = get(alice.secret());
        assertEquals(503, down.statusCode());
        assertEquals("1", down.headers().firstValue("Retry-After").orElse(""));
        patd.outage(false);
        patd.revoke(alice.id());
        assertEquals(401, get(alice.secret()).statusCode());
    }

    private static String challenge(HttpResponse<String> response) {
        return response.headers().firstValue("WWW-Authenticate").orElse("");
    }

    private HttpResponse<String> get(String secret) throws Exception {
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create("http://127.0.0.1:" + port + "/reports"));
        if (secret != null) {
            request.header("Authorization", "Bearer " + secret);
        }
        return HttpClient.newHttpClient().send(request.build(), BodyHandlers.ofString());
    }

    @Test
    void theVerifierIsMadeOfTheProperties() throws Exception {
        Path file = Files.writeString(dir.resolve("token"), "pats_x");
        ApplicationContextRunner runner = new ApplicationContextRunner()
                .withConfiguration(AutoConfigurations.of(PatdAutoConfiguration.class));
        runner.run(context -> assertTrue(context.getBeansOfType(OpaqueTokenIntrospector.class).isEmpty()));
        ApplicationContextRunner configured = runner.withPropertyValues("patd.url=http://127.0.0.1:1",
                "patd.token-file=" + file, "patd.audience=reports", "patd.max-size=1MB", "patd.timeout=2s");
        configured.run(context -> {
            assertTrue(context.getBean(Checker.class) instanceof Verifier);
            assertTrue(context.getBean(OpaqueTokenIntrospector.class) instanceof PatdOpaqueTokenIntrospector);
        });
        configured.withBean(FakePatd.class).run(
                context -> assertTrue(context.getBean(Checker.class) instanceof FakePatd));
        runner.withPropertyValues("patd.url=http://127.0.0.1:1").run(context -> assertTrue(
                context.getStartupFailure().getMessage().contains("patd.token-file")));
        SpringApplication plain = new SpringApplication(PatdAutoConfiguration.class);
        plain.setWebApplicationType(WebApplicationType.NONE);
        assertThrows(RuntimeException.class, () -> plain.run("--patd.url=http://patd.example.com", "--patd.token-file="
                + file), "plain http to another machine");
    }
}
