using System;
using System.Collections.Generic;
using System.Linq;
using System.Net;
using System.Net.Http;
using System.Text;
using System.Threading;
using System.Threading.Tasks;
using Patd;
using Patd.Management;

/// <summary>The management client, without a patd.</summary>
internal static class Managing
{
    private const string Error = @"{""error"": {""code"": 400, ""status"": ""S"", ""message"": ""m"", ""details"": [
        {""@type"": ""type.googleapis.com/google.rpc.ErrorInfo"", ""reason"": ""SCOPE_NOT_HELD"", ""domain"": ""patd"",
         ""metadata"": {""a"": ""b""}},
        {""@type"": ""type.googleapis.com/google.rpc.BadRequest"",
         ""field_violations"": [{""field"": ""scopes"", ""description"": ""no""}]},
        {""@type"": ""type.googleapis.com/google.rpc.RequestInfo"", ""request_id"": ""r1""}]}}";

    /// <summary>Answers in turn, the last one for ever, and notes what it was sent.</summary>
    private sealed class Wire : HttpMessageHandler
    {
        internal readonly List<(string Call, string? Key, string? Match, string Body)> Sent =
            new List<(string, string?, string?, string)>();

        private readonly Queue<Func<HttpResponseMessage>> answers;

        internal Wire(params Func<HttpResponseMessage>[] answers) =>
            this.answers = new Queue<Func<HttpResponseMessage>>(answers);

        protected override async Task<HttpResponseMessage> SendAsync(HttpRequestMessage r, CancellationToken cancel)
        {
            Is.Same("Bearer pats_x", r.Headers.Authorization.ToString());
            string? Header(string name) => r.Headers.TryGetValues(name, out var all) ? all.Single() : null;
            Sent.Add((r.Method + " " + r.RequestUri.AbsoluteUri, Header("Idempotency-Key"), Header("If-Match"),
                r.Content == null ? "" : await r.Content.ReadAsStringAsync()));
            return (answers.Count > 1 ? answers.Dequeue() : answers.Peek())();
        }

        internal PatdManagement Client() => new PatdManagement(new PatdManagementOptions
        {
            Url = new Uri("https://patd.example.com/base/"), Token = ServiceToken.Of("pats_x\n"), Handler = this,
        });
    }

    private static Func<HttpResponseMessage> Answer(int status, string body) => () =>
        new HttpResponseMessage((HttpStatusCode)status) { Content = new StringContent(body, Encoding.UTF8) };

    private static HttpResponseMessage Lost() => throw new HttpRequestException("lost");

    private static async Task<PatdCallException> Fails(Func<Task> call)
    {
        try
        {
            await call();
        }
        catch (PatdCallException err)
        {
            return err;
        }

        throw new Exception("the call did not fail");
    }

    public static async Task ACallThatCreatesCarriesAKeyTheSameWhenItIsRepeated()
    {
        var wire = new Wire(Lost, Answer(503, "{}"), Answer(200, @"{""secret"": ""pat_s"", ""token"": {
            ""token_id"": ""i"", ""issue_time"": ""1970-01-01T00:00:01Z"", ""new_member"": 1}}"));
        var wanted = new CreateTokenRequest
        {
            Name = "n", Scopes = new[] { "reports.read" }, Ttl = TimeSpan.FromDays(90),
            RenewableUntil = DateTimeOffset.FromUnixTimeSeconds(0),
            Labels = new Dictionary<string, string> { ["a"] = "b" },
        };
        using (var patd = wire.Client())
        {
            var made = await patd.CreateTokenAsync("a/b ä", wanted);
            Is.Same("pat_s", made.Secret);
            Is.Same("CreateTokenResponse", made.ToString());
            Is.Same(DateTimeOffset.FromUnixTimeSeconds(1), made.Token!.IssueTime!.Value);
            Is.Same("", made.Token.Name);
            Is.Same(TimeSpan.FromDays(90), wanted.Ttl!.Value);
            await patd.CreateTokenAsync("alice", wanted);
        }

        Is.Same(4, wire.Sent.Count);
        Is.Same("POST https://patd.example.com/base/v1/users/a%2Fb%20%C3%A4/tokens", wire.Sent[0].Call);
        Is.Same(36, wire.Sent[0].Key!.Length);
        Is.True(wire.Sent[0].Key == wire.Sent[2].Key && wire.Sent[0].Key != wire.Sent[3].Key, "a key for each call");
        Is.Same(@"{""name"":""n"",""scopes"":[""reports.read""],""ttl"":""7776000s""," +
            @"""renewable_until"":""1970-01-01T00:00:00Z"",""labels"":{""a"":""b""}}", wire.Sent[0].Body);
    }

    public static async Task AChangeThatMayNotBeRepeatedIsSentOnceUnlessPatdRefusedItAsTooMuch()
    {
        foreach (var answer in new Func<HttpResponseMessage>[] { Lost, Answer(503, Error), Answer(504, Error) })
        {
            var once = new Wire(answer);
            await Fails(() => once.Client().CreateFeatureAsync(new CreateFeatureRequest { Name = "f" }));
            await Fails(() => once.Client().SuspendUserAsync("alice", options: new CallOptions { Etag = "\"1\"" }));
            Is.Same(2, once.Sent.Count);
            Is.Same("\"1\"", once.Sent[1].Match!);
        }

        var busy = new Wire(() =>
        {
            var response = Answer(429, Error)();
            response.Headers.TryAddWithoutValidation("Retry-After", "0");
            return response;
        }, Answer(200, @"{""name"": ""f""}"));
        Is.Same("f", (await busy.Client().CreateFeatureAsync(new CreateFeatureRequest { Name = "f" })).Name);
        Is.Same(2, busy.Sent.Count);
    }

    public static async Task AnErrorHasItsReasonAndARefusalIsNotRepeated()
    {
        var wire = new Wire(Answer(400, Error), Answer(404, "<html>"), Answer(200, "<html>"));
        using (var patd = wire.Client())
        {
            var err = await Fails(() => patd.CreateTokenAsync("alice"));
            Is.Same("SCOPE_NOT_HELD", err.Reason);
            Is.Same("400 S m r1 b scopes", string.Join(" ", err.HttpStatus, err.Status, err.Message, err.RequestId,
                err.Metadata["a"], err.Violations.Single().Field));
            Is.Same("", (await Fails(() => patd.WhoAmIAsync())).Reason);
            Is.Same("INTERNAL", (await Fails(() => patd.WhoAmIAsync())).Status);
        }

        Is.Same(3, wire.Sent.Count);
    }

    public static async Task PagesAreAskedForAsTheyAreNeeded()
    {
        var wire = new Wire(
            Answer(200, @"{""tokens"": [{""token_id"": ""1""}, {""token_id"": ""2""}], ""next_page_token"": ""p/2""}"),
            Answer(200, @"{""tokens"": [], ""next_page_token"": ""p3""}"),
            Answer(200, @"{""tokens"": [{""token_id"": ""3""}]}"));
        var seen = new List<string>();
        var query = new ListTokensQuery { PageSize = 2, Q = "a b" };
        await foreach (var token in wire.Client().ListTokensAsync("alice", query))
        {
            Is.True(seen.Count > 1 || wire.Sent.Count == 1, "a page is asked for when it is needed");
            seen.Add(token.TokenId);
        }

        Is.Same("1 2 3", string.Join(" ", seen));
        Is.True(wire.Sent[1].Call.EndsWith("/tokens?page_size=2&q=a%20b&page_token=p%2F2"), wire.Sent[1].Call);
    }

    public static async Task ATokenThatCannotBeReadIsACallThatFailed()
    {
        var wire = new Wire(Answer(200, "{}"));
        using (var patd = new PatdManagement(new PatdManagementOptions
        {
            Url = new Uri("https://patd.example.com"), Token = ServiceToken.FromFile("nowhere"), Handler = wire,
        }))
        {
            Is.Same("UNAUTHENTICATED", (await Fails(() => patd.WhoAmIAsync())).Status);
        }

        Is.Same(0, wire.Sent.Count);
    }

    public static void NoIdBecomesAnotherPath()
    {
        var wire = new Wire(Answer(200, "{}"));
        foreach (var user in new[] { "", ".", ".." })
        {
            Is.Throws<ArgumentException>(() => wire.Client().GetUserAsync(user).GetAwaiter().GetResult(), user);
        }

        Is.Same(0, wire.Sent.Count);
    }
}
