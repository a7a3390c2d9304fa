using System.Net.Http.Headers;
using System.Security.Claims;
using Microsoft.AspNetCore.Authentication.JwtBearer;
using Microsoft.AspNetCore.Authorization;

var builder = WebApplication.CreateBuilder(args);

builder.Services.AddAuthentication("bearer")
    .AddPolicyScheme("bearer", null, options => options.ForwardDefaultSelector = context =>
        context.Request.Headers.Authorization.ToString().StartsWith("Bearer pat_", StringComparison.OrdinalIgnoreCase)
            ? "patd"
            : JwtBearerDefaults.AuthenticationScheme)
    .AddOAuth2Introspection("patd", options =>
    {
        options.IntrospectionEndpoint = "https://patd.example.com:8080/oauth2/introspect";
        options.ClientId = "gateway";
        options.ClientSecret = builder.Configuration["Patd:GatewayToken"];
        options.NameClaimType = "sub";
        options.EnableCaching = false;
    })
    .AddJwtBearer(options =>
    {
        options.Authority = "https://login.example.com/";
        options.Audience = "https://api.example.com/";
        options.MapInboundClaims = false;
    });

static bool HasScope(AuthorizationHandlerContext context, string scope) =>
    context.User.FindAll("scope").Any(claim => claim.Value.Split(' ').Contains(scope));

builder.Services.AddAuthorization(options =>
{
    options.FallbackPolicy = new AuthorizationPolicyBuilder().RequireAuthenticatedUser().Build();
    options.AddPolicy("reports.read", policy => policy.RequireAssertion(context => HasScope(context, "reports.read")));
    options.AddPolicy("person", policy => policy
        .AddAuthenticationSchemes(JwtBearerDefaults.AuthenticationScheme).RequireAuthenticatedUser());
});

builder.Services.AddHttpClient("patd", client =>
{
    client.BaseAddress = new Uri("https://patd.example.com:8080");
    client.DefaultRequestHeaders.Authorization =
        new AuthenticationHeaderValue("Bearer", builder.Configuration["Patd:BackendToken"]);
    client.Timeout = TimeSpan.FromSeconds(10);
});

var app = builder.Build();
app.UseAuthentication();
app.UseAuthorization();

app.MapGet("/reports", (ClaimsPrincipal user) => $"reports of {user.FindFirstValue("sub")}")
    .RequireAuthorization("reports.read");

app.MapPost("/settings/tokens", async (NewToken wanted, ClaimsPrincipal user, IHttpClientFactory clients, CancellationToken cancel) =>
{
    var path = $"/v1/users/{Uri.EscapeDataString(user.FindFirstValue("sub")!)}/tokens";
    using var request = new HttpRequestMessage(HttpMethod.Post, path);
    request.Headers.Add("Idempotency-Key", wanted.RequestId.ToString());
    request.Content = JsonContent.Create(new { name = wanted.Name, scopes = wanted.Scopes, ttl = "7776000s" });
    using var response = await clients.CreateClient("patd").SendAsync(request, cancel);
    var body = await response.Content.ReadAsStringAsync(cancel);
    return Results.Text(body, "application/json", statusCode: (int)response.StatusCode);
}).RequireAuthorization("person");

app.Run();

record NewToken(Guid RequestId, string Name, string[] Scopes);
