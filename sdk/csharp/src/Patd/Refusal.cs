using System;
using System.Collections.Generic;
using System.Globalization;
using System.Linq;

namespace Patd
{
    /// <summary>Why a token is refused, in the words of patd, for its bearer.</summary>
    public sealed class Refusal
    {
        private Refusal(string reason) => Reason = reason;

        /// <summary>The stable reason, such as <c>TOKEN_REVOKED</c>.</summary>
        public string Reason { get; }

        /// <summary>Printable ASCII without quotes and backslashes, as long as scopes have their syntax.</summary>
        public string Text { get; private set; } = "";

        /// <summary>Required, and never granted.</summary>
        public IReadOnlyList<string> Missing { get; private set; } = Array.Empty<string>();

        /// <summary>Required and granted, but not held by the user now.</summary>
        public IReadOnlyList<string> Suspended { get; private set; } = Array.Empty<string>();

        /// <summary>Required and granted, but paused: the owner may resume them.</summary>
        public IReadOnlyList<string> Paused { get; private set; } = Array.Empty<string>();

        /// <summary>Says why a result is a refusal.</summary>
        public static Refusal Of(VerifyResult result)
        {
            var granted = result.Token?.GrantedScopes ?? Array.Empty<string>();
            var paused = result.Token?.PausedScopes ?? Array.Empty<string>();
            var refusal = new Refusal(result.Decision.Reason() ?? "")
            {
                Paused = result.MissingScopes.Where(s => VerifyResult.Has(paused, s)).ToList(),
                Suspended = result.MissingScopes.Where(s =>
                    !VerifyResult.Has(paused, s) && VerifyResult.Has(granted, s)).ToList(),
                Missing = result.MissingScopes.Where(s =>
                    !VerifyResult.Has(paused, s) && !VerifyResult.Has(granted, s)).ToList(),
            };
            refusal.Text = refusal.Words(result);
            return refusal;
        }

        /// <summary>
        /// Returns a time in RFC 3339, cut to whole seconds, so that a token never seems to last longer than it does.
        /// </summary>
        internal static string Seconds(DateTimeOffset time) =>
            time.UtcDateTime.ToString("yyyy-MM-dd'T'HH:mm:ss'Z'", CultureInfo.InvariantCulture);

        private static string At(string when, string without, DateTimeOffset? time) =>
            time == null ? without : when + " at " + Seconds(time.Value);

        private string Words(VerifyResult r)
        {
            switch (r.Decision)
            {
                case Decision.Expired:
                    return At("the token expired", "the token has expired", r.EndTime);
                case Decision.Revoked:
                    return At("the token was revoked", "the token was revoked", r.EndTime);
                case Decision.Superseded:
                    return At(
                        "the token was rotated, and this secret stopped working",
                        "the token was rotated, and this secret has stopped working",
                        r.EndTime);
                case Decision.UserSuspended:
                    return "the user of the token is suspended";
                case Decision.PolicyBlocked:
                    return "the operator has blocked the token, since it exceeds the policy of an audience";
                case Decision.TokenIdle:
                    return "the token is paused, since it was not used for long; its owner can resume it";
                case Decision.AudienceMismatch:
                    return "the token is not for this audience";
                case Decision.IpNotAllowed:
                    return "the token is not allowed from this address";
                case Decision.InsufficientScope:
                    return Lacks();
                default:
                    return "the token is not valid";
            }
        }

        private string Lacks()
        {
            var parts = new List<string>();
            if (Missing.Count > 0)
            {
                parts.Add("the token was not granted " + string.Join(" ", Missing));
            }

            if (Suspended.Count > 0)
            {
                parts.Add("its user does not hold " + string.Join(" ", Suspended) + " now");
            }

            if (Paused.Count > 0)
            {
                parts.Add("its owner can resume " + string.Join(" ", Paused) + ", which was paused");
            }

            return parts.Count > 0 ? string.Join("; ", parts) : "the token lacks a scope that this request needs";
        }
    }
}
