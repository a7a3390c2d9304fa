package patd;

import java.nio.ByteBuffer;
import java.nio.CharBuffer;
import java.nio.charset.CharsetDecoder;
import java.nio.charset.CodingErrorAction;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;

/** Reads server-sent events (WHATWG HTML, section 9.2) from bytes as they come. */
final class Events {
    /**
     * An event of a stream.
     *
     * @param type its name; {@code message} if it has none
     */
    record Event(String type, String data) {}

    /** The longest event, in characters. */
    private static final int MAX = 4 << 20;

    private final CharsetDecoder decoder = StandardCharsets.UTF_8.newDecoder()
            .onMalformedInput(CodingErrorAction.REPLACE).onUnmappableCharacter(CodingErrorAction.REPLACE);
    private ByteBuffer left = ByteBuffer.allocate(0); // of a character that has not come whole
    private final StringBuilder line = new StringBuilder();
    private final StringBuilder data = new StringBuilder();
    private boolean hasData;
    private String type = "";
    private boolean begun;
    private boolean afterReturn; // a line feed that comes next belongs to a carriage return

    /** Returns the events that end with these bytes. */
    List<Event> take(ByteBuffer bytes) {
        List<Event> out = new ArrayList<>();
        CharBuffer text = decode(bytes);
        while (text.hasRemaining()) {
            char c = text.get();
            if (!begun) {
                begun = true;
                if (c == '\uFEFF') {
                    continue;
                }
            }
            if (c == '\n' && afterReturn) {
                afterReturn = false;
                continue;
            }
            afterReturn = c == '\r';
            if (c == '\n' || c == '\r') {
                endLine(out);
            } else {
                line.append(c);
                if (line.length() + data.length() > MAX) {
                    throw FaultException.unavailable("an event of patd is too long");
                }
            }
        }
        return out;
    }

    private CharBuffer decode(ByteBuffer bytes) {
        ByteBuffer all = bytes;
        if (left.hasRemaining()) {
            all = ByteBuffer.allocate(left.remaining() + bytes.remaining()).put(left).put(bytes).flip();
        }
        CharBuffer text = CharBuffer.allocate(all.remaining() + 1);
        decoder.decode(all, text, false);
        left = ByteBuffer.allocate(all.remaining()).put(all).flip();
        return text.flip();
    }

    private void endLine(List<Event> out) {
        if (line.length() == 0) {
            if (hasData) {
                out.add(new Event(type.isEmpty() ? "message" : type, data.toString()));
            }
            type = "";
            hasData = false;
            data.setLength(0);
            return;
        }
        int colon = line.indexOf(":");
        String field = colon < 0 ? line.toString() : line.substring(0, colon);
        String content = colon < 0 ? "" : line.substring(colon + 1);
        if (content.startsWith(" ")) {
            content = content.substring(1);
        }
        line.setLength(0);
        if (field.equals("event")) {
            type = content;
        } else if (field.equals("data")) {
            if (hasData) {
                data.append('\n');
            }
            data.append(content);
            hasData = true;
        }
    }
}
