using System;
using System.Collections.Generic;
using System.Globalization;
using System.Threading;
using System.Threading.Tasks;

namespace Patd
{
    /// <summary>
    /// Tells patd what was applied, where patd asks for it, so that a call which revokes can return early. The watch
    /// never waits for it. A failure is ignored: patd then waits until this memory would be closed by its own rule.
    /// </summary>
    internal sealed class Acknowledger
    {
        /// <summary>Bounds one call. It is longer than patd waits for it.</summary>
        private static readonly TimeSpan Most = TimeSpan.FromSeconds(5);

        private readonly PatdConnection connection;
        private readonly CancellationToken stop;
        private readonly object gate = new object();
        private Dictionary<string, object?>? newest; // a later position includes an earlier one
        private bool isSending;
        private Task sending = Task.CompletedTask;

        internal Acknowledger(PatdConnection connection, CancellationToken stop)
        {
            this.connection = connection;
            this.stop = stop;
        }

        /// <summary>
        /// Records that everything up to a position of a watch was applied, and sends it as soon as no call runs.
        /// </summary>
        internal void Applied(string watch, ulong sequence)
        {
            lock (gate)
            {
                newest = new Dictionary<string, object?>
                {
                    ["watch_id"] = watch, ["sequence"] = sequence.ToString(CultureInfo.InvariantCulture),
                };
                if (!isSending)
                {
                    isSending = true;
                    sending = Task.Run(SendAsync);
                }
            }
        }

        /// <summary>Waits for the call that runs, which the cancellation ends.</summary>
        internal Task IdleAsync()
        {
            lock (gate)
            {
                return sending;
            }
        }

        private async Task SendAsync()
        {
            while (Next() is { } body)
            {
                try
                {
                    await connection.PostAsync("/v1/invalidations:acknowledge", body, Most, stop).ConfigureAwait(false);
                }
                catch (Exception)
                {
                    // of no importance
                }
            }
        }

        /// <summary>Returns what is to be sent next; null: nothing, and the sending ends.</summary>
        private Dictionary<string, object?>? Next()
        {
            lock (gate)
            {
                var next = stop.IsCancellationRequested ? null : newest;
                newest = null;
                isSending = next != null;
                return next;
            }
        }
    }
}
