package patd;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * A table of routes: which scopes a token needs for which requests. {@code patd scopes import} writes one, and
 * docs/routes.md describes it. It closes all that it does not open, and does not change.
 */
public final class RouteTable {
    private static final int MAX_TABLE = 8 << 20;
    private static final int MAX_PATH = 2048;
    private static final Pattern METHOD = Pattern.compile("[A-Z-]{1,32}");
    private static final Pattern SCOPE = Pattern.compile("[\\x21\\x23-\\x5b\\x5d-\\x7e]{1,128}");
    private static final Pattern TEXT = Pattern.compile("[A-Za-z0-9._~!$&'()*+,=:@-]*");
    private static final Pattern PARAMETER = Pattern.compile("([^{}]*)\\{[A-Za-z0-9._-]+\\}([^{}]*)");

    private final Map<Integer, List<Template>> templates = new HashMap<>(); // by the number of their segments

    /** A part of a path between two slashes: a text, or a parameter with texts around it. */
    private record Segment(String prefix, String suffix, boolean param) {
        boolean spells(String text) {
            return param ? text.startsWith(prefix) && text.endsWith(suffix) : text.equals(prefix);
        }

        boolean holds(String text) {
            return spells(text) && (!param || text.length() > prefix.length() + suffix.length());
        }

        /** A text comes first, then a parameter with texts around it, the longer first, then a parameter alone. */
        int rank() {
            return param ? 2 * MAX_PATH - prefix.length() - suffix.length() : 0;
        }
    }

    private record Template(String text, List<Segment> segments, List<Segment> folded, boolean slash, String shape,
            Map<String, List<String>> methods) {}

    private RouteTable() {}

    /**
     * Reads a table in JSON.
     *
     * @throws IllegalArgumentException it is not understood
     */
    public static RouteTable parse(String json) {
        if (json.length() > MAX_TABLE) {
            throw new IllegalArgumentException("the table of routes is too large");
        }
        Map<String, Template> shapes = new HashMap<>();
        Map<?, ?> table = members(Json.read(json), Set.of("version", "routes"));
        if (!Long.valueOf(1).equals(table.get("version"))) {
            throw new IllegalArgumentException("the table of routes is of another version than 1");
        }
        for (Object one : list(table.get("routes"))) {
            Map<?, ?> route = members(one, Set.of("method", "path", "scopes"));
            if (!(route.get("method") instanceof String method) || !(route.get("path") instanceof String path)
                    || !METHOD.matcher(method).matches()) {
                throw new IllegalArgumentException("a route is wrong: " + route);
            }
            Template made = template(path);
            Template known = shapes.computeIfAbsent(made.shape(), shape -> made);
            if (!known.text().equals(path)) {
                throw new IllegalArgumentException(known.text() + " and " + path
                        + " are the same path, but for names, case or a slash");
            }
            if (known.methods().put(method, scopes(list(route.get("scopes")))) != null) {
                throw new IllegalArgumentException(method + " " + path + " is listed twice");
            }
        }
        RouteTable out = new RouteTable();
        shapes.values().stream().sorted(RouteTable::compare).forEach(t ->
                out.templates.computeIfAbsent(t.segments().size(), n -> new ArrayList<>()).add(t));
        return out;
    }

    /**
     * Reads a table from a file.
     *
     * @throws IllegalArgumentException it is not understood
     */
    public static RouteTable read(Path file) throws IOException {
        return parse(Files.readString(file));
    }

    /**
     * Returns the scopes that a request needs, at least one; null: it is closed.
     *
     * @param path that of the request line, without the query and as it was written
     */
    public List<String> find(String method, String path) {
        if (path == null || !path.startsWith("/")) {
            return null;
        }
        boolean slash = path.endsWith("/");
        String inner = path.substring(1, path.length() - (slash && path.length() > 1 ? 1 : 0));
        String[] raw = path.equals("/") ? new String[0] : inner.split("/", -1);
        String[] decoded = new String[raw.length];
        for (int i = 0; i < raw.length; i++) {
            String text = decode(raw[i]);
            if (text == null) {
                return null;
            }
            decoded[i] = fold(text);
        }
        for (Template t : templates.getOrDefault(raw.length, List.of())) {
            boolean fits = true;
            boolean spelled = t.slash() == slash;
            for (int i = 0; i < raw.length && fits; i++) {
                fits = t.folded().get(i).holds(decoded[i]);
                spelled = spelled && t.segments().get(i).spells(raw[i]);
            }
            if (fits) {
                List<String> scopes = t.methods().getOrDefault(method, List.of());
                return spelled && !scopes.isEmpty() ? scopes : null;
            }
        }
        return null;
    }

