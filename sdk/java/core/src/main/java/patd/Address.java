package patd;

import java.util.Locale;

/**
 * An IP address: 16 bytes in two numbers, IPv4 as ::ffff:a.b.c.d, and its text as patd takes it.
 *
 * @param text without a zone
 */
record Address(long high, long low, String text) {
    private static final long MAPPED = 0xffff_0000_0000L;

    /** Reads an IP address. A zone is left out. Null: it is none. */
    static Address parse(String text) {
        if (text.length() > 100) {
            return null;
        }
        int zone = text.indexOf('%');
        String bare = zone < 0 ? text : text.substring(0, zone);
        if (bare.indexOf(':') < 0) {
            long v4 = zone >= 0 ? -1 : ipv4(bare);
            return v4 < 0 ? null : new Address(0, MAPPED | v4, bare);
        }
        if (zone == text.length() - 1) {
            return null;
        }
        int[] groups = ipv6(bare);
        if (groups == null) {
            return null;
        }
        long high = join(groups, 0);
        long low = join(groups, 4);
        if (high == 0 && low >>> 32 == 0xffff) {
            String v4 = (low >>> 24 & 255) + "." + (low >>> 16 & 255) + "." + (low >>> 8 & 255) + "." + (low & 255);
            return new Address(high, low, v4);
        }
        return new Address(high, low, bare.toLowerCase(Locale.ROOT));
    }

    private static long join(int[] groups, int from) {
        long out = 0;
        for (int i = from; i < from + 4; i++) {
            out = out << 16 | groups[i];
        }
        return out;
    }

    /** Reads a.b.c.d; -1: it is none. */
    private static long ipv4(String text) {
        long out = 0;
        int field = -1; // no digit yet
        int fields = 0;
        for (int i = 0; i <= text.length(); i++) {
            char c = i < text.length() ? text.charAt(i) : '.';
            if (c == '.') {
                if (field < 0 || fields > 3) {
                    return -1;
                }
                out = out << 8 | field;
                fields++;
                field = -1;
            } else if (c >= '0' && c <= '9') {
                if (field == 0) {
                    return -1; // a leading zero means octal to some programs
                }
                field = field < 0 ? c - '0' : field * 10 + c - '0';
                if (field > 255) {
                    return -1;
                }
            } else {
                return -1;
            }
        }
        return fields == 4 ? out : -1;
    }

    /** Reads 8 groups of 16 bits; null: it is none. */
    private static int[] ipv6(String text) {
        int gap = text.indexOf("::");
        if (gap < 0) {
            int[] all = groups(text, true);
            return all != null && all.length == 8 ? all : null;
        }
        if (text.indexOf("::", gap + 1) >= 0) {
            return null;
        }
        int[] head = groups(text.substring(0, gap), false);
        int[] tail = groups(text.substring(gap + 2), true);
        if (head == null || tail == null || head.length + tail.length > 7) {
            return null;
        }
        int[] out = new int[8];
        System.arraycopy(head, 0, out, 0, head.length);
        System.arraycopy(tail, 0, out, 8 - tail.length, tail.length);
        return out;
    }

    /** Reads groups with colons between them. The last may be an IPv4 address, which is two. */
    private static int[] groups(String text, boolean last) {
        if (text.isEmpty()) {
            return new int[0];
        }
        String[] parts = text.split(":", -1);
        boolean dotted = last && parts[parts.length - 1].indexOf('.') >= 0;
        int[] out = new int[parts.length + (dotted ? 1 : 0)];
        for (int i = 0; i < parts.length; i++) {
            if (dotted && i == parts.length - 1) {
                long v4 = ipv4(parts[i]);
                if (v4 < 0) {
                    return null;
                }
                out[i] = (int) (v4 >>> 16);
                out[i + 1] = (int) (v4 & 0xffff);
            } else if (parts[i].matches("[0-9A-Fa-f]{1,4}")) {
                out[i] = Integer.parseInt(parts[i], 16);
            } else {
                return null;
            }
        }
        return out;
    }
}
