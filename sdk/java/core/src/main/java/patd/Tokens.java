package patd;

/** The texts of tokens, for tests and tools. */
public final class Tokens {
    private Tokens() {}

    /** Reports whether a text has the form of a token that may be checked, its checksum included. */
    public static boolean isPlausible(String text) {
        return Form.isPlausible(text);
    }

    /** Returns a new token text of random bits. No patd knows it. */
    public static String random() {
        return Form.random();
    }
}
