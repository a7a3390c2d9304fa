using System.Collections.Generic;

namespace Patd
{
    /// <summary>What was decided about a token. Only <see cref="Allow"/> lets a call pass.</summary>
    public enum Decision
    {
        /// <summary>The token is active, and has all required scopes in effect.</summary>
        Allow,

        /// <summary>The token is active, but lacks a required scope.</summary>
        InsufficientScope,

        /// <summary>No such token.</summary>
        NotFound,

        /// <summary>The token expired.</summary>
        Expired,

        /// <summary>The token was revoked.</summary>
        Revoked,

        /// <summary>The token was rotated, and this secret has stopped working.</summary>
        Superseded,

        /// <summary>The user of the token is suspended.</summary>
        UserSuspended,

        /// <summary>The token is not for this audience.</summary>
        AudienceMismatch,

        /// <summary>The token is bound to networks, and the client's address is in none of them.</summary>
        IpNotAllowed,

        /// <summary>The operator blocked the token, since it exceeds the policy of an audience.</summary>
        PolicyBlocked,

        /// <summary>The token is paused, since it was not used for long. Its owner can resume it.</summary>
        TokenIdle,
    }

    /// <summary>The names and kinds of decisions.</summary>
    public static class Decisions
    {
        private static readonly string[] Names =
        {
            "ALLOW", "INSUFFICIENT_SCOPE", "NOT_FOUND", "EXPIRED", "REVOKED", "SUPERSEDED", "USER_SUSPENDED",
            "AUDIENCE_MISMATCH", "IP_NOT_ALLOWED", "POLICY_BLOCKED", "TOKEN_IDLE",
        };

        private static readonly string?[] Reasons =
        {
            null, "SCOPE_INSUFFICIENT", "CREDENTIAL_INVALID", "TOKEN_EXPIRED", "TOKEN_REVOKED", "TOKEN_SUPERSEDED",
            "USER_SUSPENDED", "AUDIENCE_MISMATCH", "IP_NOT_ALLOWED", "POLICY_BLOCKED", "TOKEN_IDLE",
        };

        private static readonly Dictionary<string, Decision> ByName = Index();

        /// <summary>Returns patd's name of a decision, such as <c>NOT_FOUND</c>.</summary>
        public static string Name(this Decision decision) => Names[(int)decision];

        /// <summary>
        /// Returns the stable reason of a refusal, as patd's own errors have it; null for <see cref="Decision.Allow"/>.
        /// </summary>
        public static string? Reason(this Decision decision) => Reasons[(int)decision];

        /// <summary>Reports whether a decision means an active token.</summary>
        public static bool IsActive(this Decision decision) =>
            decision == Decision.Allow || decision == Decision.InsufficientScope;

        /// <summary>Reports whether a refusal will never be taken back for the same secret.</summary>
        internal static bool IsFinal(this Decision decision) =>
            decision == Decision.NotFound || decision == Decision.Expired || decision == Decision.Revoked ||
            decision == Decision.Superseded;

        /// <summary>Reads patd's name of a decision.</summary>
        internal static bool TryRead(string? name, out Decision decision)
        {
            decision = Decision.NotFound;
            return name != null && ByName.TryGetValue(name, out decision);
        }

        private static Dictionary<string, Decision> Index()
        {
            var index = new Dictionary<string, Decision>();
            for (var i = 0; i < Names.Length; i++)
            {
                index[Names[i]] = (Decision)i;
            }

            return index;
        }
    }
}
