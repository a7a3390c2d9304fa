using System;
using System.Diagnostics;
using System.Threading;
using System.Threading.Tasks;

namespace Patd
{
    /// <summary>Waits for tasks.</summary>
    internal static class Waiting
    {
        /// <summary>Waits for a task, until the cancellation at most, whether or not the task obeys it.</summary>
        internal static async Task<T> Until<T>(Task<T> task, CancellationToken cancel)
        {
            if (!task.IsCompleted && cancel.CanBeCanceled)
            {
                var ended = new TaskCompletionSource<bool>(TaskCreationOptions.RunContinuationsAsynchronously);
                using (cancel.Register(() => ended.TrySetResult(true)))
                {
                    if (await Task.WhenAny(task, ended.Task).ConfigureAwait(false) != task)
                    {
                        Forget(task);
                        cancel.ThrowIfCancellationRequested();
                    }
                }
            }

            return await task.ConfigureAwait(false);
        }

        /// <summary>Lets a task fail unseen.</summary>
        internal static void Forget(Task task) =>
            _ = task.ContinueWith(t =>
                _ = t.Exception, CancellationToken.None, TaskContinuationOptions.OnlyOnFaulted, TaskScheduler.Default);
    }

    /// <summary>The monotonic clock.</summary>
    internal static class Clock
    {
        /// <summary>How often it advances in a tick of 100 ns, a whole number nearly always; otherwise 0.</summary>
        private static readonly long PerTick = Stopwatch.Frequency % TimeSpan.TicksPerSecond == 0
            ? Stopwatch.Frequency / TimeSpan.TicksPerSecond : 0;

        /// <summary>The time since some time in the past.</summary>
        internal static TimeSpan Mono()
        {
            var at = Stopwatch.GetTimestamp();
            if (PerTick > 0)
            {
                return new TimeSpan(at / PerTick);
            }

            var whole = Math.DivRem(at, Stopwatch.Frequency, out var rest);
            return new TimeSpan((whole * TimeSpan.TicksPerSecond) +
                (rest * TimeSpan.TicksPerSecond / Stopwatch.Frequency));
        }
    }
}
