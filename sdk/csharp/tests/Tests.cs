// The tests of the library that need no patd. NuGet's test frameworks are not at hand where they run, so they are
// methods that
// throw.
using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Net;
using System.Net.Http;
using System.Reflection;
using System.Text;
using System.Threading;
using System.Threading.Tasks;
using Patd;

internal static class Tests
{
    private static async Task<int> Main(string[] args)
    {
        if (args.Length > 0 && args[0] == "bench")
        {
            await Bench.RunAsync(int.Parse(args[1]));
            return 0;
        }

        var failed = 0;
        var all = new[]
        {
            typeof(Parts), typeof(Guards), typeof(Managing), typeof(Routes), typeof(Web), typeof(Together),
            typeof(Acknowledging),
        }
            .SelectMany(t => t.GetMethods(BindingFlags.Static | BindingFlags.Public | BindingFlags.DeclaredOnly));
        foreach (var test in all)
        {
            try
            {
                if (test.Invoke(null, null) is Task task)
                {
                    await task;
                }

                Console.WriteLine("ok   " + test.Name);
            }
            catch (Exception err)
            {
                failed++;
                Console.WriteLine("FAIL " + test.Name + ": " +
                    (err is TargetInvocationException ? err.InnerException : err));
            }
        }

        return failed == 0 ? 0 : 1;
    }
}

internal static class Is
{
    internal static void Same<T>(T want, T got, string what = "")
    {
        if (!EqualityComparer<T>.Default.Equals(want, got))
        {
            throw new Exception(what + ": got " + got + ", want " + want);
        }
    }

    internal static void True(bool so, string what)
    {
        if (!so)
        {
            throw new Exception("not so: " + what);
        }
    }

    internal static void Throws<T>(Action act, string what)
        where T : Exception
    {
        try
        {
            act();
        }
        catch (T)
        {
            return;
        }

        throw new Exception("nothing was thrown: " + what);
    }
}

internal static class Parts
{
    private static readonly DateTimeOffset Wall = new DateTimeOffset(2026, 12, 1, 0, 0, 0, TimeSpan.Zero);

    public static void ThePaceOfEventsSaysWhatIsKnown()
    {
        var begun = new Pace(At(1000));
        Known(At(1000), begun.Event(At(1900), Ms(0), true, true)); // a start-over is as old as the request
        Known(At(2900), begun.Event(At(2900), Ms(0), true, false));
        Known(At(4150), begun.Event(At(4950), Ms(0), false, false)); // a heartbeat was held up
        var resumed = new Pace(At(1000));
        Is.True(resumed.Event(At(1010), Ms(0), false, false) == null, "news that was missed opens nothing");
        Is.True(resumed.Event(At(1500), Ms(490), false, false) == null, "nor more of it");
        Known(At(1900), resumed.Event(At(2010), Ms(900), false, false));
        var held = new Pace(At(1000));
        Is.True(held.Event(At(1300), Ms(0), true, false) == null, "others wait in the same pipe");
        Known(At(2100), held.Event(At(3400), Ms(1100), true, false));
        Is.Same(Ms(1300), held.Behind);
        var asleep = new Pace(At(1000));
        asleep.Event(At(1010), Ms(0), true, false);
        Known(new Instant(Ms(2000), Wall + Ms(48000)),
            asleep.Event(new Instant(Ms(2000), Wall + Ms(48000)), Ms(47000), true, false));
        var ahead = new Pace(At(1000));
        ahead.Event(At(1010), Ms(0), true, false);
        ahead.Event(new Instant(Ms(2000), Wall + Ms(90000)), Ms(1000), true, false);
        Is.Same(Ms(88000), ahead.Behind, "when it asked is no longer a time of this clock");
    }

