package patd;

/** The monotonic clock. */
final class Clock {
    private static final long START = System.nanoTime();

    private Clock() {}

    /** Returns the nanoseconds since the library was loaded. Unlike those of System they can be compared and added. */
    static long mono() {
        return System.nanoTime() - START;
    }
}
