using System;
using System.Linq;
using System.Net;
using System.Net.Http;
using System.Net.Http.Headers;
using System.Threading.Tasks;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Patd;
using Patd.AspNetCore;

/// <summary>The scheme, in a real application of ASP.NET Core.</summary>
internal static class Web
{
    public static async Task TheSchemeGuardsRoutes()
    {
        var patd = new FakePatd();
        using (var app = await StartAsync(patd))
        using (var client = new HttpClient { BaseAddress = new Uri(Address(app)) })
        {
            async Task<HttpResponseMessage> Get(string path, string? token)
            {
                var request = new HttpRequestMessage(HttpMethod.Get, path);
                request.Headers.Authorization = token == null ? null : new AuthenticationHeaderValue("Bearer", token);
                return await client.SendAsync(request);
            }

            var good = patd.Mint(new FakeToken { Scopes = new[] { "reports.read" },
                ExpireTime = DateTimeOffset.UtcNow.AddDays(1) }, out var id);
            var lacks = patd.Mint(new FakeToken { User = "bob" }, out _);
            var passed = await Get("/reports", good);
            Is.Same(HttpStatusCode.OK, passed.StatusCode);
            Is.Same("reports of alice", await passed.Content.ReadAsStringAsync());
            Is.True(passed.Headers.Contains("Patd-Token-Expires-At"), "the client is told when its token expires");
            Is.Same(1, patd.Uses.Count, "a request is one use");

            var none = await Get("/reports", null);
            Is.Same(HttpStatusCode.Unauthorized, none.StatusCode);
            Is.Same("Bearer", none.Headers.WwwAuthenticate.ToString());
            var refused = await Get("/reports", lacks);
            Is.Same(HttpStatusCode.Forbidden, refused.StatusCode);
            Is.True((await refused.Content.ReadAsStringAsync()).Contains("\"missing_scopes\":[\"reports.read\"]"),
                "it says which scope is missing");
            Is.True(refused.Headers.WwwAuthenticate.ToString().Contains("scope=\"reports.read\""), "the challenge too");
            Is.Same(HttpStatusCode.OK, (await Get("/me", lacks)).StatusCode);
            Is.Same(HttpStatusCode.OK, (await Get("/open", null)).StatusCode);
            Is.Same(HttpStatusCode.Forbidden, (await Get("/never", good)).StatusCode,
                "a policy that refuses for a reason of its own");

            patd.Revoke(id);
            Is.Same(HttpStatusCode.Unauthorized, (await Get("/reports", good)).StatusCode);
            patd.Outage();
            var down = await Get("/me", lacks);
            Is.Same(HttpStatusCode.ServiceUnavailable, down.StatusCode, "an outage");
            Is.Same("1", down.Headers.RetryAfter.ToString());
            Is.Same("", down.Headers.WwwAuthenticate.ToString());
        }
    }

    private static async Task<IHost> StartAsync(ITokenVerifier verifier)
    {
        var host = Host.CreateDefaultBuilder()
            .ConfigureLogging(log => log.ClearProviders())
            .ConfigureWebHostDefaults(web => web
                .UseUrls("http://127.0.0.1:0")
                .ConfigureServices(services =>
                {
                    services.AddSingleton(verifier);
                    services.AddAuthentication(PatdDefaults.Scheme).AddPatd();
                    services.AddAuthorization(options =>
                    {
                        options.AddPolicy("reports.read", policy => policy.RequireScope("reports.read"));
                        options.AddPolicy("never", policy => policy.RequireAssertion(_ => false));
                    });
                })
                .Configure(app => app
                    .UseRouting().UseAuthentication().UseAuthorization()
                    .UseEndpoints(endpoints =>
                    {
                        endpoints.MapGet("/reports", c => c.Response.WriteAsync("reports of " + c.User.Identity.Name))
                            .RequireAuthorization("reports.read");
                        endpoints.MapGet("/never", c => c.Response.WriteAsync("no")).RequireAuthorization("never");
                        endpoints.MapGet("/me", c => c.Response.WriteAsync(c.User.Identity.Name))
                            .RequireAuthorization();
                        endpoints.MapGet("/open", c => c.Response.WriteAsync("open"));
                    })))
            .Build();
        await host.StartAsync();
        return host;
    }

    internal static string Address(IHost host) =>
        host.Services.GetRequiredService<Microsoft.AspNetCore.Hosting.Server.IServer>()
            .Features.Get<IServerAddressesFeature>().Addresses.First();
}
