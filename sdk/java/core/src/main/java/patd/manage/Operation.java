package patd.manage;

/**
 * An operation of patd.
 *
 * @param id its operationId
 * @param path with {@code {name}} for each of its parameters
 * @param key takes an Idempotency-Key
 * @param repeat has the same result, and the same response, when it is repeated
 * @param items the member that has the items of a page; empty: it returns no pages
 * @param ask the parameter that asks for a page
 * @param next the member that has its next value
 */
public record Operation(String id, String method, String path, boolean key, boolean repeat, String items, String ask,
        String next) {}
