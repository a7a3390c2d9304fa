package patd.spring;

import org.springframework.boot.autoconfigure.AutoConfiguration;
import org.springframework.boot.autoconfigure.condition.ConditionalOnBean;
import org.springframework.boot.autoconfigure.condition.ConditionalOnMissingBean;
import org.springframework.boot.autoconfigure.condition.ConditionalOnProperty;
import org.springframework.boot.autoconfigure.condition.ConditionalOnWebApplication;
import org.springframework.boot.autoconfigure.security.SecurityProperties;
import org.springframework.boot.autoconfigure.security.oauth2.resource.servlet.OAuth2ResourceServerAutoConfiguration;
import org.springframework.boot.context.properties.EnableConfigurationProperties;
import org.springframework.boot.web.servlet.FilterRegistrationBean;
import org.springframework.context.annotation.Bean;
import org.springframework.security.oauth2.server.resource.introspection.OpaqueTokenIntrospector;
import patd.Checker;
import patd.TokenSource;
import patd.Verifier;

/**
 * Makes a verifier of the properties {@code patd.*}, and the introspector that asks it. A {@link Checker} of the
 * application, such as the fake in tests, takes its place.
 */
@AutoConfiguration(before = OAuth2ResourceServerAutoConfiguration.class)
@EnableConfigurationProperties(PatdProperties.class)
public class PatdAutoConfiguration {
    /** Makes the verifier, which is closed with the application. */
    @Bean(destroyMethod = "close")
    @ConditionalOnMissingBean(Checker.class)
    @ConditionalOnProperty("patd.url")
    Verifier patdVerifier(PatdProperties p) {
        if (p.tokenFile() == null) {
            throw new IllegalStateException("set patd.token-file: the file with the token of a service of patd");
        }
        return Verifier.builder(p.url(), TokenSource.file(p.tokenFile())).audience(p.audience())
                .allowPlainHttp(p.allowPlainHttp()).maxEntries(p.maxEntries()).maxBytes(p.maxSize().toBytes())
                .maxAge(p.maxAge()).timeout(p.timeout()).build();
    }

    /** Makes the introspector. */
    @Bean
    @ConditionalOnBean(Checker.class)
    @ConditionalOnMissingBean(OpaqueTokenIntrospector.class)
    OpaqueTokenIntrospector patdOpaqueTokenIntrospector(Checker checker) {
        return new PatdOpaqueTokenIntrospector(checker);
    }

    /** Makes the filter that stands in front of Spring Security. */
    @Bean
    @ConditionalOnBean(Checker.class)
    @ConditionalOnWebApplication(type = ConditionalOnWebApplication.Type.SERVLET)
    FilterRegistrationBean<PatdUnavailableFilter> patdUnavailableFilter() {
        FilterRegistrationBean<PatdUnavailableFilter> bean = new FilterRegistrationBean<>(new PatdUnavailableFilter());
        bean.setOrder(SecurityProperties.DEFAULT_FILTER_ORDER - 1);
        return bean;
    }
}
