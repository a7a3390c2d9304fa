package patd;

import java.util.concurrent.CompletableFuture;

/**
 * Decides about tokens. A decision is a value. A {@link FaultException} means that nothing is known about the token:
 * the call at hand must fail with 503, never with 401, and never pass.
 */
public interface Checker {
    /**
     * Decides about a token, exactly as the client sent it.
     *
     * @throws FaultException nothing is known about the token
     */
    Result verify(String token, Call call);

    /**
     * Decides as {@link #verify} does, without blocking. A fault completes the future with a {@link FaultException}. To
     * cancel the future does not cancel the request, which other checks may share.
     */
    CompletableFuture<Result> verifyAsync(String token, Call call);
}
