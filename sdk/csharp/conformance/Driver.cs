// The program that puts the C# library through sdk/conformance.
using System;
using System.Collections.Generic;
using System.Globalization;
using System.Linq;
using System.Text;
using System.Threading.Tasks;
using Patd;

internal static class Driver
{
    private static TokenVerifier? verifier;
    private static long offset; // of the wall clock, in milliseconds
    private static Load? load;

    private static async Task Main()
    {
        var input = Console.In;
        var answers = new List<Task>();
        for (var line = await input.ReadLineAsync(); line != null; line = await input.ReadLineAsync())
        {
            var command = (Dictionary<string, object?>)Json.Read(line)!;
            if (Text(command, "do") == "configure")
            {
                await AnswerAsync(command); // before the checks that follow it
            }
            else
            {
                answers.RemoveAll(t => t.IsCompleted);
                answers.Add(Task.Run(() => AnswerAsync(command)));
            }
        }

        await LoadAsync(new Dictionary<string, object?>());
        verifier?.Dispose();
    }

    private static async Task AnswerAsync(Dictionary<string, object?> command)
    {
        Dictionary<string, object?> answer;
        try
        {
            answer = await RunAsync(command);
        }
        catch (PatdFaultException fault)
        {
            answer = new Dictionary<string, object?>
                { ["error"] = fault.Kind.ToString().ToLowerInvariant(), ["message"] = fault.Message };
        }

        answer["id"] = Number(command, "id");
        var text = Encoding.UTF8.GetString(Json.Write(answer));
        lock (Console.Out)
        {
            Console.Out.WriteLine(text);
            Console.Out.Flush();
        }
    }

    private static async Task<Dictionary<string, object?>> RunAsync(Dictionary<string, object?> c)
    {
        var ok = new Dictionary<string, object?> { ["ok"] = true };
        switch (Text(c, "do"))
        {
            case "hello":
                return new Dictionary<string, object?>
                {
                    ["protocol"] = 1, ["library"] = "Patd for C#", ["speaks"] = "http",
                        ["can"] = new[] { "clock", "key", "load" },
                };
            case "configure":
                verifier?.Dispose();
                offset = Number(c, "clock_ms");
                verifier = new TokenVerifier(Options(c));
                return ok;
            case "check":
                return await CheckAsync(c);
            case "status":
                var stats = Verifier().Stats();
                return new Dictionary<string, object?>
                {
                    ["watching"] = stats.IsWatching, ["entries"] = stats.Entries, ["dropped_uses"] = stats.DroppedUses,
                };
            case "load":
                return await LoadAsync(c);
            case "clock":
                System.Threading.Interlocked.Exchange(ref offset, Number(c, "wall_ms"));
                return ok;
            case "form":
                return new Dictionary<string, object?> { ["plausible"] = TokenForm.IsPlausible(Text(c, "token")) };
            case "key":
                var address = ClientAddress.Read(Text(c, "ip"));
                return new Dictionary<string, object?>
                {
                    ["everywhere"] = Hex(MemoryKeys.Material(Text(c, "token"), Text(c, "audience"))),
                        ["address"] = Hex(address?.Bytes),
                };
            case "close":
                if (verifier != null)
                {
                    await verifier.CloseAsync();
                }

                return ok;
            default:
                return new Dictionary<string, object?> { ["error"] = "unsupported" };
        }
    }

    private static TokenVerifier Verifier() =>
        verifier ?? throw new PatdFaultException(FaultKind.Closed, "there is no verifier");

    private static TokenVerifierOptions Options(Dictionary<string, object?> c)
    {
        var options = new TokenVerifierOptions
        {
            Url = new Uri(Text(c, "http")),
            Token = ServiceToken.Of(Text(c, "token")),
            Audience = Text(c, "audience"),
            ReportEvery = TimeSpan.FromMilliseconds(Number(c, "report_every_ms")),
            Now = () => DateTimeOffset.UtcNow.AddMilliseconds(System.Threading.Interlocked.Read(ref offset)),
            Log = (message, err) => Console.Error.WriteLine(message + ": " + err),
        };
        if (Number(c, "max_age_ms") is var age && age > 0)
        {
            options.MaxAge = TimeSpan.FromMilliseconds(age);
        }

        if (Number(c, "timeout_ms") is var timeout && timeout > 0)
        {
            options.Timeout = TimeSpan.FromMilliseconds(timeout);
        }

        if (Number(c, "max_entries") is var entries && entries > 0)
        {
            options.MaxEntries = (int)entries;
        }

        return options;
    }

    private static async Task<Dictionary<string, object?>> CheckAsync(Dictionary<string, object?> c)
    {
        var scopes = c.TryGetValue("scopes", out var list) && list is List<object?> names
            ? names.Cast<string>().ToList() : null;
        var r = await Verifier().VerifyAsync(
            Text(c, "token"), new VerifyCall { Scopes = scopes, Audience = Text(c, "audience"),
                ClientIp = Text(c, "ip") });
        return new Dictionary<string, object?>
        {
            ["decision"] = r.Decision.Name(), ["reason"] = r.Decision.Reason(), ["token_id"] = r.Token?.Id,
                ["user"] = r.Token?.User,
            ["scopes"] = r.Token?.Scopes, ["missing"] = r.MissingScopes,
        };
    }

    /// <summary>Ends the load that there is, and begins another one if a command has loops.</summary>
    private static async Task<Dictionary<string, object?>> LoadAsync(Dictionary<string, object?> c)
    {
        var before = load;
        load = null;
        if (before != null)
        {
            await before.EndAsync();
        }

        if (verifier != null && Number(c, "loops") is var loops && loops > 0)
        {
            load = new Load(verifier, Texts(c, "tokens"), new VerifyCall { Scopes = Texts(c, "scopes") }, (int)loops);
        }

        return new Dictionary<string, object?>
            { ["ok"] = true, ["checks"] = before?.Checks ?? 0, ["refused"] = before?.Refused ?? 0 };
    }

    private static List<string> Texts(Dictionary<string, object?> c, string name) =>
        c.TryGetValue(name, out var list) && list is List<object?> texts ? texts.Cast<string>().ToList()
            : new List<string>();

    private static string? Hex(byte[]? bytes) =>
        bytes == null ? null : BitConverter.ToString(bytes).Replace("-", "").ToLowerInvariant();

    private static string Text(Dictionary<string, object?> c, string name) =>
        c.TryGetValue(name, out var value) ? value as string ?? "" : "";

    private static long Number(Dictionary<string, object?> c, string name) =>
        c.TryGetValue(name, out var value) && value is JsonNumber n
            ? (long)double.Parse(n.Text, CultureInfo.InvariantCulture) : 0;
}
