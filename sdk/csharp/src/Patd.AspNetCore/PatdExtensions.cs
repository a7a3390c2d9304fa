using System;
using System.Linq;
using System.Threading.Tasks;
using Microsoft.AspNetCore.Authentication;
using Microsoft.AspNetCore.Authorization;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.DependencyInjection.Extensions;

namespace Patd.AspNetCore
{
    /// <summary>A token needs a scope, in effect.</summary>
    public sealed class ScopeRequirement : AuthorizationHandler<ScopeRequirement>, IAuthorizationRequirement
    {
        /// <summary>Makes the requirement.</summary>
        public ScopeRequirement(string scope) => Scope = scope;

        /// <summary>The scope.</summary>
        public string Scope { get; }

        /// <inheritdoc/>
        protected override Task HandleRequirementAsync(AuthorizationHandlerContext context,
            ScopeRequirement requirement)
        {
            // Only tokens of patd have its scopes: a JWT of an identity provider may have a claim of the same name.
            var has = context.User.Identities.Any(i =>
                i.IsAuthenticated && i.HasClaim(c => c.Type == PatdDefaults.TokenId)
                    && i.HasClaim(PatdDefaults.Scope, requirement.Scope));
            if (has)
            {
                context.Succeed(requirement);
            }

            return Task.CompletedTask;
        }
    }

    /// <summary>Adds patd to an ASP.NET Core application.</summary>
    public static class PatdExtensions
    {
        /// <summary>
        /// Adds the verifier that all requests share. It starts with the first request, and is closed with the
        /// application.
        /// </summary>
        public static IServiceCollection AddPatdVerifier(this IServiceCollection services,
            Action<TokenVerifierOptions> configure)
        {
            services.TryAddSingleton<ITokenVerifier>(_ =>
            {
                var options = new TokenVerifierOptions();
                configure(options);
                return new TokenVerifier(options);
            });
            return services;
        }

        /// <summary>
        /// Adds the scheme. It needs an <see cref="ITokenVerifier"/>: that of AddPatdVerifier, or a fake.
        /// </summary>
        public static AuthenticationBuilder AddPatd(
            this AuthenticationBuilder builder, Action<PatdSchemeOptions>? configure = null,
                string scheme = PatdDefaults.Scheme)
        {
            builder.Services.AddAuthorization();
            return builder.AddScheme<PatdSchemeOptions, PatdHandler>(scheme, configure);
        }

        /// <summary>Requires that a token has a scope, in effect.</summary>
        public static AuthorizationPolicyBuilder RequireScope(this AuthorizationPolicyBuilder policy, string scope) =>
            policy.AddRequirements(new ScopeRequirement(scope));
    }
}
