using System;
using System.Collections.Generic;
using System.Linq;
using System.Net;
using System.Security.Claims;
using System.Text.Encodings.Web;
using System.Threading.Tasks;
using Microsoft.AspNetCore.Authentication;
using Microsoft.AspNetCore.Authorization;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;

namespace Patd.AspNetCore
{
    /// <summary>The name of the scheme, and of the claims that it makes.</summary>
    public static class PatdDefaults
    {
        /// <summary>The name of the scheme.</summary>
        public const string Scheme = "Patd";

        /// <summary>The claim that holds the id of the user.</summary>
        public const string User = "sub";

        /// <summary>The claim that holds one scope in effect. There is one for each.</summary>
        public const string Scope = "scope";

        /// <summary>The claim that holds the public id of the token.</summary>
        public const string TokenId = "token_id";
    }

    /// <summary>Configures the scheme.</summary>
    public sealed class PatdSchemeOptions : AuthenticationSchemeOptions
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
    /// Authenticates requests by a personal access token in the Authorization header. A token that lacks a scope is
    /// active, and authenticated; the policy refuses it then. When nothing is known about the token, nobody is
    /// authenticated, and the challenge is a 503.
    /// </summary>
    public sealed class PatdHandler : AuthenticationHandler<PatdSchemeOptions>
    {
        private readonly ITokenVerifier verifier;
        private readonly IAuthorizationPolicyProvider policies;
        private GuardOutcome? outcome;

        /// <summary>Makes the handler of one request.</summary>
        public PatdHandler(
            IOptionsMonitor<PatdSchemeOptions> options, ILoggerFactory logger, UrlEncoder encoder, ISystemClock clock,
            ITokenVerifier verifier, IAuthorizationPolicyProvider policies)
            : base(options, logger, encoder, clock)
        {
            this.verifier = verifier;
            this.policies = policies;
        }

        /// <inheritdoc/>
        protected override async Task<AuthenticateResult> HandleAuthenticateAsync()
        {
            var guard = new TokenGuard(
                verifier, new TokenGuardOptions { Audience = Options.Audience, Realm = Options.Realm,
                    RenewUrl = Options.RenewUrl });
            var address = Context.Connection.RemoteIpAddress;
            var ip = address == null ? null : new IPAddress(address.GetAddressBytes()).ToString(); // without a zone
            var values = Request.Headers["Authorization"].ToArray();
            var scopes = await RequiredScopesAsync();
            outcome = await guard.DecideAsync(values, scopes, ip, Context.RequestAborted);
            if (outcome.Result?.Token is VerifiedToken token)
            {
                if (outcome.Passes && !Response.HasStarted)
                {
                    SetHeaders(outcome); // when the token expires, and where to renew it
                }

                return AuthenticateResult.Success(new AuthenticationTicket(
                    Principal(token, Scheme.Name), Scheme.Name));
            }

            return values.Length == 0
                ? AuthenticateResult.NoResult()
                : AuthenticateResult.Fail(outcome.Result == null
                    ? "nothing is known about the token" : outcome.Result.Decision.Name());
        }

        /// <inheritdoc/>
        protected override Task HandleChallengeAsync(AuthenticationProperties properties) => RespondAsync();

        /// <inheritdoc/>
        protected override Task HandleForbiddenAsync(AuthenticationProperties properties) => RespondAsync();

        private async Task RespondAsync()
        {
            await AuthenticateAsync(); // whoever challenges may not have
            var answer = outcome!;
            SetHeaders(answer);
            // A token that may pass, and a policy that refuses it for a reason of its own.
            Response.StatusCode = answer.Passes ? StatusCodes.Status403Forbidden : answer.Status;
            if (answer.Body != null)
            {
                Response.ContentType = "application/json";
                await Response.Body.WriteAsync(answer.Body, 0, answer.Body.Length, Context.RequestAborted);
            }
        }

        private void SetHeaders(GuardOutcome from)
        {
            foreach (var header in from.Headers)
            {
                Response.Headers[header.Key] = header.Value;
            }
        }

        /// <summary>
        /// Returns the scopes that the policies of the endpoint need, so that patd knows which ones are used.
        /// </summary>
        private async Task<IReadOnlyList<string>> RequiredScopesAsync()
        {
            var scopes = new List<string>();
            var required = Context.GetEndpoint()?.Metadata.GetOrderedMetadata<IAuthorizeData>()
                ?? Array.Empty<IAuthorizeData>();
            foreach (var name in required.Select(r => r.Policy).Where(name => !string.IsNullOrEmpty(name)))
            {
                var policy = await policies.GetPolicyAsync(name!);
                scopes.AddRange(policy?.Requirements.OfType<ScopeRequirement>().Select(r => r.Scope)
                    ?? Array.Empty<string>());
            }

            return scopes.Distinct().ToList();
        }

        internal static ClaimsPrincipal Principal(VerifiedToken token, string scheme)
        {
            var claims = new List<Claim> { new Claim(PatdDefaults.User, token.User),
                new Claim(PatdDefaults.TokenId, token.Id) };
            claims.AddRange(token.Scopes.Select(s => new Claim(PatdDefaults.Scope, s)));
            return new ClaimsPrincipal(new ClaimsIdentity(claims, scheme, PatdDefaults.User, null));
        }
    }
}
