package patd;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;

/** Where the service token comes from. It is asked before each request, so that the token can be rotated. */
@FunctionalInterface
public interface TokenSource {
    /** Returns the token. */
    String token() throws IOException;

    /**
     * Returns the token in a file. The file is read again while the program runs, but not more often than once a
     * second.
     */
    static TokenSource file(Path path) {
        return new TokenSource() {
            private String token;
            private long until;

            @Override
            public synchronized String token() throws IOException {
                long now = System.nanoTime();
                if (token == null || now - until >= 0) {
                    String text = Files.readString(path).strip();
                    if (text.isEmpty()) {
                        throw new IOException("the file of the service token is empty: " + path);
                    }
                    token = text;
                    until = now + 1_000_000_000L;
                }
                return token;
            }
        };
    }
}
