using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.Linq;
using System.Threading;
using System.Threading.Tasks;
using Patd;
using Patd.Management;

/// <summary>
/// Measures how long a token that is revoked still passes, from when patd is asked to revoke it and from when it has
/// done so, while two threads check other tokens all the time. It needs a patd: PATD_URL and PATD_TOKEN_FILE as
/// <c>patd dev</c> prints them.
/// </summary>
internal static class RevokeBench
{
    private static readonly string[] Scopes = { "reports.read" };

    internal static async Task RunAsync(int times)
    {
        var url = new Uri(Environment.GetEnvironmentVariable("PATD_URL")!);
        var token = ServiceToken.FromFile(Environment.GetEnvironmentVariable("PATD_TOKEN_FILE")!);
        using (var patd = new PatdManagement(new PatdManagementOptions { Url = url, Token = token }))
        using (var verifier = new TokenVerifier(new TokenVerifierOptions { Url = url, Token = token }))
        {
            var others = new List<string>();
            while (others.Count < 20)
            {
                others.Add((await Mint(patd)).Secret);
            }

            long checks = 0;
            var stop = false;
            var threads = Enumerable.Range(0, 2).Select(_ => new Thread(() =>
            {
                var call = new VerifyCall { Scopes = Scopes };
                while (!Volatile.Read(ref stop))
                {
                    foreach (var known in others)
                    {
                        verifier.VerifyAsync(known, call).GetAwaiter().GetResult();
                    }

                    Interlocked.Add(ref checks, others.Count);
                }
            })).ToList();
            threads.ForEach(t => t.Start());
            var asked = new List<double>();
            var done = new List<double>();
            while (done.Count < times)
            {
                var made = await Mint(patd);
                for (long before = -1; before != verifier.Stats().Asked;) // until memory decides
                {
                    before = verifier.Stats().Asked;
                    await verifier.VerifyAsync(made.Secret);
                }

                var sinceAsked = Stopwatch.StartNew();
                await patd.RevokeTokenAsync("demo", made.Token!.TokenId);
                var sinceDone = Stopwatch.StartNew();
                while ((await verifier.VerifyAsync(made.Secret)).IsAllowed)
                {
                    Thread.Sleep(1);
                }

                asked.Add(sinceAsked.Elapsed.TotalMilliseconds);
                done.Add(sinceDone.Elapsed.TotalMilliseconds);
            }

            Volatile.Write(ref stop, true);
            threads.ForEach(t => t.Join());
            Console.WriteLine($"{{\"times\":{times},\"checks_meanwhile\":{checks},{Summary("request", asked)}," +
                $"{Summary("answer", done)}}}");
        }
    }

    private static Task<CreateTokenResponse> Mint(PatdManagement patd) =>
        patd.CreateTokenAsync("demo", new CreateTokenRequest { Name = "revoke " + Guid.NewGuid(), Scopes = Scopes });

    private static string Summary(string from, List<double> all)
    {
        all.Sort();
        return string.Join(",", new[] { 50, 99, 100 }.Select(p =>
            $"\"p{p}_ms_from_{from}\":{all[Math.Min(all.Count - 1, all.Count * p / 100)]:F1}"));
    }
}
