using System;
using System.Collections.Generic;
using System.Linq;
using System.Threading;
using System.Threading.Tasks;

namespace Patd
{
    /// <summary>
    /// Decides about tokens by asking patd, and from memory while it receives every change. One serves a whole program,
    /// and all its threads. It does not wait for patd: until the first event of the watch, every check asks.
    /// </summary>
    public sealed class TokenVerifier : ITokenVerifier, IDisposable
    {
        private const int UsesShare = 8, UseBytes = 1 << 10;

        private static readonly TimeSpan ClosingReport = TimeSpan.FromSeconds(5);

        private readonly TokenVerifierOptions options;
        private readonly PatdConnection connection;
        private readonly AnswerMemory memory;
        private readonly Uses uses;
        private readonly Acknowledger acks;
        private readonly Watcher watcher;
        private readonly MemoryKeys keys = new MemoryKeys();
        private readonly SemaphoreSlim slots;
        private readonly Dictionary<MemoryKey, Flight> flights = new Dictionary<MemoryKey, Flight>();
        private readonly CancellationTokenSource stop = new CancellationTokenSource();
        private readonly Task watching;
        private readonly Timer? reports;
        private readonly object closing = new object();
        private long asked;
        private long order;
        private int reporting;
        private Task? closed;

        /// <summary>Makes a verifier, and starts its watch.</summary>
        public TokenVerifier(TokenVerifierOptions options)
        {
            this.options = options ?? throw new ArgumentNullException(nameof(options));
            if (options.MaxEntries < 1 || options.MaxBytes < 1 || options.MaxInFlight < 1
                || options.MaxAge <= TimeSpan.Zero ||
                options.Timeout <= TimeSpan.Zero || options.ReportEvery < TimeSpan.Zero)
            {
                throw new ArgumentException("limits are positive");
            }

            MemoryKeys.CheckAudience(options.Audience);
            connection = new PatdConnection(options);
            memory = new AnswerMemory(options.MaxEntries, options.MaxBytes - (options.MaxBytes / UsesShare));
            uses = new Uses(connection,
                (int)Math.Max(1, Math.Min(options.MaxEntries, options.MaxBytes / UsesShare / UseBytes)));
            slots = new SemaphoreSlim(options.MaxInFlight);
            acks = new Acknowledger(connection, stop.Token);
            watcher = new Watcher(connection, memory, acks, Now, Quietly);
            watching = Task.Run(() => watcher.RunAsync(stop.Token));
            if (options.ReportEvery > TimeSpan.Zero)
            {
                reports = new Timer(_ => Report(), null, options.ReportEvery, options.ReportEvery);
            }
        }

        private bool IsClosed => stop.IsCancellationRequested;

        /// <summary>
        /// Decides about a token, exactly as the client sent it. Text without the form of a token is not found without
        /// a request. An answer in memory without a change since decides at once. Anything else is asked; if that
        /// fails, so does the check, with a <see cref="PatdFaultException"/>, whatever was in memory before.
        /// </summary>
        public Task<VerifyResult> VerifyAsync(string token, VerifyCall? call = null, CancellationToken cancel = default)
        {
            try
            {
                return TryRemember(token, call, out var check, out var result)
                    ? Task.FromResult(result!) : AskAsync(check!, cancel);
            }
            catch (PatdFaultException fault)
            {
                return Task.FromException<VerifyResult>(fault);
            }
        }

        /// <summary>
        /// Decides without waiting, if memory can: false means that <see cref="VerifyAsync"/> would ask patd.
        /// </summary>
        public bool TryVerify(string token, VerifyCall? call, out VerifyResult? result) =>
            TryRemember(token, call, out _, out result);

        /// <summary>Returns the counters, for the program's metrics.</summary>
        public TokenVerifierStats Stats() => new TokenVerifierStats
        {
            Entries = memory.Answers.Size + memory.Refusals.Size,
            Hits = memory.Answers.Hits + memory.Refusals.Hits,
            Asked = Interlocked.Read(ref asked),
            DroppedUses = uses.Dropped,
            IsWatching = !IsClosed && memory.IsOpen(Now()),
            ServiceTokenExpireTime = watcher.TokenExpireTime,
        };

