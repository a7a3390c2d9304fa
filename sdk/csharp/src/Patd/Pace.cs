using System;

namespace Patd
{
    /// <summary>Judges how current the events of one watch are.</summary>
    internal sealed class Pace
    {
        /// <summary>The longest time between two events, with some room for a late timer.</summary>
        private static readonly TimeSpan Heartbeat = TimeSpan.FromMilliseconds(1250);

        /// <summary>How late the first event of a resumed watch may be, to open memory by itself.</summary>
        private static readonly TimeSpan Prompt = TimeSpan.FromMilliseconds(100);

        /// <summary>How long after a watch was resumed its events may still be missed ones.</summary>
        private static readonly TimeSpan Settling = TimeSpan.FromSeconds(1);

        private readonly Instant asked;
        private TimeSpan first;
        private TimeSpan last;
        private bool settled;

        /// <summary>Makes the pace of a stream that was asked for at a time.</summary>
        internal Pace(Instant asked) => this.asked = asked;

        internal bool IsFirst { get; private set; } = true;

        /// <summary>How old the latest event may be, but for the first.</summary>
        internal TimeSpan Behind { get; private set; }

        /// <summary>
        /// Records an event that came now, and that the server made when so much of the stream had elapsed; zero: it
        /// does not say. Returns the time up to which every change is known; null: the watch has not caught up yet. The
        /// stream began after it was asked for. A first event that a pipe held back opens nothing, since what came
        /// after it waits in the same pipe. A resumed watch has caught up when an event has no news, or when all missed
        /// changes must have arrived. After a start-over memory is empty.
        /// </summary>
        internal Instant? Event(Instant now, TimeSpan elapsed, bool quiet, bool startOver)
        {
            if (IsFirst)
            {
                IsFirst = false;
                first = last = now.Mono;
                settled = startOver || (quiet && now.Mono - asked.Mono <= Prompt);
                return settled ? asked : (Instant?)null;
            }

            settled |= startOver || quiet || now.Mono - first >= Settling;
            var made = asked.Plus(elapsed);
            if (elapsed > TimeSpan.Zero)
            {
                Behind = Max(now.Mono - made.Mono, now.Wall - made.Wall);
            }
            else
            {
                // A server that does not say what has elapsed sends events once a second: one that comes later was held
                // up.
                Behind = Max(TimeSpan.Zero, Behind + (now.Mono - last) - Heartbeat);
                made = now.Plus(-Behind);
            }

            last = now.Mono;
            // Either clock may have stood still, or been set, since the stream was asked for.
            var known = new Instant(made.Mono < now.Mono ? made.Mono : now.Mono, made.Wall < now.Wall
                ? made.Wall : now.Wall);
            return settled ? known : (Instant?)null;
        }

        private static TimeSpan Max(TimeSpan a, TimeSpan b) => a > b ? a : b;
    }
}
