using System;
using System.Collections.Generic;

namespace Patd
{
    /// <summary>An active token. It is shared between checks, and never changes.</summary>
    public sealed class VerifiedToken
    {
        private static readonly IReadOnlyList<string> None = Array.Empty<string>();

        internal VerifiedToken(string id, string user)
        {
            Id = id;
            User = user;
        }

        /// <summary>The public id of the personal access token; safe to log.</summary>
        public string Id { get; }

        /// <summary>The id of its owner.</summary>
        public string User { get; }

        /// <summary>The name that the owner gave it.</summary>
        public string Name { get; internal set; } = "";

        /// <summary>The scopes in effect: granted, and held by the user now. Sorted.</summary>
        public IReadOnlyList<string> Scopes { get; internal set; } = None;

        /// <summary>The scopes as granted. Sorted.</summary>
        public IReadOnlyList<string> GrantedScopes { get; internal set; } = None;

        /// <summary>Granted, but not held by the user now. Sorted.</summary>
        public IReadOnlyList<string> SuspendedScopes { get; internal set; } = None;

        /// <summary>Granted, but not in effect until the owner resumes them. Sorted.</summary>
        public IReadOnlyList<string> PausedScopes { get; internal set; } = None;

        /// <summary>The APIs that it is for; empty: none in particular.</summary>
        public IReadOnlyList<string> Audiences { get; internal set; } = None;

        /// <summary>The labels that its maker gave it.</summary>
        public IReadOnlyDictionary<string, string> Labels { get; internal set; } = new Dictionary<string, string>();

        /// <summary>When it was made, if patd says so.</summary>
        public DateTimeOffset? IssueTime { get; internal set; }

        /// <summary>When the presented secret stops working; null: never.</summary>
        public DateTimeOffset? ExpireTime { get; internal set; }

        /// <summary>The id of the short-lived access token that was presented; null: a personal one was.</summary>
        public string? AccessTokenId { get; internal set; }

        /// <summary>The client that a short-lived access token was given to, as it named itself.</summary>
        public string? ClientId { get; internal set; }

        /// <summary>The source of features does not respond: the scopes rest on its last answer.</summary>
        public bool Stale { get; internal set; }
    }

    /// <summary>What the call at hand requires of a token.</summary>
    public sealed class VerifyCall
    {
        /// <summary>The caller's own API; null or empty: that of the verifier's options.</summary>
        public string? Audience { get; set; }

        /// <summary>The scopes that the call needs, all of them. Null or empty: an active token is enough.</summary>
        public IReadOnlyList<string>? Scopes { get; set; }

        /// <summary>
        /// The address that the token was presented from. A token that is bound to networks is refused without it.
        /// </summary>
        public string? ClientIp { get; set; }
    }

    /// <summary>A decision about a token. It may be shared between checks, and never changes.</summary>
    public sealed class VerifyResult
    {
        private static readonly IReadOnlyList<string> None = Array.Empty<string>();

        private VerifyResult(Decision decision, VerifiedToken? token, IReadOnlyList<string>? missing)
        {
            Decision = decision;
            Token = token;
            MissingScopes = missing ?? None;
        }

        /// <summary>Whether the call may go on: the decision is <see cref="Patd.Decision.Allow"/>.</summary>
        public bool IsAllowed => Decision == Decision.Allow;

        /// <summary>The decision.</summary>
        public Decision Decision { get; }

        /// <summary>Of an active token, whose decision is Allow or InsufficientScope; otherwise null.</summary>
        public VerifiedToken? Token { get; }

        /// <summary>The required scopes that are not in effect. Sorted.</summary>
        public IReadOnlyList<string> MissingScopes { get; }

        /// <summary>
        /// When the token expired, was revoked, or its secret stopped working; null: not known, or another decision.
        /// </summary>
        public DateTimeOffset? EndTime { get; private set; }

        /// <summary>
        /// When the secret of a token that is not active stops working, or stopped; null: never, or not known.
        /// </summary>
        public DateTimeOffset? ExpireTime { get; private set; }

        /// <summary>Returns the decision that an active token may do what a call requires.</summary>
        internal static VerifyResult Allowed(VerifiedToken token) => new VerifyResult(Decision.Allow, token, null);

        /// <summary>Decides about an active token for one call. Allowed is what Allowed returns of it.</summary>
        internal static VerifyResult Decide(VerifyResult allowed, IReadOnlyList<string>? required)
        {
            var token = allowed.Token!;
            List<string>? missing = null;
            if (required != null)
            {
                for (var i = 0; i < required.Count; i++)
                {
                    if (!Has(token.Scopes, required[i]) && (missing == null || !missing.Contains(required[i])))
                    {
                        (missing ??= new List<string>()).Add(required[i]);
                    }
                }
            }

            if (missing == null)
            {
                return allowed;
            }

            missing.Sort(string.CompareOrdinal);
            return new VerifyResult(Decision.InsufficientScope, token, missing);
        }

        internal static VerifyResult Refused(Decision decision, DateTimeOffset? ended = null,
            DateTimeOffset? expires = null) =>
            new VerifyResult(decision, null, null) { EndTime = ended, ExpireTime = expires };

        internal static bool Has(IReadOnlyList<string> scopes, string scope)
        {
            for (var i = 0; i < scopes.Count; i++)
            {
                if (string.Equals(scopes[i], scope, StringComparison.Ordinal))
                {
                    return true;
                }
            }

            return false;
        }
    }
}