    public static async Task EventsAreReadWhateverTheChunks()
    {
        var text = "\ufeff: a comment\r\nevent: a\rdata: {\"x\":\ndata:1}\r\n\r\n" +
            "id: 7\nretry: 5\n\ndata\n\nevent: lost\ndata: y";
        var bytes = Encoding.UTF8.GetBytes(text);
        for (var size = 1; size <= bytes.Length; size++)
        {
            var events = new EventReader(new Slow(bytes, size));
            Is.True(await events.NextAsync(CancellationToken.None), "an event");
            Is.Same("a|{\"x\":\n1}", events.Type + "|" + events.Data, "chunks of " + size);
            Is.True(await events.NextAsync(CancellationToken.None), "another");
            Is.Same("message|", events.Type + "|" + events.Data, "chunks of " + size);
            Is.True(!await events.NextAsync(CancellationToken.None), "what no empty line ended is no event");
        }

        var endless = new EventReader(new MemoryStream(Enumerable.Repeat((byte)'x', 5 << 20).ToArray()));
        try
        {
            await endless.NextAsync(CancellationToken.None);
        }
        catch (PatdFaultException)
        {
            return;
        }

        throw new Exception("an event without an end is read");
    }

    public static void TablesAreBounded()
    {
        var left = 0;
        var table = new AnswerTable(100, 1 << 30, e => left++);
        var first = Entry(0);
        table.Put(first);
        for (var i = 1; i < 1000; i++)
        {
            table.Put(Entry(i));
            table.Hit(table.Get(first.Key)!); // it is used, and stays
        }

        Is.Same(100, table.Size, "entries");
        Is.Same(900, left, "those that left");
        Is.True(ReferenceEquals(table.Get(first.Key), first), "the one that was used is still there");
        var narrow = new AnswerTable(100, 3 * first.Bytes, e => { });
        for (var i = 0; i < 10; i++)
        {
            narrow.Put(Entry(i));
        }

        Is.Same(3, narrow.Size, "entries by their bytes");
    }

    public static void AnswersFromBeforeAChangeAreNotKept()
    {
        var memory = new AnswerMemory(100, 1 << 20);
        memory.Known(At(0));
        memory.Apply(new News(50, true, new string[0], new string[0]), true);
        var late = Entry(1);
        memory.Apply(new News(60, false, new[] { late.Token!.Id }, new string[0]), false);
        Is.True(memory.Keep(late, memory.Epoch, 59), "it is outdated");
        Is.True(memory.Recall(late.Key, At(1)) == null, "and not kept");
        Is.True(!memory.Keep(late, memory.Epoch, 60), "one from after it is not");
        Is.True(memory.Recall(late.Key, At(1)) != null, "and is kept");
        Is.True(memory.Recall(late.Key, At(3000)) == null, "but not used 3 seconds after the last event");
        memory.Apply(new News(61, false, new string[0], new[] { late.Token.User }), false);
        Is.True(memory.Recall(late.Key, At(1)) == null, "nor after a change of its user");
        var early = Entry(2);
        var before = memory.Epoch;
        memory.Resumed(61);
        Is.True(memory.Keep(early, before, 62), "one that was asked for before the watch resumed is outdated");
    }

    public static void NumbersAndTimesAreRead()
    {
        object? Body(string expires, string time) => Json.Read(
            "{\"active\":true,\"decision\":\"ALLOW\",\"token_id\":\"t\",\"user\":\"u\",\"scopes\":[\"b\",\"a\"]," +
            "\"sequence\":\"18446744073709551615\"," +
            "\"expires_in\":" + expires + ",\"expire_time\":" + time + "}");
        var answer = Answer.Read(Body("\"1.5s\"", "\"2026-12-01T00:00:00.123456789Z\""), Ms(0), TimeSpan.FromDays(1));
        Is.Same(ulong.MaxValue, answer.Sequence);
        Is.True(answer.Entry.IsSound(new Instant(Ms(1499), Wall))
            && !answer.Entry.IsSound(new Instant(Ms(1500), Wall)), "expires_in counts");
        Is.Same(new DateTimeOffset(2026, 12, 1, 0, 0, 0, TimeSpan.Zero).AddTicks(1234567),
            answer.Entry.Token!.ExpireTime!.Value);
        foreach (var bad in new[] { "1.5", "\"1.5\"", "\"s\"", "{}", "\"1e400s\"", "\"NaNs\"" })
        {
            Is.Throws<PatdFaultException>(() => Answer.Read(Body(bad, "null"), Ms(0), Ms(1)), bad);
        }

        Is.Throws<PatdFaultException>(() => Answer.Read(Body("null", "\"soon\""), Ms(0), Ms(1)), "a time that is none");
        foreach (var bad in new[] { "[]", "null", "{", "{\"active\":true,\"decision\":\"REVOKED\"}",
            "{\"active\":false,\"decision\":\"ALLOW\"}", "{\"decision\":\"ALLOW\"}",
            "{\"active\":true,\"decision\":\"ALLOW\"}", new string('[', 100000) })
        {
            Is.Throws<PatdFaultException>(() => Answer.Read(Json.Read(bad), Ms(0), Ms(1)), bad);
        }
    }

