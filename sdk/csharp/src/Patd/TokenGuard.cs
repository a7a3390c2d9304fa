using System;
using System.Collections.Generic;
using System.Linq;
using System.Text;
using System.Threading;
using System.Threading.Tasks;

namespace Patd
{
    /// <summary>Configures a <see cref="TokenGuard"/>.</summary>
    public class TokenGuardOptions
    {
        /// <summary>The API of the handlers; null: that of the verifier.</summary>
        public string? Audience { get; set; }

        /// <summary>Is sent in WWW-Authenticate.</summary>
        public string Realm { get; set; } = "";

        /// <summary>
        /// The page where users renew tokens. Clients get it in Patd-Token-Renew in a token's last 30 days.
        /// </summary>
        public string? RenewUrl { get; set; }
    }

    /// <summary>
    /// What a guard decided about a request: either <see cref="Result"/> lets it pass, or the response is to be sent.
    /// </summary>
    public sealed class GuardOutcome
    {
        internal GuardOutcome(VerifyResult? result, int status, byte[]? body)
        {
            Result = result;
            Status = status;
            Body = body;
        }

        /// <summary>Whether the request may go on.</summary>
        public bool Passes => Status == 200;

        /// <summary>The decision, if there is one.</summary>
        public VerifyResult? Result { get; }

        /// <summary>200 if the request may go on; otherwise 400, 401, 403 or 503.</summary>
        public int Status { get; }

        /// <summary>Headers for the response, whatever it is.</summary>
        public IDictionary<string, string> Headers { get; } = new Dictionary<string, string>();

        /// <summary>The body of a response that refuses, in JSON.</summary>
        public byte[]? Body { get; }
    }

    /// <summary>
    /// Decides about requests by their bearer token, and makes the responses to those that may not pass, as RFC 6750
    /// requires: 401 without a token or for one that is not active, 403 for one that lacks a scope, 400 for more than
    /// one credential, 503 when nothing is known about the token. The token is read from the Authorization header
    /// alone.
    /// </summary>
    public sealed class TokenGuard
    {
        private static readonly TimeSpan RenewBefore = TimeSpan.FromDays(30);

        private readonly ITokenVerifier verifier;
        private readonly TokenGuardOptions options;

        /// <summary>Makes a guard.</summary>
        public TokenGuard(ITokenVerifier verifier, TokenGuardOptions? options = null)
        {
            this.verifier = verifier ?? throw new ArgumentNullException(nameof(verifier));
            this.options = options ?? new TokenGuardOptions();
        }

        /// <summary>
        /// Decides about a request with these values of the Authorization header. It throws nothing but
        /// <see cref="OperationCanceledException"/>, when the request is over: whatever breaks is a 503.
        /// </summary>
        public async Task<GuardOutcome> DecideAsync(
            IReadOnlyList<string> authorization, IReadOnlyList<string>? scopes, string? clientIp,
                CancellationToken cancel = default)
        {
            if (authorization.Count > 1)
            {
                return Many();
            }

            var token = authorization.Count == 0 ? null : Bearer(authorization[0]);
            if (token == null)
            {
                return Refuse(null, 401, null, "unauthorized",
                    "this request needs a token: Authorization: Bearer and a token", "CREDENTIAL_REQUIRED");
            }

            if (token.IndexOf(',') >= 0)
            {
                return Many(); // two headers, joined: no token contains a comma
            }

            try
            {
                var call = new VerifyCall { Audience = options.Audience, Scopes = scopes, ClientIp = clientIp };
                return Outcome(await verifier.VerifyAsync(token, call, cancel).ConfigureAwait(false), scopes);
            }
            catch (Exception err) when (!(err is OperationCanceledException && cancel.IsCancellationRequested))
            {
                var body = Json.Write(new Dictionary<string, object?> { ["error"] = "temporarily_unavailable" });
                var down = new GuardOutcome(null, 503, body);
                down.Headers["Cache-Control"] = "no-store";
                down.Headers["Retry-After"] = "1";
                return down;
            }
        }

