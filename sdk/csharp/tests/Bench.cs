using System;
using System.Diagnostics;
using System.Linq;
using System.Security.Cryptography;
using System.Threading;
using System.Threading.Tasks;
using Patd;

/// <summary>Measures a check from memory, on two threads, and memory after many different tokens.</summary>
internal static class Bench
{
    internal static async Task RunAsync(int tokens)
    {
        var stub = new Stub();
        using (var verifier = Together.Verifier(stub, 10000))
        {
            var known = Enumerable.Range(0, 1000).Select(_ => new FakePatd().Mint(new FakeToken(), out var id))
                .ToArray();
            foreach (var token in known)
            {
                await verifier.VerifyAsync(token);
            }

            while (!verifier.Stats().IsWatching)
            {
                await Task.Delay(10);
            }

            foreach (var token in known)
            {
                await verifier.VerifyAsync(token);
            }

            var asked = verifier.Stats().Asked;
            var call = new VerifyCall { Scopes = new[] { "reports.read" }, ClientIp = "192.0.2.7" };
            double Checks(int n) => Timed(n, i =>
            {
                if (!verifier.TryVerify(known[i % known.Length], call, out var r) || !r!.IsAllowed)
                {
                    throw new Exception("memory does not decide");
                }
            });
            Checks(100000);
            var check = Enumerable.Range(0, 7).Select(_ => Checks(200000)).OrderBy(t => t).ElementAt(3);
            var sha = new ThreadLocal<SHA256>(SHA256.Create);
            var text = new byte[109];
            var digest = Enumerable.Range(0, 7).Select(_ => Timed(200000, i => sha.Value!.ComputeHash(text)))
                .OrderBy(t => t).ElementAt(3);
            var fromMemory = verifier.Stats().Asked - asked;
            long tenth = 0;
            for (var i = 0; i < tokens; i++)
            {
                await verifier.VerifyAsync(new FakePatd().Mint(new FakeToken(), out _));
                tenth = i == tokens / 10 ? GC.GetTotalMemory(true) : tenth;
            }

            Console.WriteLine(
                $"{{\"check_us\":{check:F3},\"digest_us\":{digest:F3},\"asked_from_memory\":{fromMemory}," +
                $"\"tokens\":{tokens},\"entries\":{verifier.Stats().Entries},\"max_entries\":10000," +
                $"\"heap_at_tenth\":{tenth},\"heap_at_end\":{GC.GetTotalMemory(true)}}}");
        }
    }

    /// <summary>Returns the microseconds of one call, on two threads at once.</summary>
    private static double Timed(int n, Action<int> call)
    {
        var watch = Stopwatch.StartNew();
        Parallel.For(0, 2, new ParallelOptions { MaxDegreeOfParallelism = 2 }, thread =>
        {
            for (var i = 0; i < n; i++)
            {
                call(i);
            }
        });
        return watch.Elapsed.TotalMilliseconds * 1000 / n;
    }
}