    public static void AddressesAreAddresses()
    {
        foreach (var bad in new[] { "1", "1.2.3", "01.2.3.4", "1.2.3.256", "[::1]", "::1]:80", "1.2.3.4:80",
            "1.2.3.4%eth0", "::1%", "0x7f.1", "x", "::1.2.3" })
        {
            Is.Throws<PatdFaultException>(() => ClientAddress.Read(bad), bad);
        }

        Is.Same("192.0.2.7", ClientAddress.Read("::ffff:192.0.2.7")!.Text);
        Is.Same("fe80::1", ClientAddress.Read("fe80::1%eth0")!.Text);
        Is.True(ClientAddress.Read("")! == null, "no address is an unknown one");
    }

    public static void PlainHttpIsForThisMachineOnly()
    {
        TokenVerifierOptions Options(string url) =>
            new TokenVerifierOptions { Url = new Uri(url), Token = ServiceToken.Of("pats_x"), Handler = new Stub() };
        foreach (var bad in new[] { "http://patd.example.com", "https://user:pw@patd.example.com",
            "https://patd.example.com/?a=b", "ftp://localhost" })
        {
            Is.Throws<ArgumentException>(() => new TokenVerifier(Options(bad)), bad);
        }

        foreach (var good in new[] { "http://127.0.0.1:8080", "http://localhost:8080/", "http://[::1]:80",
            "https://patd.example.com/base/" })
        {
            new TokenVerifier(Options(good)).Dispose();
        }
    }

    internal static Entry Entry(int i) =>
        new Entry(Decision.Allow, new VerifiedToken("token" + i, "user" + i), TimeSpan.FromDays(1))
    {
        Key = new MemoryKey((ulong)i, (ulong)i),
    };

    private static TimeSpan Ms(int ms) => TimeSpan.FromMilliseconds(ms);

    private static Instant At(int ms) => new Instant(Ms(ms), Wall + Ms(ms));

    private static void Known(Instant want, Instant? got)
    {
        Is.Same(want.Mono, got!.Value.Mono, "monotonic");
        Is.Same(want.Wall, got.Value.Wall, "wall");
    }

    /// <summary>A stream that returns few bytes at a time.</summary>
    private sealed class Slow : MemoryStream
    {
        private readonly int most;

        internal Slow(byte[] bytes, int most)
            : base(bytes) => this.most = most;

        public override Task<int> ReadAsync(byte[] into, int at, int n, CancellationToken cancel) =>
            Task.FromResult(Read(into, at, Math.Min(n, most)));
    }
}