    /**
     * Decodes a segment; null: it is empty or dots, it has a character that ends a segment somewhere or that no path
     * has, or an escape of what needs none.
     */
    private static String decode(String raw) {
        if (raw.isEmpty() || raw.equals(".") || raw.equals("..")) {
            return null;
        }
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        for (int i = 0; i < raw.length(); i++) {
            char c = raw.charAt(i);
            if (c == '#' || c == '?') { // no part of a path, and some routers end one there
                return null;
            }
            if (c == '%') {
                int high = i + 2 < raw.length() ? Character.digit(raw.charAt(i + 1), 16) : -1;
                int low = high < 0 ? -1 : Character.digit(raw.charAt(i + 2), 16);
                c = (char) (high << 4 | low);
                if (low < 0 || c < 0x80 && (Character.isLetterOrDigit(c) || "-._~/".indexOf(c) >= 0)) {
                    return null;
                }
                i += 2;
            }
            if (c < ' ' || c == 0x7f || c == '\\' || c == ';') {
                return null;
            }
            out.write(c < 0x100 ? c : '?'); // beyond ASCII it is compared with nothing
        }
        return out.toString(StandardCharsets.ISO_8859_1);
    }

    private static Template template(String path) {
        IllegalArgumentException wrong = new IllegalArgumentException("no path of a table of routes: " + path);
        if (!path.startsWith("/") || path.length() > MAX_PATH) {
            throw wrong;
        }
        List<String> texts = new ArrayList<>(List.of(path.substring(1).split("/", -1)));
        boolean slash = texts.get(texts.size() - 1).isEmpty();
        if (slash) {
            texts.remove(texts.size() - 1);
        }
        List<Segment> segments = new ArrayList<>();
        List<Segment> folded = new ArrayList<>();
        StringBuilder shape = new StringBuilder();
        for (String text : texts) {
            Matcher found = PARAMETER.matcher(text);
            boolean param = found.matches();
            Segment s = new Segment(param ? found.group(1) : text, param ? found.group(2) : "", param);
            if (text.isEmpty() || text.equals(".") || text.equals("..") || !TEXT.matcher(s.prefix()).matches()
                    || !TEXT.matcher(s.suffix()).matches()) {
                throw wrong;
            }
            Segment f = new Segment(fold(s.prefix()), fold(s.suffix()), param);
            segments.add(s);
            folded.add(f);
            shape.append('/').append(f.prefix()).append(param ? "{}" : "").append(f.suffix());
        }
        return new Template(path, segments, folded, slash, shape.toString(), new HashMap<>());
    }

    private static int compare(Template a, Template b) {
        for (int i = 0; i < Math.min(a.segments().size(), b.segments().size()); i++) {
            int c = Integer.compare(a.segments().get(i).rank(), b.segments().get(i).rank());
            if (c != 0) {
                return c;
            }
        }
        return Comparator.<String>naturalOrder().compare(a.shape(), b.shape());
    }

    private static List<String> scopes(List<?> in) {
        List<String> out = new ArrayList<>();
        for (Object one : in) {
            if (!(one instanceof String scope) || !SCOPE.matcher(scope).matches()) {
                throw new IllegalArgumentException("no scope: " + one);
            }
            out.add(scope);
        }
        if (new HashSet<>(out).size() < out.size()) {
            throw new IllegalArgumentException("a scope is named twice");
        }
        return List.copyOf(out);
    }

    private static Map<?, ?> members(Object value, Set<String> names) {
        if (value instanceof Map<?, ?> map && map.keySet().equals(names)) {
            return map;
        }
        throw new IllegalArgumentException("a table of routes has an object with " + names + " there, nothing else");
    }

    private static List<?> list(Object value) {
        if (value instanceof List<?> list) {
            return list;
        }
        throw new IllegalArgumentException("a table of routes has a list there");
    }

    /** Turns the letters of ASCII into small ones. */
    private static String fold(String text) {
        StringBuilder out = new StringBuilder(text);
        for (int i = 0; i < text.length(); i++) {
            char c = text.charAt(i);
            if (c >= 'A' && c <= 'Z') {
                out.setCharAt(i, (char) (c + 'a' - 'A'));
            }
        }
        return out.toString();
    }
}
