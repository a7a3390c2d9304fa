package patd;

import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Reads and writes JSON (RFC 8259). An object is a Map in the order of its members, an array a List, a number a Long if
 * it is a whole one of 64 bits, or else a Double. An object that has a name twice is refused: two readers of it could
 * disagree.
 */
public final class Json {
    private static final int MAX_DEPTH = 64;

    private final String text;
    private int at;
    private int depth;

    private Json(String text) {
        this.text = text;
    }

    /**
     * Reads a text of UTF-8.
     *
     * @throws IllegalArgumentException it is not JSON; the message has nothing of the text
     */
    public static Object read(byte[] utf8) {
        try {
            return read(StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(utf8)).toString());
        } catch (CharacterCodingException e) {
            throw new IllegalArgumentException("not UTF-8");
        }
    }

    /**
     * Reads a text.
     *
     * @throws IllegalArgumentException it is not JSON; the message has nothing of the text
     */
    public static Object read(String text) {
        Json json = new Json(text);
        Object out = json.value();
        json.space();
        if (json.at < text.length()) {
            throw json.bad("more text after the value");
        }
        return out;
    }

    private IllegalArgumentException bad(String what) {
        return new IllegalArgumentException("not JSON: " + what + ", at character " + at);
    }

    private void space() {
        while (at < text.length() && " \t\r\n".indexOf(text.charAt(at)) >= 0) {
            at++;
        }
    }

    /** Returns the next character, which stays; 0 at the end, which no value begins with. */
    private char peek() {
        return at < text.length() ? text.charAt(at) : 0;
    }

    private boolean skip(char c) {
        space();
        if (peek() != c) {
            return false;
        }
        at++;
        return true;
    }

    private Object value() {
        space();
        switch (peek()) {
            case '{':
            case '[':
                if (++depth > MAX_DEPTH) {
                    throw bad("too deep");
                }
                at++;
                Object out = text.charAt(at - 1) == '{' ? object() : array();
                depth--;
                return out;
            case '"':
                return string();
            case 't':
                return word("true", true);
            case 'f':
                return word("false", false);
            case 'n':
                return word("null", null);
            default:
                return number();
        }
    }

    private Object word(String word, Object value) {
        if (!text.startsWith(word, at)) {
            throw bad("an unknown word");
        }
        at += word.length();
        return value;
    }

    private Map<String, Object> object() {
        Map<String, Object> out = new LinkedHashMap<>();
        if (skip('}')) {
            return out;
        }
        do {
            space();
            if (peek() != '"') {
                throw bad("a member without a name");
            }
            String name = string();
            if (!skip(':')) {
                throw bad("a member without a value");
            }
            if (out.containsKey(name)) {
                throw bad("a member twice");
            }
            out.put(name, value());
        } while (skip(','));
        if (!skip('}')) {
            throw bad("an object without an end");
        }
        return out;
    }

    private List<Object> array() {
        List<Object> out = new ArrayList<>();
        if (skip(']')) {
            return out;
        }
        do {
            out.add(value());
        } while (skip(','));
        if (!skip(']')) {
            throw bad("an array without an end");
        }
        return out;
    }

    private String string() {
        int from = ++at;
        StringBuilder out = null; // once there is an escape
        for (; at < text.length(); at++) {
            char c = text.charAt(at);
            if (c == '"') {
                String tail = text.substring(from, at++);
                return out == null ? tail : out.append(tail).toString();
            }
            if (c < ' ') {
                throw bad("a control character in a text");
            }
            if (c == '\\') {
                out = (out == null ? new StringBuilder() : out).append(text, from, at);
                at++;
                out.append(escape());
                from = at + 1;
            }
        }
        throw bad("a text without an end");
    }

    /** Reads what stands after a backslash, and stays on its last character. */
    private char escape() {
        char c = peek();
        int plain = "\"\\/bfnrt".indexOf(c);
        if (plain >= 0) {
            return "\"\\/\b\f\n\r\t".charAt(plain);
        }
        if (c != 'u' || at + 4 >= text.length()) {
            throw bad("an unknown escape");
        }
        int out = 0;
        for (int i = 0; i < 4; i++) {
            char digit = text.charAt(++at);
            int n = digit < 128 ? Character.digit(digit, 16) : -1;
            if (n < 0) {
                throw bad("an unknown escape");
            }
            out = out << 4 | n;
        }
        return (char) out;
    }

    private int digits() {
        int from = at;
        while (peek() >= '0' && peek() <= '9') {
            at++;
        }
        if (at == from) {
            throw bad("a number without a digit, or no value");
        }
        return at - from;
    }

    private Object number() {
        int from = at;
        if (peek() == '-') {
            at++;
        }
        boolean zero = peek() == '0';
        int digits = digits();
        if (zero && digits > 1) {
            throw bad("a number with a zero in front");
        }
        boolean whole = digits <= 18;
        if (peek() == '.') {
            whole = false;
            at++;
            digits();
        }
        if (peek() == 'e' || peek() == 'E') {
            whole = false;
            at++;
            if (peek() == '+' || peek() == '-') {
                at++;
            }
            digits();
        }
        String number = text.substring(from, at);
        return whole ? (Object) Long.parseLong(number) : (Object) Double.parseDouble(number);
    }

    /**
     * Writes maps, collections, texts, numbers and booleans. Members that are null are left out. Anything else is
     * written as the text of its toString.
     */
    public static String write(Object value) {
        StringBuilder out = new StringBuilder();
        write(value, out);
        return out.toString();
    }

    private static void write(Object value, StringBuilder out) {
        if (value == null || value instanceof Boolean || value instanceof Long || value instanceof Integer) {
            out.append(value);
        } else if (value instanceof Double d && !d.isNaN() && !d.isInfinite()) {
            out.append(d);
        } else if (value instanceof Map<?, ?> map) {
            char before = '{';
            for (Map.Entry<?, ?> member : map.entrySet()) {
                if (member.getValue() != null) {
                    out.append(before);
                    quote(String.valueOf(member.getKey()), out);
                    out.append(':');
                    write(member.getValue(), out);
                    before = ',';
                }
            }
            out.append(before == '{' ? "{}" : "}");
        } else if (value instanceof Iterable<?> list) {
            char before = '[';
            for (Object one : list) {
                out.append(before);
                write(one, out);
                before = ',';
            }
            out.append(before == '[' ? "[]" : "]");
        } else {
            quote(value.toString(), out);
        }
    }

    private static void quote(String text, StringBuilder out) {
        out.append('"');
        for (int i = 0; i < text.length(); i++) {
            char c = text.charAt(i);
            if (c == '"' || c == '\\') {
                out.append('\\').append(c);
            } else if (c < ' ' || Character.isSurrogate(c) || c == 0x2028 || c == 0x2029) {
                out.append(String.format("\\u%04x", (int) c));
            } else {
                out.append(c);
            }
        }
        out.append('"');
    }
}