internal static class Guards
{
    public static async Task AGuardRefusesAsTheStandardSays()
    {
        var patd = new FakePatd();
        var good = patd.Mint(new FakeToken { Scopes = new[] { "reports.read" },
            ExpireTime = DateTimeOffset.UtcNow.AddDays(1) }, out var id);
        var guard = new TokenGuard(patd,
            new TokenGuardOptions { Realm = "re\"ports", RenewUrl = "https://example.com/tokens" });
        Task<GuardOutcome> Ask(params string[] headers) => guard.DecideAsync(headers, new[] { "reports.read" }, null);

        var passed = await Ask("bearer   " + good);
        Is.True(passed.Passes && passed.Result!.Token!.User == "alice", "it passes");
        Is.Same("https://example.com/tokens", passed.Headers["Patd-Token-Renew"]);
        var none = await Ask();
        Is.Same(401, none.Status);
        Is.Same("Bearer realm=\"re'ports\"", none.Headers["WWW-Authenticate"]);
        Is.Same(401, (await Ask("Basic " + good)).Status);
        Is.Same(401, (await Ask("Bearer")).Status);
        Is.Same(400, (await Ask("Bearer " + good, "Bearer " + good)).Status);
        Is.Same(400, (await Ask("Bearer " + good + ",Bearer x")).Status);
        var lacks = await Ask("Bearer " + patd.Mint(new FakeToken(), out _));
        Is.Same(403, lacks.Status);
        Is.Same(
            "{\"error\":\"insufficient_scope\",\"error_description\":\"the token was not granted reports.read\"," +
            "\"reason\":\"SCOPE_INSUFFICIENT\",\"missing_scopes\":[\"reports.read\"]}",
            Encoding.UTF8.GetString(lacks.Body!));
        patd.Revoke(id);
        var revoked = await Ask("Bearer " + good);
        Is.Same(401, revoked.Status);
        var challenge = "error=\"invalid_token\", error_description=\"the token was revoked\"";
        Is.True(revoked.Headers["WWW-Authenticate"].Contains(challenge), "it says why");
        Is.True(Encoding.UTF8.GetString(revoked.Body!).Contains("TOKEN_REVOKED"), "by reason too");
        patd.Outage();
        var down = await Ask("Bearer " + good);
        Is.Same(503, down.Status, "an outage is no decision");
        Is.True(!down.Headers.ContainsKey("WWW-Authenticate"), "nor a challenge");
    }

    public static async Task AFakeDecidesAsPatdDoes()
    {
        var now = DateTimeOffset.UtcNow;
        var patd = new FakePatd("reports", () => now);
        var token = patd.Mint(
            new FakeToken { User = "bob", Audiences = new[] { "reports" }, ClientIps = new[] { "192.0.2.7" },
                ExpireTime = now.AddHours(1) }, out var id);
        async Task<Decision> Decide(string? audience = null, string? ip = "192.0.2.7") =>
            (await patd.VerifyAsync(token, new VerifyCall { Audience = audience, ClientIp = ip })).Decision;
        Is.Same(Decision.Allow, await Decide());
        Is.Same(Decision.AudienceMismatch, await Decide("billing"));
        Is.Same(Decision.IpNotAllowed, await Decide(null, null));
        patd.Suspend("bob");
        Is.Same(Decision.UserSuspended, await Decide());
        patd.Suspend("bob", false);
        now = now.AddHours(1);
        Is.Same(Decision.Expired, await Decide());
        patd.Revoke(id);
        Is.Same(Decision.Revoked, await Decide());
        Is.Same(Decision.NotFound, (await patd.VerifyAsync("made-up")).Decision);
        Is.Same(1, patd.Uses.Count);
    }
}

/// <summary>Many threads, and a patd that is a method.</summary>
internal static class Together
{
    public static async Task ManyThreadsShareOneRequest()
    {
        var stub = new Stub { Delay = 50 };
        using (var verifier = Verifier(stub))
        {
            var token = new FakePatd().Mint(new FakeToken(), out _);
            await Task.WhenAll(Enumerable.Range(0, 200).Select(_ => Task.Run(async () =>
                Is.True((await verifier.VerifyAsync(token)).IsAllowed, "it passes"))));
            Is.True(stub.Asked < 50, "200 checks sent " + stub.Asked + " requests");
        }
    }

    public static async Task ACheckThatGivesUpEndsNoOther()
    {
        var stub = new Stub { Delay = 300 };
        using (var verifier = Verifier(stub))
        using (var cancel = new CancellationTokenSource())
        {
            var token = new FakePatd().Mint(new FakeToken(), out _);
            var first = verifier.VerifyAsync(token, null, cancel.Token);
            var second = verifier.VerifyAsync(token);
            cancel.Cancel();
            try
            {
                await first;
                throw new Exception("it did not give up");
            }
            catch (OperationCanceledException)
            {
                Is.True((await second).IsAllowed, "the other passes");
            }
        }
    }