        /// <summary>
        /// Ends all work in the background and reports the last uses, within 5 seconds. Checks that wait for an answer
        /// fail. A fault means that the last uses were not reported, and nothing else. Later calls return when the
        /// first is done.
        /// </summary>
        public Task CloseAsync()
        {
            lock (closing)
            {
                if (closed != null)
                {
                    return closed.ContinueWith(
                        _ => { }, CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
                }

                stop.Cancel();
                memory.Distrust();
                return closed = Task.Run(EndAsync);
            }
        }

        /// <summary>Closes the verifier, and waits for that.</summary>
        public void Dispose()
        {
            try
            {
                CloseAsync().GetAwaiter().GetResult();
            }
            catch (PatdFaultException)
            {
                // the last uses were not reported
            }
        }

        private bool TryRemember(string token, VerifyCall? call, out Check? check, out VerifyResult? result)
        {
            check = null;
            if (token == null)
            {
                throw new ArgumentNullException(nameof(token));
            }

            if (IsClosed)
            {
                throw PatdFaultException.Closed();
            }

            var address = ClientAddress.Read(call?.ClientIp);
            var audience = string.IsNullOrEmpty(call?.Audience) ? options.Audience : call!.Audience!;
            if (token.Length > TokenForm.MaxToken || !keys.TryKey(token, audience, out var everywhere))
            {
                result = VerifyResult.Refused(Decision.NotFound);
                return true;
            }

            var now = Now();
            var entry = memory.Recall(everywhere, now);
            var here = default(MemoryKey);
            if (entry == null)
            {
                here = keys.At(everywhere, address);
                entry = memory.Recall(here, now);
            }

            if (entry != null)
            {
                result = Let(entry, call?.Scopes, address, now);
                return true;
            }

            if (!TokenForm.IsPlausible(token))
            {
                result = VerifyResult.Refused(Decision.NotFound);
                return true;
            }

            check = new Check(everywhere, here, token, audience, call?.Scopes, address);
            result = null;
            return false;
        }

        /// <summary>Decides from memory, and notes a use if the token passes.</summary>
        private VerifyResult Let(Entry entry, IReadOnlyList<string>? scopes, ClientAddress? address, Instant now)
        {
            var result = entry.Result(scopes);
            if (result.IsAllowed && reports != null && uses.Note(entry.Usage!, address?.Text, scopes, now.Wall))
            {
                Report();
            }

            return result;
        }

        /// <summary>
        /// Asks patd, or waits for the answer to another check's request. An answer counts if it was asked for after
        /// this check began, or if memory may use it; otherwise the next one does. So a check never rests on an answer
        /// from before it, unless the watch confirms it.
        /// </summary>
        private async Task<VerifyResult> AskAsync(Check check, CancellationToken cancel)
        {
            var began = Interlocked.Increment(ref order);
            var again = true;
            using (var waits = CancellationTokenSource.CreateLinkedTokenSource(cancel, stop.Token))
            {
                for (; ;)
                {
                    Reply r;
                    bool mine;
                    Flight flight;
                    try
                    {
                        (flight, mine) = await BoardAsync(check, waits.Token).ConfigureAwait(false);
                        r = await Waiting.Until(flight.Reply, waits.Token).ConfigureAwait(false);
                    }
                    catch (OperationCanceledException) when (IsClosed)
                    {
                        throw PatdFaultException.Closed();
                    }

                    if (IsClosed)
                    {
                        throw PatdFaultException.Closed();
                    }

                    if (r.Outdated && again)
                    {
                        again = false; // once: a replica that lags behind would make this a loop
                        continue;
                    }

                    if (mine)
                    {
                        return r.Entry.Result(check.Scopes); // patd has counted it
                    }

                    var now = Now();
                    // Once: patd is to be asked about this use, for it is the first of a new secret.
                    if (!r.Once && (flight.Begun > began || memory.IsUsable(r.Entry, now)))
                    {
                        return Let(r.Entry, check.Scopes, check.Address, now);
                    }
                }
            }
        }

        /// <summary>Returns the request under way for a check, or sends one.</summary>
        private async Task<(Flight Flight, bool Mine)> BoardAsync(Check check, CancellationToken cancel)
        {
            lock (flights)
            {
                if (flights.TryGetValue(check.Here, out var flight))
                {
                    return (flight, false);
                }
            }

            if (!await slots.WaitAsync(options.Timeout, cancel).ConfigureAwait(false))
            {
                throw new PatdFaultException(FaultKind.Unavailable, "too many checks are waiting for patd");
            }

            Flight mine;
            lock (flights)
            {
                if (flights.TryGetValue(check.Here, out var flight))
                {
                    slots.Release();
                    return (flight, false);
                }

                flights[check.Here] = mine = new Flight(Interlocked.Increment(ref order));
            }

            _ = FlyAsync(check, mine);
            return (mine, true);
        }

        /// <summary>
        /// Sends one request on behalf of all waiting checks, so that it does not end when one of them gives up.
        /// </summary>
        private async Task FlyAsync(Check check, Flight flight)
        {
            Reply? reply = null;
            PatdFaultException? fault = null;
            try
            {
                var sent = Clock.Mono();
                Interlocked.Increment(ref asked);
                var epoch = memory.Epoch;
                var body = await connection.PostAsync("/v1/introspect", check.Body(), options.Timeout, stop.Token)
                    .ConfigureAwait(false);
                var answer = Answer.Read(body, sent, options.MaxAge);
                answer.Entry.Key = answer.Everywhere ? check.Everywhere : check.Here;
                var outdated = memory.Keep(answer.Entry, epoch, answer.Sequence);
                if (!outdated)
                {
                    memory.Replaced(check.Everywhere, check.Here, answer.Entry);
                }

                reply = new Reply(answer.Entry, outdated, answer.Entry.Token != null && answer.Sequence == 0);
            }
            catch (Exception err)
            {
                fault = PatdFaultException.Of(err, "ask patd");
            }

            lock (flights)
            {
                flights.Remove(check.Here);
            }

            slots.Release();
            flight.Land(reply, fault);
        }

        private void Report()
        {
            if (IsClosed || Interlocked.Exchange(ref reporting, 1) != 0)
            {
                return;
            }

            Waiting.Forget(Task.Run(async () =>
            {
                try
                {
                    // what failed is reported next time
                    await uses.ReportAsync(options.Timeout, stop.Token).ConfigureAwait(false);
                }
                finally
                {
                    Volatile.Write(ref reporting, 0);
                }
            }));
        }

        private async Task EndAsync()
        {
            reports?.Dispose();
            await watching.ConfigureAwait(false);
            await acks.IdleAsync().ConfigureAwait(false);
            List<Task> under;
            lock (flights)
            {
                under = flights.Values.Select(f => (Task)f.Reply).ToList();
            }

            foreach (var one in under)
            {
                await one.ContinueWith(
                        _ => { }, CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default)
                    .ConfigureAwait(false);
            }

            try
            {
                if (reports != null)
                {
                    await uses.ReportAsync(ClosingReport, CancellationToken.None).ConfigureAwait(false);
                }
            }
            finally
            {
                connection.Dispose();
            }
        }

        private Instant Now() => new Instant(Clock.Mono(), options.Now());

        /// <summary>Calls the program's log, which breaks nothing if it throws.</summary>
        private void Quietly(string message, Exception err)
        {
            try
            {
                options.Log?.Invoke(message, err);
            }
            catch (Exception)
            {
                // the watch goes on
            }
        }

        /// <summary>What a check needs to know, and of whom.</summary>
        private sealed class Check
        {
            private readonly string token;
            private readonly string audience;

            internal Check(MemoryKey everywhere, MemoryKey here, string token, string audience,
                IReadOnlyList<string>? scopes, ClientAddress? address)
            {
                Everywhere = everywhere;
                Here = here;
                this.token = token;
                this.audience = audience;
                Scopes = scopes;
                Address = address;
            }

            internal MemoryKey Everywhere { get; }

            internal MemoryKey Here { get; }

            internal IReadOnlyList<string>? Scopes { get; }

            internal ClientAddress? Address { get; }

            internal Dictionary<string, object?> Body()
            {
                var body = new Dictionary<string, object?> { ["token"] = token };
                if (audience != "")
                {
                    body["audience"] = audience;
                }

                if (Scopes != null && Scopes.Count > 0)
                {
                    body["required_scopes"] = Scopes; // so that patd counts the use if, and only if, the token passes
                }

                if (Address != null)
                {
                    body["client_ip"] = Address.Text;
                }

                return body;
            }
        }

        /// <summary>What a request brought.</summary>
        private sealed class Reply
        {
            internal Reply(Entry entry, bool outdated, bool once)
            {
                Entry = entry;
                Outdated = outdated;
                Once = once;
            }

            internal Entry Entry { get; }

            /// <summary>It is known to be from before a change.</summary>
            internal bool Outdated { get; }

            /// <summary>It is for the check that asked, and for no other.</summary>
            internal bool Once { get; }
        }

        /// <summary>A request under way.</summary>
        private sealed class Flight
        {
            private readonly TaskCompletionSource<Reply> landed =
                new TaskCompletionSource<Reply>(TaskCreationOptions.RunContinuationsAsynchronously);

            internal Flight(long begun) => Begun = begun;

            /// <summary>Its place in the order of all checks and requests.</summary>
            internal long Begun { get; }

            internal Task<Reply> Reply => landed.Task;

            internal void Land(Reply? reply, PatdFaultException? fault)
            {
                if (reply != null)
                {
                    landed.SetResult(reply);
                    return;
                }

                landed.SetException(fault!);
                _ = landed.Task.Exception; // all that wait may have given up
            }
        }
    }
}
