package patd.manage;

import java.util.Iterator;
import java.util.List;
import java.util.NoSuchElementException;
import java.util.function.Function;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;

/**
 * The items of all pages. A page is asked for when it is needed; each iteration begins again. Its iterators throw a
 * {@link PatdException} where a page fails.
 */
public final class Pages<T> implements Iterable<T> {
    record Page<T>(List<T> items, String next) {}

    private final Function<String, Page<T>> fetch;

    Pages(Function<String, Page<T>> fetch) {
        this.fetch = fetch;
    }

    @Override
    public Iterator<T> iterator() {
        return new Iterator<>() {
            private Page<T> page = new Page<>(List.of(), null); // null: the first one is next
            private int at;

            @Override
            public boolean hasNext() {
                while (at >= page.items.size()) {
                    if ("".equals(page.next)) {
                        return false;
                    }
                    page = fetch.apply(page.next);
                    at = 0;
                }
                return true;
            }

            @Override
            public T next() {
                if (!hasNext()) {
                    throw new NoSuchElementException();
                }
                return page.items.get(at++);
            }
        };
    }

    /** Returns the items as a stream. */
    public Stream<T> stream() {
        return StreamSupport.stream(spliterator(), false);
    }
}
