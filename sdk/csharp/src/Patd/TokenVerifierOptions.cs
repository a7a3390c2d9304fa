using System;

namespace Patd
{
    /// <summary>Configures a <see cref="TokenVerifier"/>.</summary>
    public sealed class TokenVerifierOptions : PatdOptions
    {
        /// <summary>The API of the program, for a call that names none. Empty: audiences are not checked.</summary>
        public string Audience { get; set; } = "";

        /// <summary>How many answers are kept.</summary>
        public int MaxEntries { get; set; } = 100_000;

        /// <summary>Bounds the bytes of memory for answers, by an estimate from above.</summary>
        public long MaxBytes { get; set; } = 64 << 20;

        /// <summary>How long an answer is used at most.</summary>
        public TimeSpan MaxAge { get; set; } = TimeSpan.FromMinutes(1);

        /// <summary>How many requests may be under way at a time; further ones wait.</summary>
        public int MaxInFlight { get; set; } = 512;

        /// <summary>Bounds one request.</summary>
        public TimeSpan Timeout { get; set; } = TimeSpan.FromSeconds(5);

        /// <summary>
        /// How often uses that were decided from memory are reported. Zero: never, not even by closing.
        /// </summary>
        public TimeSpan ReportEvery { get; set; } = TimeSpan.FromSeconds(10);

        /// <summary>Is called when the watch breaks. It is never given a token.</summary>
        public Action<string, Exception>? Log { get; set; }

        /// <summary>The wall clock.</summary>
        public Func<DateTimeOffset> Now { get; set; } = () => DateTimeOffset.UtcNow;
    }

    /// <summary>The counters of a <see cref="TokenVerifier"/>.</summary>
    public sealed class TokenVerifierStats
    {
        internal TokenVerifierStats()
        {
        }

        /// <summary>How many answers are kept.</summary>
        public int Entries { get; internal set; }

        /// <summary>How many checks were decided from memory.</summary>
        public long Hits { get; internal set; }

        /// <summary>How many requests were sent to patd about tokens.</summary>
        public long Asked { get; internal set; }

        /// <summary>How many uses will not be reported, for lack of room.</summary>
        public long DroppedUses { get; internal set; }

        /// <summary>Whether memory may be used at this moment.</summary>
        public bool IsWatching { get; internal set; }

        /// <summary>When the service token of this program expires; null: never, or no watch has begun yet.</summary>
        public DateTimeOffset? ServiceTokenExpireTime { get; internal set; }
    }
}
