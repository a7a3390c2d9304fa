using System;
using System.Collections.Generic;
using System.Globalization;
using System.Linq;
using System.Threading;
using System.Threading.Tasks;

namespace Patd
{
    /// <summary>The uses of a token since they were last reported.</summary>
    internal sealed class Usage
    {
        /// <summary>A token whose programs need more scopes than this, or longer ones, counts as used in any.</summary>
        private const int MaxScopes = 4, MaxScope = 128;

        private readonly List<string> scopes = new List<string>(1);
        private bool unscoped; // some uses named no scope, or there were too many
        private bool queued;

        internal Usage(string tokenId) => TokenId = tokenId;

        internal string TokenId { get; }

        internal DateTimeOffset Time { get; private set; }

        private string? Ip { get; set; }

        /// <summary>Notes a use. Returns true if it is the first since the last report.</summary>
        internal bool Note(string? ip, IReadOnlyList<string>? required, DateTimeOffset time)
        {
            lock (this)
            {
                var first = !queued;
                queued = true;
                Time = time;
                Ip = ip;
                Need(required);
                return first;
            }
        }

        /// <summary>Forgets that there were uses.</summary>
        internal void Drop() => Take();

        /// <summary>Returns the uses so far, and begins anew.</summary>
        internal Usage Take()
        {
            lock (this)
            {
                var taken = new Usage(TokenId) { Time = Time, Ip = Ip, unscoped = unscoped };
                taken.scopes.AddRange(scopes);
                scopes.Clear();
                unscoped = queued = false;
                return taken;
            }
        }

        /// <summary>Adds earlier uses of the same token.</summary>
        internal void Add(Usage before)
        {
            if (before.scopes.Count > 0)
            {
                Need(before.scopes);
            }

            unscoped |= before.unscoped;
            if (before.Time > Time)
            {
                Time = before.Time;
                Ip = before.Ip;
            }
        }

        internal Dictionary<string, object?> Body()
        {
            var body = new Dictionary<string, object?>
            {
                ["token_id"] = TokenId,
                ["time"] = Time.UtcDateTime.ToString("yyyy-MM-dd'T'HH:mm:ss.fffffff'Z'", CultureInfo.InvariantCulture),
            };
            if (Ip != null)
            {
                body["client_ip"] = Ip;
            }

            if (scopes.Count > 0)
            {
                body["scopes"] = scopes;
            }

            if (unscoped)
            {
                body["unscoped"] = true;
            }

            return body;
        }

        private void Need(IReadOnlyList<string>? required)
        {
            if (required == null || required.Count == 0)
            {
                unscoped = true;
                return;
            }

            for (var i = 0; i < required.Count; i++)
            {
                if (VerifyResult.Has(scopes, required[i]))
                {
                    continue;
                }

                if (scopes.Count >= MaxScopes || required[i].Length > MaxScope)
                {
                    unscoped = true;
                }
                else
                {
                    scopes.Add(required[i]);
                }
            }
        }
    }

    /// <summary>Collects the uses of tokens that passed from memory, and reports them.</summary>
    internal sealed class Uses
    {
        private const int PerCall = 1000;

        private readonly PatdConnection connection;
        private readonly int limit;
        private readonly SemaphoreSlim reporting = new SemaphoreSlim(1);
        private readonly object gate = new object();
        private readonly Dictionary<string, Usage> pending = new Dictionary<string, Usage>(); // of each token, one
        private List<Usage> queue = new List<Usage>();
        private long dropped;

        internal Uses(PatdConnection connection, int limit)
        {
            this.connection = connection;
            this.limit = limit;
        }

        internal long Dropped => Interlocked.Read(ref dropped);

        /// <summary>Notes a use. Reports whether the queue is half full, and should be reported.</summary>
        internal bool Note(Usage use, string? ip, IReadOnlyList<string>? scopes, DateTimeOffset time)
        {
            if (!use.Note(ip, scopes, time))
            {
                return false;
            }

            lock (gate)
            {
                if (queue.Count < limit)
                {
                    queue.Add(use);
                    return queue.Count * 2 >= limit;
                }
            }

            use.Drop();
            Interlocked.Increment(ref dropped);
            return true;
        }

        /// <summary>
        /// Reports all uses, one report at a time. Those that it cannot report stay for the next time.
        /// </summary>
        internal async Task ReportAsync(TimeSpan timeout, CancellationToken end)
        {
            await reporting.WaitAsync(CancellationToken.None).ConfigureAwait(false);
            try
            {
                Gather();
                var until = Clock.Mono() + timeout;
                while (pending.Count > 0)
                {
                    var batch = pending.Values.Take(PerCall).ToList();
                    var left = until - Clock.Mono();
                    try
                    {
                        var body = new Dictionary<string, object?> { ["uses"] = batch.Select(u => u.Body()).ToList() };
                        var least = TimeSpan.FromMilliseconds(1);
                        await connection.PostAsync("/v1/uses:report", body, left > least ? left : least, end)
                            .ConfigureAwait(false);
                    }
                    catch (PatdFaultException fault) when (fault.Kind == FaultKind.Invalid)
                    {
                        Interlocked.Add(ref dropped, batch.Count); // patd will not take them another time either
                    }

                    foreach (var use in batch)
                    {
                        pending.Remove(use.TokenId);
                    }
                }
            }
            finally
            {
                reporting.Release();
            }
        }

        private void Gather()
        {
            List<Usage> gathered;
            lock (gate)
            {
                gathered = queue;
                queue = new List<Usage>();
            }

            foreach (var one in gathered)
            {
                var use = one.Take();
                if (pending.TryGetValue(use.TokenId, out var before))
                {
                    use.Add(before);
                }
                else if (pending.Count >= limit)
                {
                    Interlocked.Increment(ref dropped);
                    continue;
                }

                pending[use.TokenId] = use;
            }
        }
    }
}
