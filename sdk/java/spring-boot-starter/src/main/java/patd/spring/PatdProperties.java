package patd.spring;

import java.net.URI;
import java.nio.file.Path;
import java.time.Duration;
import org.springframework.boot.context.properties.ConfigurationProperties;
import org.springframework.boot.context.properties.bind.DefaultValue;
import org.springframework.util.unit.DataSize;

/**
 * The settings of the verifier.
 *
 * @param url the address of patd: https, unless it is this machine
 * @param tokenFile the file with the token of a service that has the permission introspect; it is read again while the
 *     program runs
 * @param audience the API of this program; empty: audiences are not checked
 * @param allowPlainHttp whether patd may be another machine without https, which shows every token to the network
 * @param maxEntries how many answers are kept
 * @param maxSize bounds the memory for answers, by an estimate from above
 * @param maxAge how long an answer is used at most
 * @param timeout bounds one request to patd
 */
@ConfigurationProperties("patd")
public record PatdProperties(URI url, Path tokenFile, @DefaultValue("") String audience,
        @DefaultValue("false") boolean allowPlainHttp, @DefaultValue("100000") int maxEntries,
        @DefaultValue("64MB") DataSize maxSize, @DefaultValue("1m") Duration maxAge,
        @DefaultValue("5s") Duration timeout) {}
