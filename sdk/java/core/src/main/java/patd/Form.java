package patd;

import java.nio.charset.StandardCharsets;
import java.security.SecureRandom;
import java.util.zip.CRC32;

/** The form of tokens. */
final class Form {
    /** The longest text that can be a token, in bytes. */
    static final int MAX_TOKEN = 256;

    private static final String DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    // The digits stand in the order of their codes, so that numbers of one length compare as texts do.
    private static final String ZERO_ID = "00000000000";
    private static final String LARGEST_ID = "LygHa16AHYF"; // 2^64 - 1
    private static final String LARGEST_SECRET = "yhjskwdA6OZ1AL1YmHWZWm8LLG7HjnuCA2j5rOw8Xp1"; // 2^256 - 1
    private static final int TAIL = 1 + 11 + 1 + 43 + 6;

    private Form() {}

    /**
     * Reports whether a text has the form of a token that may be introspected, checksum included. Any prefix but those
     * of service and refresh tokens is good: patd decides which ones it uses.
     */
    static boolean isPlausible(String text) {
        int end = text.length();
        int prefix = end - TAIL;
        if (prefix < 2 || prefix > 16 || text.charAt(prefix) != '_' || text.charAt(prefix + 12) != '_') {
            return false;
        }
        for (int i = 0; i < end; i++) {
            char c = text.charAt(i);
            boolean small = c >= 'a' && c <= 'z';
            boolean digit = c >= '0' && c <= '9';
            boolean good = i < prefix
                    ? small || digit && i > 0
                    : i == prefix || i == prefix + 12 || small || digit || c >= 'A' && c <= 'Z';
            if (!good) {
                return false;
            }
        }
        String name = text.substring(0, prefix);
        String id = text.substring(prefix + 1, prefix + 12);
        String secret = text.substring(prefix + 13, end - 6);
        return !name.equals("pats") && !name.equals("patr")
                && !id.equals(ZERO_ID) && id.compareTo(LARGEST_ID) <= 0 && secret.compareTo(LARGEST_SECRET) <= 0
                && checksum(text.substring(0, end - 6)).equals(text.substring(end - 6));
    }

    /** Returns the CRC-32 (IEEE) of an ASCII text, as 6 base62 digits. */
    static String checksum(String text) {
        CRC32 crc = new CRC32();
        crc.update(text.getBytes(StandardCharsets.US_ASCII));
        return base62(crc.getValue(), 6);
    }

    private static String base62(long n, int digits) {
        char[] out = new char[digits];
        for (int i = digits - 1; i >= 0; i--) {
            out[i] = DIGITS.charAt((int) (n % 62));
            n /= 62;
        }
        return new String(out);
    }

    /** Returns a new token text of random bits. */
    static String random() {
        SecureRandom source = new SecureRandom();
        StringBuilder out = new StringBuilder("pat_1");
        for (int i = 0; i < 10; i++) {
            out.append(DIGITS.charAt(source.nextInt(62)));
        }
        out.append('_');
        for (int i = 0; i < 43; i++) {
            out.append(DIGITS.charAt(source.nextInt(i == 0 ? 60 : 62)));
        }
        return out + checksum(out.toString());
    }
}
