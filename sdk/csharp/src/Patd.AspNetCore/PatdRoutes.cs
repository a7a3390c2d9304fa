using System.Net;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;

namespace Patd.AspNetCore
{
    /// <summary>Guards a whole application by a table of routes.</summary>
    public static class PatdRoutes
    {
        /// <summary>
        /// Lets requests pass that the table opens, with a token that has all scopes of their route: put it in front of
        /// everything that responds. It needs the <see cref="ITokenVerifier"/> of AddPatdVerifier, or a fake. The user
        /// of a request is that of its token. Paths are those below the path base.
        /// </summary>
        public static IApplicationBuilder UsePatdRoutes(
            this IApplicationBuilder app, RouteTable table, TokenGuardOptions? options = null)
        {
            var guard = new TokenGuard(app.ApplicationServices.GetRequiredService<ITokenVerifier>(), options);
            return app.Use(async (context, next) =>
            {
                var request = context.Request;
                var address = context.Connection.RemoteIpAddress;
                var ip = address == null ? null : new IPAddress(address.GetAddressBytes()).ToString(); // without a zone
                var outcome = await guard.DecideRouteAsync(
                    table.FindDecoded(request.Method, request.Path.Value ?? ""),
                    request.Headers["Authorization"].ToArray(), ip, context.RequestAborted);
                foreach (var header in outcome.Headers)
                {
                    context.Response.Headers[header.Key] = header.Value;
                }

                if (outcome.Passes)
                {
                    context.User = PatdHandler.Principal(outcome.Result!.Token!, PatdDefaults.Scheme);
                    await next();
                    return;
                }

                context.Response.StatusCode = outcome.Status;
                context.Response.ContentType = "application/json";
                await context.Response.Body.WriteAsync(outcome.Body!, 0, outcome.Body!.Length, context.RequestAborted);
            });
        }
    }
}
