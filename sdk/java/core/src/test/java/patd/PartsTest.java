package patd;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.junit.jupiter.api.Test;

class PartsTest {
    @Test
    void jsonIsReadAsItIsWritten() {
        Map<String, Object> all = new LinkedHashMap<>();
        all.put("text", "a\"\\/\b\f\n\r\t\u0001\u2028é\uD83D\uDE00");
        all.put("numbers", List.of(0L, -1L, 999_999_999_999_999_999L, 0.5, -1.5e300));
        all.put("words", Arrays.asList(true, false, null));
        all.put("empty", List.of(Map.of(), List.of(), ""));
        assertEquals(all, Json.read(Json.write(all)));
        assertEquals(all, Json.read((" \t\r\n" + Json.write(all) + " ").getBytes(StandardCharsets.UTF_8)));
        assertEquals(1e20, Json.read("100000000000000000000"));
        assertEquals("\uD83D\uDE00/", Json.read("\"\\uD83d\\uDe00\\/\""));
    }

    @Test
    void whatIsNoJsonIsRefused() {
        for (String bad : List.of("", " ", "{", "[", "[1,]", "[1 2]", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}",
                "01", "-", "1.", ".1", "1e", "+1", "NaN", "nul", "truex", "\"", "\"\\x\"", "\"\\u12\"", "\"\\u00g0\"",
                "\"\n\"", "1 2", "{\"a\":1,\"a\":2}", "\"\\u+123\"", "[".repeat(65) + "]".repeat(65), "\u00a01")) {
            assertThrows(IllegalArgumentException.class, () -> Json.read(bad), bad);
        }
        assertThrows(IllegalArgumentException.class, () -> Json.read(new byte[] {'"', (byte) 0xff, '"'}));
        assertEquals(List.class, Json.read("[".repeat(64) + "]".repeat(64)) instanceof List ? List.class : null);
    }

    /** Whatever it is given, the reader returns or refuses; and what it takes, it takes again as it writes it. */
    @Test
    void jsonSurvivesChance() {
        String seedText = "{\"active\":true,\"n\":[1,-2.5e3,null,\"a\\u00e9\\n\"],\"o\":{\"x\":{}}}";
        String more = "{}[]\",:\\u0e1-.tfn \n\u0000é";
        Random random = new Random(17);
        for (int i = 0; i < 50_000; i++) {
            StringBuilder text = new StringBuilder(seedText);
            for (int n = 1 + random.nextInt(4); n > 0; n--) {
                int at = random.nextInt(text.length());
                switch (random.nextInt(3)) {
                    case 0 -> text.deleteCharAt(at);
                    case 1 -> text.insert(at, more.charAt(random.nextInt(more.length())));
                    default -> text.setCharAt(at, seedText.charAt(random.nextInt(seedText.length())));
                }
            }
            try {
                Object value = Json.read(text.toString());
                String once = Json.write(value);
                assertEquals(once, Json.write(Json.read(once)));
            } catch (IllegalArgumentException e) {
                assertTrue(e.getMessage().startsWith("not JSON"), e.getMessage());
            }
        }
    }

    @Test
    void eventsAreReadHoweverTheyAreCut() {
        byte[] stream = ("\uFEFF: hello\r\n\r\nevent: a\ndata: 1\ndata:2é\uD83D\uDE00\r\rdata\n\nid: 7\n\nevent:b\r\n"
                + "data:  x\r\n\r\ndata: lost").getBytes(StandardCharsets.UTF_8);
        List<Events.Event> want = List.of(new Events.Event("a", "1\n2é\uD83D\uDE00"), new Events.Event("message", ""),
                new Events.Event("b", " x"));
        for (int size = 1; size <= stream.length; size++) {
            Events events = new Events();
            List<Events.Event> got = new ArrayList<>();
            for (int at = 0; at < stream.length; at += size) {
                got.addAll(events.take(ByteBuffer.wrap(stream, at, Math.min(size, stream.length - at))));
            }
            assertEquals(want, got, "in pieces of " + size);
        }
        Events long_ = new Events();
        ByteBuffer piece = ByteBuffer.wrap("x".repeat(1 << 20).getBytes(StandardCharsets.UTF_8));
        assertThrows(FaultException.class, () -> {
            for (int i = 0; i < 6; i++) {
                long_.take(piece.duplicate());
            }
        });
    }

    @Test
    void addressesAreReadStrictly() {
        assertEquals("192.0.2.7", Address.parse("::FFFF:192.0.2.7").text());
        assertEquals(Address.parse("192.0.2.7"), Address.parse("::ffff:c000:207"));
        assertEquals("fe80::1", Address.parse("FE80::1%eth0").text());
        assertEquals(1, Address.parse("::1").low());
        assertEquals(new Address(0x0001000200030004L, 0x0005000600070008L, "1:2:3:4:5:6:7:8"),
                Address.parse("1:2:3:4:5:6:7:8"));
        for (String bad : List.of("", "1", "1.2.3", "1.2.3.4.5", "01.2.3.4", "256.1.1.1", "1.2.3.4 ", "1.2.3.4%e", ":",
                ":::", "1::2::3", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "12345::", "g::", "::1%", "1:2:3:4:5:6:7::8",
                "::1.2.3", "1.2.3.4::", "٣::")) {
            assertNull(Address.parse(bad), bad);
        }
    }

    private static final long SECOND = 1_000_000_000L;

    private static Watcher.Pace.Moment at(double seconds) {
        return new Watcher.Pace.Moment((long) (seconds * SECOND), (long) (seconds * 1000));
    }

    @Test
    void anEventIsAsOldAsTheServerSays() {
        Watcher.Pace pace = new Watcher.Pace(at(0));
        assertEquals(at(0), pace.event(at(0.02), 0, true, false)); // prompt and quiet
        assertEquals(at(1), pace.event(at(1.2), 1000, false, false));
        assertEquals(SECOND / 5, pace.behind());
        assertEquals(at(2), pace.event(at(4), 2000, false, false));
        assertEquals(2 * SECOND, pace.behind());
        assertEquals(at(3), pace.event(at(3), 9000, false, false)); // never later than now
        // A wall clock that went on while the machine slept.
        Watcher.Pace.Moment slept = new Watcher.Pace.Moment(SECOND * 10, 100_000);
        assertEquals(new Watcher.Pace.Moment(SECOND * 10, 10_000), pace.event(slept, 10_000, true, false));
        assertEquals(90 * SECOND, pace.behind());
    }

    @Test
    void aLagThatEventsShowAddsUpAndShrinks() {
        Watcher.Pace pace = new Watcher.Pace(at(0));
        assertEquals(at(0), pace.event(at(0.02), 0, true, false));
        assertEquals(at(1), pace.event(at(1), 0, false, false));
        assertEquals(at(2.25), pace.event(at(2.5), 0, false, false));
        assertEquals(at(3), pace.event(at(3), 0, false, false));
        Watcher.Pace resumed = new Watcher.Pace(at(0));
        assertNull(resumed.event(at(0.5), 0, true, false)); // a pipe held it back
        assertNull(resumed.event(at(1), 0, false, false));
        assertEquals(at(1.5), resumed.event(at(1.5), 0, false, false)); // all that was missed has come
    }

    @Test
    void whatWasDroppedFromTheChangesRaisesTheFloor() {
        Changes changes = new Changes(7);
        assertEquals(7, changes.floor());
        for (int i = 0; i < 70_000; i++) {
            changes.note('t', "token" + i, 10 + i);
        }
        assertTrue(changes.after(70_000, "token69999", "u"));
        assertFalse(changes.after(70_008 + 1, "token69999", "u"));
        assertTrue(changes.floor() > 30_000, "the first generation was dropped: " + changes.floor());
    }

    /** Nothing is left of a million different tokens, users and changes but what the bounds allow. */
    @Test
    void aMillionDifferentTokensLeaveNothing() {
        Memory memory = new Memory(1000, 64 << 20);
        Keys keys = new Keys();
        memory.apply(new Memory.News(1, true, List.of(), List.of()));
        int kept = 0;
        for (int i = 2; i < 1_000_000; i++) {
            String name = "token-" + i;
            Entry e;
            if (i % 2 == 0) {
                e = new Entry(Decision.NOT_FOUND, null, null);
            } else {
                e = new Entry(new Token(name, "user-" + i, "", List.of(), List.of(), List.of(), List.of(), List.of(),
                        Map.of(), null, null, null, null, false));
            }
            e.until = Long.MAX_VALUE;
            e.key = keys.of(name, "reports");
            memory.keep(e, memory.epoch(), i);
            memory.known(Clock.mono(), 0);
            if (memory.recall(e.key, Clock.mono(), 0) == e) {
                kept++;
            }
            if (i % 7 == 0) {
                memory.apply(new Memory.News(i + 1, false, List.of(name), List.of("user-" + i)));
            }
        }
        assertTrue(kept > 0);
        assertTrue(memory.answers.size() <= 875 && memory.refusals.size() <= 125, "more than the bounds allow");
        assertTrue(memory.owners() <= 2 * 875, memory.owners() + " owners");
    }

    @Test
    void aTokenOfChanceIsPlausible() {
        for (int i = 0; i < 1000; i++) {
            assertTrue(Form.isPlausible(Form.random()));
        }
    }
}
