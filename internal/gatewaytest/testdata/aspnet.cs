builder.Services.AddAuthentication(OAuth2IntrospectionDefaults.AuthenticationScheme)
    .AddOAuth2Introspection(options =>
    {
        options.IntrospectionEndpoint = "https://patd.example.com:8080/oauth2/introspect";
        options.ClientId = "gateway";
        options.ClientSecret = builder.Configuration["Patd:Token"];
        options.NameClaimType = "sub";
        options.EnableCaching = false;
    });
builder.Services.AddAuthorization(options =>
{
    options.FallbackPolicy = new AuthorizationPolicyBuilder().RequireAuthenticatedUser().Build();
    options.AddPolicy("reports.read", policy => policy.RequireClaim("scope", "reports.read"));
});
