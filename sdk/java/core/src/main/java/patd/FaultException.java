package patd;

import java.util.concurrent.CompletionException;
import java.util.concurrent.ExecutionException;

/** A check that has no decision. The call at hand must fail with 503, never with 401, and never pass. */
public class FaultException extends RuntimeException {
    /** Why nothing is known about a token. */
    public enum Kind {
        /** patd did not answer in time, cannot decide now, or its answer made no sense. */
        UNAVAILABLE,
        /** patd refuses the service token of this program (401, 403). */
        FORBIDDEN,
        /** The arguments of the call are refused. */
        INVALID,
        /** The thread that waited was interrupted. */
        INTERRUPTED,
        /** The verifier was closed. */
        CLOSED
    }

    private final Kind kind;

    /** Makes a fault. */
    public FaultException(Kind kind, String message, Throwable cause) {
        super(message, cause);
        this.kind = kind;
    }

    /** Returns why nothing is known. */
    public Kind kind() {
        return kind;
    }

    static FaultException unavailable(String message) {
        return new FaultException(Kind.UNAVAILABLE, message, null);
    }

    static FaultException invalid(String message) {
        return new FaultException(Kind.INVALID, message, null);
    }

    static FaultException closed() {
        return new FaultException(Kind.CLOSED, "the verifier is closed", null);
    }

    /** Returns the fault that an error is, or stands for. */
    static FaultException of(Throwable err, String doing) {
        Throwable cause = unwrap(err);
        if (cause instanceof FaultException fault) {
            return fault;
        }
        String why = cause.getMessage() == null ? cause.getClass().getSimpleName() : cause.getMessage();
        return new FaultException(Kind.UNAVAILABLE, doing + ": " + why, cause);
    }

    static Throwable unwrap(Throwable err) {
        while ((err instanceof CompletionException || err instanceof ExecutionException) && err.getCause() != null) {
            err = err.getCause();
        }
        return err;
    }
}
