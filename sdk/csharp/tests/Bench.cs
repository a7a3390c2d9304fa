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
        using (var verifier = new TokenVerifier(new TokenVerifierOptions
        {
            Url = new Uri("http://127.0.0.1:1"), Token = ServiceToken.Of("pats_x"), Handler = stub,
            MaxEntries = 10000, MaxAge = TimeSpan.FromHours(1),
        }))
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

            var call = new VerifyCall { Scopes = new[] { "reports.read" }, ClientIp = "192.0.2.7" };
            (double, double) Checks(int n) => Timed(n, i =>
            {
                if (!verifier.TryVerify(known[i % known.Length], call, out var r))
                {
                    r = verifier.VerifyAsync(known[i % known.Length], call).GetAwaiter().GetResult();
                }

                if (!r!.IsAllowed)
                {
                    throw new Exception("the token is refused");
                }
            });
            Checks(100000);
            var tries = 0;
            var (check, cpu) = Median(() =>
            {
                // On a busy machine the watch may be late, and memory closed: that round does not count.
                for (; tries < 50; tries++)
                {
                    var asked = verifier.Stats().Asked;
                    var round = Checks(200000);
                    if (verifier.Stats().Asked == asked)
                    {
                        return round;
                    }
                }

                throw new Exception("memory does not decide");
            });
            VerifyResult? result = null;
            var allocated = Enumerable.Range(0, 100)
                .Min(_ => Allocated(() => verifier.TryVerify(known[0], call, out result)));
            var sha = new ThreadLocal<SHA256>(SHA256.Create);
            var text = new byte[109];
            var (digest, digestCpu) = Median(() => Timed(200000, i => sha.Value!.ComputeHash(text)));
            stub.Refuses = true;
            long tenth = 0;
            for (var i = 0; i < tokens; i++)
            {
                await verifier.VerifyAsync(new FakePatd().Mint(new FakeToken(), out _));
                tenth = i == tokens / 10 ? GC.GetTotalMemory(true) : tenth;
            }

            Console.WriteLine(
                $"{{\"check_us\":{check:F3},\"check_cpu_us\":{cpu:F3},\"check_bytes\":{allocated}," +
                $"\"digest_us\":{digest:F3},\"digest_cpu_us\":{digestCpu:F3},\"rounds_that_asked\":{tries}," +
                $"\"tokens\":{tokens},\"entries\":{verifier.Stats().Entries},\"max_entries\":10000," +
                $"\"heap_at_tenth\":{tenth},\"heap_at_end\":{GC.GetTotalMemory(true)}}}");
        }
    }

    /// <summary>Returns how many bytes a call allocates.</summary>
    private static long Allocated(Action call)
    {
        var before = GC.GetAllocatedBytesForCurrentThread();
        call();
        return GC.GetAllocatedBytesForCurrentThread() - before;
    }

    /// <summary>Returns the middle one of seven, by the clock and of CPU time.</summary>
    private static (double Clock, double Cpu) Median(Func<(double Clock, double Cpu)> timed)
    {
        var all = Enumerable.Range(0, 7).Select(_ => timed()).ToList();
        double Middle(Func<(double Clock, double Cpu), double> of) => all.Select(of).OrderBy(t => t).ElementAt(3);
        return (Middle(t => t.Clock), Middle(t => t.Cpu));
    }

    /// <summary>
    /// Returns the microseconds of one call, on two threads at once: by the clock of one thread, and of CPU time.
    /// </summary>
    private static (double Clock, double Cpu) Timed(int n, Action<int> call)
    {
        var process = Process.GetCurrentProcess();
        var before = process.TotalProcessorTime;
        var watch = Stopwatch.StartNew();
        Parallel.For(0, 2, new ParallelOptions { MaxDegreeOfParallelism = 2 }, thread =>
        {
            for (var i = 0; i < n; i++)
            {
                call(i);
            }
        });
        var clock = watch.Elapsed;
        process.Refresh();
        return (clock.TotalMilliseconds * 1000 / n, (process.TotalProcessorTime - before).TotalMilliseconds * 500 / n);
    }
}
