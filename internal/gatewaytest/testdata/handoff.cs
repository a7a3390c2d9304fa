app.MapPost("/my/patd-handoff", async (ClaimsPrincipal user, IHttpClientFactory clients, CancellationToken cancel) =>
{
    var path = $"/v1/users/{Uri.EscapeDataString(user.FindFirstValue("sub")!)}/page-sessions";
    using var answer = await clients.CreateClient("patd").PostAsJsonAsync(path, new { ttl = "900s" }, cancel);
    if (!answer.IsSuccessStatusCode) return Results.StatusCode(StatusCodes.Status503ServiceUnavailable);
    var handoff = await answer.Content.ReadFromJsonAsync<JsonElement>(cancel);
    return Results.Json(new { url = handoff.GetProperty("url").GetString() });
}).RequireAuthorization();
