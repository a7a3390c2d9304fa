using System.Collections.Generic;
using System.Linq;
using System.Threading;
using System.Threading.Tasks;
using Patd;

/// <summary>Loops of checks without a pause.</summary>
internal sealed class Load
{
    private readonly Task[] loops;
    private volatile bool over;
    private long checks;
    private long refused;

    internal Load(TokenVerifier verifier, List<string> tokens, VerifyCall call, int loops)
    {
        this.loops = Enumerable.Range(0, loops)
            .Select(i => Task.Factory.StartNew(() => LoopAsync(verifier, tokens, call, i),
                CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default).Unwrap())
            .ToArray();
    }

    internal long Checks => Interlocked.Read(ref checks);

    internal long Refused => Interlocked.Read(ref refused);

    internal async Task EndAsync()
    {
        over = true;
        await Task.WhenAll(loops);
    }

    private async Task LoopAsync(TokenVerifier verifier, List<string> tokens, VerifyCall call, int i)
    {
        long n = 0;
        for (; !over; i = (i + 1) % tokens.Count)
        {
            n++;
            try
            {
                if (!(await verifier.VerifyAsync(tokens[i], call)).IsAllowed)
                {
                    Interlocked.Increment(ref refused);
                }
            }
            catch (PatdFaultException)
            {
                // patd is out
            }
        }

        Interlocked.Add(ref checks, n);
    }
}