        /// <summary>
        /// Decides about a request by what a table of routes has found: the scopes of its route, or null where it
        /// closes the request. That gets 403, whatever its token.
        /// </summary>
        public Task<GuardOutcome> DecideRouteAsync(
            IReadOnlyList<string>? found, IReadOnlyList<string> authorization, string? clientIp,
                CancellationToken cancel = default)
        {
            if (found != null && found.Count > 0)
            {
                return DecideAsync(authorization, found, clientIp, cancel);
            }

            var closed = new GuardOutcome(null, 403, Json.Write(new Dictionary<string, object?>
            {
                ["error"] = "forbidden",
                ["error_description"] =
                    "no token opens this route: it is not in the table of routes, or has no scope there",
                ["reason"] = "ROUTE_CLOSED",
            }));
            closed.Headers["Cache-Control"] = "no-store";
            return Task.FromResult(closed);
        }

        /// <summary>
        /// Reads a value of the Authorization header (RFC 9110 section 11.4); null: it has no bearer token.
        /// </summary>
        private static string? Bearer(string value)
        {
            var space = value.IndexOf(' ');
            return space > 0 && string.Equals(value.Substring(0, space), "Bearer", StringComparison.OrdinalIgnoreCase)
                ? value.Substring(space).TrimStart(' ') : null;
        }

        /// <summary>Keeps what a quoted-string of a challenge may contain (RFC 6750 section 3).</summary>
        private static string Printable(string text)
        {
            var out_ = new StringBuilder(text.Length);
            foreach (var c in text)
            {
                out_.Append(c == '"' || c == '`' ? '\'' : c < ' ' || c > '~' || c == '\\' ? '?' : c);
            }

            return out_.ToString();
        }

        private GuardOutcome Many() => Refuse(
            null, 400, new[] { ("error", "invalid_request") }, "invalid_request", "give one token, once",
                "CREDENTIAL_INVALID");

        private GuardOutcome Outcome(VerifyResult r, IReadOnlyList<string>? scopes)
        {
            if (r.Decision.IsActive() != (r.Token != null))
            {
                throw new InvalidOperationException("the verifier contradicts itself");
            }

            GuardOutcome out_;
            if (r.IsAllowed)
            {
                out_ = new GuardOutcome(r, 200, null);
            }
            else
            {
                var why = Refusal.Of(r);
                var lacks = r.Decision == Decision.InsufficientScope;
                var error = lacks ? "insufficient_scope" : "invalid_token";
                var challenge = new List<(string, string)> { ("error", error), ("error_description", why.Text) };
                if (lacks)
                {
                    challenge.Add(("scope", string.Join(" ", scopes ?? Array.Empty<string>())));
                }

                out_ = Refuse(r, lacks ? 403 : 401, challenge, error, why.Text, why.Reason, why);
            }

            var expires = r.Token != null ? r.Token.ExpireTime : r.ExpireTime;
            if (expires != null)
            {
                out_.Headers["Patd-Token-Expires-At"] = Refusal.Seconds(expires.Value);
                if (options.RenewUrl != null && DateTimeOffset.UtcNow >= expires.Value - RenewBefore)
                {
                    out_.Headers["Patd-Token-Renew"] = options.RenewUrl;
                }
            }

            return out_;
        }

        private GuardOutcome Refuse(
            VerifyResult? result, int status, IEnumerable<(string Name, string Value)>? challenge, string error,
                string text, string reason, Refusal? why = null)
        {
            var body = new Dictionary<string, object?>
            {
                ["error"] = error, ["error_description"] = text, ["reason"] = reason,
            };
            foreach (var (name, list) in new[] { ("missing_scopes", why?.Missing),
                ("suspended_scopes", why?.Suspended), ("paused_scopes", why?.Paused) })
            {
                if (list != null && list.Count > 0)
                {
                    body[name] = list;
                }
            }

            var all = new[] { (Name: "realm", Value: options.Realm) }.Concat(challenge
                ?? Array.Empty<(string, string)>());
            var parameters = all.Where(p => p.Value != "").Select(p => p.Name + "=\"" + Printable(p.Value) + "\"");
            var out_ = new GuardOutcome(result, status, Json.Write(body));
            out_.Headers["Cache-Control"] = "no-store";
            out_.Headers["WWW-Authenticate"] = ("Bearer " + string.Join(", ", parameters)).Trim();
            return out_;
        }
    }
}
