package patd;

/** What was decided about a token. Only {@link #ALLOW} lets a call pass. */
public enum Decision {
    ALLOW(null),
    INSUFFICIENT_SCOPE("SCOPE_INSUFFICIENT"),
    NOT_FOUND("CREDENTIAL_INVALID"),
    EXPIRED("TOKEN_EXPIRED"),
    REVOKED("TOKEN_REVOKED"),
    SUPERSEDED("TOKEN_SUPERSEDED"),
    USER_SUSPENDED("USER_SUSPENDED"),
    AUDIENCE_MISMATCH("AUDIENCE_MISMATCH"),
    IP_NOT_ALLOWED("IP_NOT_ALLOWED"),
    POLICY_BLOCKED("POLICY_BLOCKED"),
    TOKEN_IDLE("TOKEN_IDLE");

    private final String reason;

    Decision(String reason) {
        this.reason = reason;
    }

    /** Returns the stable reason of a refusal, as patd's own errors have it; null for {@link #ALLOW}. */
    public String reason() {
        return reason;
    }

    /** Reports whether it means an active token. */
    public boolean isActive() {
        return this == ALLOW || this == INSUFFICIENT_SCOPE;
    }

    /** Reports whether it is a refusal that will never be taken back for the same secret. */
    public boolean isFinal() {
        return this == NOT_FOUND || this == EXPIRED || this == REVOKED || this == SUPERSEDED;
    }
}
