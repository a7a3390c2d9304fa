package patd;

import java.nio.charset.StandardCharsets;
import java.security.DigestException;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.security.SecureRandom;
import java.util.Arrays;

/**
 * Makes the keys of memory: keyed digests of all that an answer depends on. The secrets are random and never leave the
 * process: memory holds no token, and nobody can search for two tokens that share a key.
 */
final class Keys {
    /** 128 bits of a digest. */
    record Key(long high, long low) {
        @Override
        public int hashCode() {
            return (int) low;
        }
    }

    private static final int SECRET = 16;
    private static final int MAX_AUDIENCE = 1024;

    /** What a thread works with. */
    private static final class Room {
        final MessageDigest digest;
        final byte[] text = new byte[SECRET + 2 + Form.MAX_TOKEN + MAX_AUDIENCE];
        final byte[] out = new byte[32];

        Room(MessageDigest digest) {
            this.digest = digest;
        }

        Key key(int length) {
            try {
                digest.update(text, 0, length);
                digest.digest(out, 0, out.length);
            } catch (DigestException e) {
                throw new IllegalStateException(e);
            }
            return new Key(number(out, 0), number(out, 8));
        }
    }

    private final byte[] secret = new byte[SECRET];
    private final byte[] addressSecret = new byte[SECRET];
    private final ThreadLocal<Room> rooms = ThreadLocal.withInitial(() -> new Room(sha256()));
    private volatile Audience audience = new Audience("", new byte[0]);

    private record Audience(String text, byte[] bytes) {}

    Keys() {
        SecureRandom random = new SecureRandom();
        random.nextBytes(secret);
        random.nextBytes(addressSecret);
    }

    private static MessageDigest sha256() {
        try {
            return MessageDigest.getInstance("SHA-256");
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException(e); // every Java has it
        }
    }

    /**
     * Returns the key of a token at an audience, for every address; null: the text is not ASCII, so it is no token. The
     * length stands before the token, so that no two requests have the same encoding.
     */
    Key of(String token, String audience) {
        Room room = rooms.get();
        System.arraycopy(secret, 0, room.text, 0, SECRET);
        int end = encode(token, bytesOf(audience), room.text, SECRET);
        return end < 0 ? null : room.key(end);
    }

    /** Returns the key of an answer that is good for one address; null: for a client whose address is not known. */
    Key at(Key key, Address address) {
        Room room = rooms.get();
        System.arraycopy(addressSecret, 0, room.text, 0, SECRET);
        int end = put(room.text, SECRET, key.high);
        end = put(room.text, end, key.low);
        if (address != null) {
            end = put(room.text, end, address.high());
            end = put(room.text, end, address.low());
        }
        return room.key(end);
    }

    private byte[] bytesOf(String text) {
        Audience last = audience;
        if (!last.text.equals(text)) {
            last = new Audience(text, audienceBytes(text));
            audience = last;
        }
        return last.bytes;
    }

    private static byte[] audienceBytes(String text) {
        byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
        if (bytes.length > MAX_AUDIENCE) {
            throw FaultException.invalid("an audience has at most " + MAX_AUDIENCE + " bytes");
        }
        if (!new String(bytes, StandardCharsets.UTF_8).equals(text)) {
            throw FaultException.invalid("an audience is Unicode text");
        }
        return bytes;
    }

    /** Writes length, token and audience; returns where they end, or -1 if the token is not ASCII. */
    private static int encode(String token, byte[] audience, byte[] into, int at) {
        int n = token.length();
        into[at++] = (byte) (n >>> 8);
        into[at++] = (byte) n;
        int all = 0;
        for (int i = 0; i < n; i++) {
            char c = token.charAt(i);
            all |= c;
            into[at++] = (byte) c;
        }
        if (all > 127) {
            return -1;
        }
        System.arraycopy(audience, 0, into, at, audience.length);
        return at + audience.length;
    }

    private static int put(byte[] into, int at, long n) {
        for (int shift = 56; shift >= 0; shift -= 8) {
            into[at++] = (byte) (n >>> shift);
        }
        return at;
    }

    private static long number(byte[] from, int at) {
        long out = 0;
        for (int i = 0; i < 8; i++) {
            out = out << 8 | from[at + i] & 0xff;
        }
        return out;
    }

    /** Returns what a key is made of, before it is digested. For the conformance suite. */
    static byte[] material(String token, String audience) {
        byte[] bytes = audienceBytes(audience);
        byte[] out = new byte[2 + token.length() + bytes.length];
        int end = encode(token, bytes, out, 0);
        return Arrays.copyOf(out, Math.max(0, end));
    }

    /** Returns the 16 bytes of an address. For the conformance suite. */
    static byte[] bytesOf(Address address) {
        byte[] out = new byte[16];
        put(out, put(out, 0, address.high()), address.low());
        return out;
    }
}
