package patd.manage;

import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Function;
import patd.Json;

/**
 * A JSON object of patd. A member that is absent has the value that means nothing: an empty text or list, 0, false, or
 * null for a time, a duration and another message. Members that this version of the library does not know stay.
 */
public abstract class Message {
    private final Map<String, Object> members;

    /** Makes an empty one. */
    protected Message() {
        this(new LinkedHashMap<>());
    }

    /** Makes one of the members of a JSON object. */
    protected Message(Map<String, Object> members) {
        this.members = members;
    }

    /** Returns the members by their names in JSON. A change of the map changes the message. */
    public final Map<String, Object> members() {
        return members;
    }

    /** Sets a member; null: removes it. */
    protected final void put(String name, Object value) {
        if (value == null) {
            members.remove(name);
        } else {
            members.put(name, value);
        }
    }

    /** Returns a member as it was read; null: it is absent. */
    protected final Object value(String name) {
        return members.get(name);
    }

    /** Returns a text. */
    protected final String text(String name) {
        return members.get(name) instanceof String text ? text : "";
    }

    /** Returns a boolean. */
    protected final boolean flag(String name) {
        return Boolean.TRUE.equals(members.get(name));
    }

    /** Returns a whole number, which JSON may have as a text. */
    protected final long number(String name) {
        Object value = members.get(name);
        if (value instanceof String text && text.matches("-?[0-9]{1,18}")) {
            return Long.parseLong(text);
        }
        return value instanceof Number n ? n.longValue() : 0;
    }

    /** Returns a time. */
    protected final Instant time(String name) {
        Object value = members.get(name);
        return value instanceof String text ? Instant.parse(text) : (Instant) value;
    }

    /** Returns a duration. */
    protected final Duration duration(String name) {
        Object value = members.get(name);
        return value instanceof String text && text.endsWith("s")
                ? Duration.parse("PT" + text.toUpperCase(java.util.Locale.ROOT)) : null;
    }

    /** Returns a duration as JSON has it. */
    protected static String seconds(Duration value) {
        if (value == null) {
            return null;
        }
        String fraction = value.getNano() == 0 ? "" : String.format(".%09d", value.getNano());
        if (value.isNegative()) {
            throw new IllegalArgumentException("a duration is not negative");
        }
        return value.getSeconds() + fraction + "s";
    }

    /** Returns a list of texts. */
    protected final List<String> texts(String name) {
        List<String> out = new ArrayList<>();
        for (Object one : members.get(name) instanceof List<?> list ? list : List.of()) {
            out.add(String.valueOf(one));
        }
        return out;
    }

    /** Returns a map of texts. */
    protected final Map<String, String> labels(String name) {
        Map<String, String> out = new LinkedHashMap<>();
        (members.get(name) instanceof Map<?, ?> map ? map : Map.of())
                .forEach((label, value) -> out.put(String.valueOf(label), String.valueOf(value)));
        return out;
    }

    /** Returns another message. */
    protected final <T> T message(String name, Function<Map<String, Object>, T> make) {
        return make(members.get(name), make);
    }

    /** Returns a list of messages. */
    protected final <T> List<T> messages(String name, Function<Map<String, Object>, T> make) {
        List<T> out = new ArrayList<>();
        for (Object one : members.get(name) instanceof List<?> list ? list : List.of()) {
            out.add(make(one, make));
        }
        return out;
    }

    @SuppressWarnings("unchecked")
    private static <T> T make(Object value, Function<Map<String, Object>, T> make) {
        if (value instanceof Map<?, ?> map) {
            return make.apply((Map<String, Object>) map);
        }
        return value instanceof Message message ? make.apply(message.members) : null;
    }

    static Object plain(Object value) {
        if (value instanceof Message message) {
            return plain(message.members);
        }
        if (value instanceof Map<?, ?> map) {
            Map<Object, Object> out = new LinkedHashMap<>();
            map.forEach((name, one) -> out.put(name, plain(one)));
            return out;
        }
        return value instanceof List<?> list ? list.stream().map(Message::plain).toList() : value;
    }

    /** Returns the name of the type: members may be secrets. */
    @Override
    public String toString() {
        return getClass().getSimpleName();
    }

    /** Returns it as JSON, secrets included. */
    public final String toJson() {
        return Json.write(plain(members));
    }
}
