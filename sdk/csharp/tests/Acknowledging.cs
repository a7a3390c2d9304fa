using System;
using System.Collections.Generic;
using System.IO;
using System.Net;
using System.Text;
using System.Threading;
using System.Threading.Channels;
using System.Threading.Tasks;
using Patd;

/// <summary>What is applied is acknowledged where patd asks for it.</summary>
internal static class Acknowledging
{
    public static async Task AChangeIsAcknowledgedWherePatdAsksForItAndNowhereElse()
    {
        var patd = new Asking();
        using (var verifier = await patd.WatchingAsync())
        {
            patd.Change(false);
            patd.Change(true);
            patd.Change(false);
            await patd.UntilAsync(() => patd.Acknowledged > 0);
            await verifier.CloseAsync();
        }

        Is.Same("{\"watch_id\":\"watch\",\"sequence\":\"9\"}", patd.All());
    }

    public static async Task AcknowledgementsGoOneAtATimeAndOneThatFailsDisturbsNothing()
    {
        var patd = new Asking { Holds = true };
        using (var verifier = await patd.WatchingAsync())
        {
            patd.Change(true);
            patd.Change(true);
            patd.Change(true);
            await patd.AppliedAsync();
            await patd.ChangedUntilAsync(() => patd.Acknowledged > 0);
            var token = new FakePatd().Mint(new FakeToken(), out _);
            for (var i = 0; i < 100; i++)
            {
                Is.True((await verifier.VerifyAsync(token)).IsAllowed, "checks go on");
            }

            Is.Same(1, patd.Acknowledged, "one at a time");
            patd.Release(HttpStatusCode.InternalServerError);
            await patd.ChangedUntilAsync(() => patd.Acknowledged > 1);
            await patd.ChangedUntilAsync(() => patd.Acknowledged > 2 && verifier.Stats().IsWatching);
        }
    }

    public static async Task ClosingEndsAnAcknowledgementThatHangs()
    {
        var patd = new Asking { Holds = true };
        var verifier = await patd.WatchingAsync();
        patd.Change(true);
        await patd.UntilAsync(() => patd.Acknowledged == 1);
        patd.Change(true);
        await verifier.CloseAsync();
        Is.Same(1, patd.Acknowledged, "those that were sent");
        Is.Same(1, patd.Ended, "those that were ended");
    }

    /// <summary>A patd that asks for acknowledgements.</summary>
    private sealed class Asking
    {
        private const int Begin = 7;

        private readonly Channel<string> events = Channel.CreateUnbounded<string>();
        private readonly List<string> acknowledged = new List<string>();
        private readonly TaskCompletionSource<HttpStatusCode> released =
            new TaskCompletionSource<HttpStatusCode>(TaskCreationOptions.RunContinuationsAsynchronously);

        private int sequence = Begin;
        private int sent; // changes
        private int applied; // of those: the verifier has asked for what comes after them

        internal bool Holds { get; set; }

        internal int Ended { get; private set; }

        internal int Acknowledged
        {
            get
            {
                lock (acknowledged)
                {
                    return acknowledged.Count;
                }
            }
        }

        internal string All()
        {
            lock (acknowledged)
            {
                return string.Join(" ", acknowledged);
            }
        }

        internal async Task<TokenVerifier> WatchingAsync()
        {
            var stub = new Stub { Acknowledge = AcknowledgeAsync, Feed = () => new Feed(this) };
            var verifier = Together.Verifier(stub);
            await UntilAsync(() => verifier.Stats().IsWatching);
            return verifier;
        }

        internal void Change(bool acknowledge) => events.Writer.TryWrite(
            "event: invalidations\ndata: {\"sequence\":\"" + ++sequence + "\",\"history\":\"h\",\"users\":[\"bob\"]," +
            "\"acknowledge\":" + (acknowledge ? "true" : "false") + "}\n\n");

        internal void Release(HttpStatusCode status)
        {
            Holds = false;
            released.SetResult(status);
        }

        /// <summary>Waits until all changes have been applied.</summary>
        internal Task AppliedAsync() => UntilAsync(() => Volatile.Read(ref applied) == sequence - Begin);

        internal async Task UntilAsync(Func<bool> so)
        {
            for (var end = DateTime.UtcNow.AddSeconds(60); !so(); await Task.Delay(5))
            {
                Is.True(DateTime.UtcNow < end, "it never was so");
            }
        }

        /// <summary>
        /// Changes something until something is so: a watch that was silent, on a busy machine, is left for another.
        /// </summary>
        internal Task ChangedUntilAsync(Func<bool> so)
        {
            var rounds = 0;
            return UntilAsync(() =>
            {
                if (so())
                {
                    return true;
                }

                if (rounds++ % 20 == 0)
                {
                    Change(true);
                }

                return false;
            });
        }

        private async Task<HttpStatusCode> AcknowledgeAsync(string body, CancellationToken cancel)
        {
            lock (acknowledged)
            {
                acknowledged.Add(body);
            }

            if (!Holds)
            {
                return HttpStatusCode.OK;
            }

            var ended = new TaskCompletionSource<HttpStatusCode>(TaskCreationOptions.RunContinuationsAsynchronously);
            using (cancel.Register(() =>
            {
                Ended++;
                ended.TrySetCanceled();
            }))
            {
                return await await Task.WhenAny(released.Task, ended.Task);
            }
        }

        private sealed class Feed : MemoryStream
        {
            private readonly Asking patd;
            private bool begun;

            internal Feed(Asking patd) => this.patd = patd;

            public override async Task<int> ReadAsync(byte[] into, int at, int n, CancellationToken cancel)
            {
                string text;
                if (!begun)
                {
                    begun = true;
                    text = "event: start-over\ndata: {\"sequence\":\"7\",\"history\":\"h\"," +
                        "\"watch_id\":\"watch\"}\n\n";
                }
                else
                {
                    Volatile.Write(ref patd.applied, patd.sent);
                    text = await NextAsync(cancel);
                }

                return Encoding.UTF8.GetBytes(text, 0, text.Length, into, at);
            }

            /// <summary>Returns the next event, or a heartbeat.</summary>
            private async Task<string> NextAsync(CancellationToken cancel)
            {
                using (var beat = CancellationTokenSource.CreateLinkedTokenSource(cancel))
                {
                    beat.CancelAfter(300);
                    try
                    {
                        var change = await patd.events.Reader.ReadAsync(beat.Token);
                        patd.sent++;
                        return change;
                    }
                    catch (OperationCanceledException) when (!cancel.IsCancellationRequested)
                    {
                        return "event: heartbeat\ndata: {\"sequence\":\"" + (Begin + patd.sent) +
                            "\",\"history\":\"h\"}\n\n";
                    }
                }
            }
        }
    }
}
