using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Net;
using System.Net.Http;
using System.Net.Http.Headers;
using System.Text.Json;
using System.Threading.Tasks;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Patd;
using Patd.AspNetCore;

/// <summary>Tables of routes, with the requests that the libraries of all languages must decide alike.</summary>
internal static class Routes
{
    public static void ATableOpensWhatItListsAndNothingElse()
    {
        using (var vectors = Vectors())
        {
            var table = RouteTable.Parse(vectors.RootElement.GetProperty("table").GetRawText());
            var decided = 0;
            foreach (var r in vectors.RootElement.GetProperty("requests").EnumerateArray())
            {
                string method = r.GetProperty("method").GetString(), path = r.GetProperty("path").GetString();
                var want = r.GetProperty("scopes").ValueKind == JsonValueKind.Null ? "closed"
                    : string.Join(" ", r.GetProperty("scopes").EnumerateArray().Select(s => s.GetString()));
                var decoded = r.TryGetProperty("decoded", out var d) ? d.GetString() : "";
                if (decoded != "only")
                {
                    decided++;
                    Is.Same(want, Text(table.Find(method, path)), r.GetProperty("why").GetString());
                }

                if (decoded != "no")
                {
                    Is.Same(want, Text(table.FindDecoded(method, path)), r.GetProperty("why").GetString());
                }
            }

            Is.True(decided > 50, "there are requests");
        }
    }

    public static void ATableThatIsNotUnderstoodIsRefused()
    {
        using (var vectors = Vectors())
        {
            foreach (var bad in vectors.RootElement.GetProperty("bad").EnumerateArray())
            {
                Is.Throws<FormatException>(() => RouteTable.Parse(bad.GetProperty("table").GetRawText()),
                    bad.GetProperty("why").GetString());
            }
        }

        foreach (var text in new[] { "", "{", "null" })
        {
            Is.Throws<FormatException>(() => RouteTable.Parse(text), text);
        }
    }

    public static async Task ATableGuardsAWholeApplication()
    {
        var patd = new FakePatd();
        var table = RouteTable.Parse("{\"version\":1,\"routes\":[" +
            "{\"method\":\"GET\",\"path\":\"/reports/{id}\",\"scopes\":[\"reports.read\"]}," +
            "{\"method\":\"GET\",\"path\":\"/reports/secret\",\"scopes\":[]}]}");
        using (var app = await StartAsync(patd, table))
        using (var client = new HttpClient { BaseAddress = new Uri(Web.Address(app)) })
        {
            var may = patd.Mint(new FakeToken { Scopes = new[] { "reports.read" } }, out _);
            var lacks = patd.Mint(new FakeToken { User = "bob" }, out _);
            foreach (var (method, path, token, status, reason) in new[]
            {
                ("GET", "/reports/7?x=/reports/secret", may, HttpStatusCode.OK, "alice"),
                ("GET", "/reports/7", lacks, HttpStatusCode.Forbidden, "SCOPE_INSUFFICIENT"),
                ("GET", "/reports/7", "x", HttpStatusCode.Unauthorized, "CREDENTIAL_INVALID"),
                ("GET", "/reports/secret", may, HttpStatusCode.Forbidden, "ROUTE_CLOSED"),
                ("GET", "/reports/SECRET", may, HttpStatusCode.Forbidden, "ROUTE_CLOSED"),
                ("GET", "/reports/a%2Fb", may, HttpStatusCode.Forbidden, "ROUTE_CLOSED"),
                ("PUT", "/reports/7", may, HttpStatusCode.Forbidden, "ROUTE_CLOSED"),
                ("GET", "/other", may, HttpStatusCode.Forbidden, "ROUTE_CLOSED"),
            })
            {
                var request = new HttpRequestMessage(new HttpMethod(method), path);
                request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", token);
                var answer = await client.SendAsync(request);
                Is.Same(status, answer.StatusCode, method + " " + path);
                Is.True((await answer.Content.ReadAsStringAsync()).Contains(reason), method + " " + path);
            }
        }
    }

    private static JsonDocument Vectors() => JsonDocument.Parse(File.ReadAllText("../conformance/routes.json"));

    private static string Text(IReadOnlyList<string>? scopes) => scopes == null ? "closed" : string.Join(" ", scopes);

    private static async Task<IHost> StartAsync(ITokenVerifier verifier, RouteTable table)
    {
        var host = Host.CreateDefaultBuilder()
            .ConfigureLogging(log => log.ClearProviders())
            .ConfigureWebHostDefaults(web => web
                .UseUrls("http://127.0.0.1:0")
                .ConfigureServices(services => services.AddSingleton(verifier))
                .Configure(app =>
                {
                    app.UsePatdRoutes(table);
                    app.Run(c => c.Response.WriteAsync(c.User.Identity.Name));
                }))
            .Build();
        await host.StartAsync();
        return host;
    }
}