    public static async Task ClosingEndsWhatWaits()
    {
        var stub = new Stub { Delay = 60000 };
        var verifier = Verifier(stub);
        var waits = verifier.VerifyAsync(new FakePatd().Mint(new FakeToken(), out _));
        await verifier.CloseAsync();
        await verifier.CloseAsync();
        foreach (var check in new[] { waits, verifier.VerifyAsync("x") })
        {
            try
            {
                await check;
                throw new Exception("a check of a closed verifier has a decision");
            }
            catch (PatdFaultException fault)
            {
                Is.Same(FaultKind.Closed, fault.Kind);
            }
        }
    }

    public static async Task AWatchThatIsRefusedLeavesMemoryClosed()
    {
        var stub = new Stub { Watch = false };
        using (var verifier = Verifier(stub))
        {
            var token = new FakePatd().Mint(new FakeToken(), out _);
            for (var i = 0; i < 3; i++)
            {
                await verifier.VerifyAsync(token);
            }

            Is.Same(3L, verifier.Stats().Asked);
            Is.True(!verifier.Stats().IsWatching, "nothing is watched");
        }
    }

    internal static TokenVerifier Verifier(Stub stub, int entries = 1000) => new TokenVerifier(new TokenVerifierOptions
    {
        Url = new Uri("http://127.0.0.1:1"), Token = ServiceToken.Of("pats_x"), Handler = stub, MaxEntries = entries,
            ReportEvery = TimeSpan.Zero,
    });
}

/// <summary>A patd without a network: every token is active, and nothing changes.</summary>
internal sealed class Stub : HttpMessageHandler
{
    internal int Asked;

    internal int Delay { get; set; }

    internal bool Watch { get; set; } = true;

    /// <summary>Makes the events of a watch, in place of a heartbeat each second.</summary>
    internal Func<Stream>? Feed { get; set; }

    /// <summary>Answers an acknowledgement.</summary>
    internal Func<string, CancellationToken, Task<HttpStatusCode>>? Acknowledge { get; set; }

    /// <summary>Every other token is unknown.</summary>
    internal bool Refuses { get; set; }

    protected override async Task<HttpResponseMessage> SendAsync(HttpRequestMessage request, CancellationToken cancel)
    {
        if (request.Method == HttpMethod.Get)
        {
            if (!Watch)
            {
                return new HttpResponseMessage(HttpStatusCode.Forbidden);
            }

            var events = new HttpResponseMessage { Content = new StreamContent(Feed?.Invoke() ?? new Beats()) };
            events.Content.Headers.TryAddWithoutValidation("Content-Type", "text/event-stream");
            return events;
        }

        if (request.RequestUri.AbsolutePath == "/v1/invalidations:acknowledge")
        {
            var status = await Acknowledge!(await request.Content.ReadAsStringAsync(), cancel);
            return new HttpResponseMessage(status) { Content = new StringContent("{}") };
        }

        var n = Interlocked.Increment(ref Asked);
        await Task.Delay(Delay, cancel);
        if (Refuses && n % 2 == 0)
        {
            return new HttpResponseMessage
                { Content = new StringContent("{\"active\":false,\"decision\":\"NOT_FOUND\"}") };
        }

        return new HttpResponseMessage
        {
            Content = new StringContent(
                "{\"active\":true,\"decision\":\"ALLOW\",\"token_id\":\"t" + n +
                    "\",\"user\":\"u" + n + "\",\"scopes\":[\"reports.read\"],\"any_client_ip\":true,\"sequence\":\"7\"}"),
        };
    }

    /// <summary>A heartbeat each second.</summary>
    private sealed class Beats : MemoryStream
    {
        private readonly DateTime began = DateTime.UtcNow;
        private bool first = true;

        public override async Task<int> ReadAsync(byte[] into, int at, int n, CancellationToken cancel)
        {
            await Task.Delay(first ? 0 : 1000, cancel);
            var ms = first ? 0 : (int)(DateTime.UtcNow - began).TotalMilliseconds;
            var text = "event: " + (first ? "start-over" : "heartbeat") +
                "\ndata: {\"sequence\":\"7\",\"history\":\"h\",\"elapsed_ms\":" + ms + "}\n\n";
            first = false;
            return Encoding.UTF8.GetBytes(text, 0, text.Length, into, at);
        }
    }
}
