using System;
using System.Collections.Generic;
using System.Threading;

namespace Patd
{
    /// <summary>
    /// A token or a user with answers in memory. One number makes all of them from before a change unsound.
    /// </summary>
    internal sealed class Owner
    {
        private long changed;

        internal Owner(string name) => Name = name;

        internal string Name { get; }

        /// <summary>How many answers in memory depend on it.</summary>
        internal int Entries { get; set; }

        /// <summary>The latest position of its answers.</summary>
        internal ulong Newest { get; set; }

        /// <summary>The position of its last change; the greatest number: all its answers are dropped.</summary>
        internal ulong Changed
        {
            get => unchecked((ulong)Volatile.Read(ref changed));
            set => Volatile.Write(ref changed, unchecked((long)value));
        }
    }

    /// <summary>One answer. What checks read does not change once it is in memory.</summary>
    internal sealed class Entry
    {
        // The cost of an entry beside its texts, and of a text beside its characters, estimated from above.
        private const long EntryBytes = 1024, TextBytes = 48;

        private readonly TimeSpan until;
        private readonly DateTimeOffset expire;
        private readonly VerifyResult? allowed;
        private int recent;

        internal Entry(Decision decision, VerifiedToken? token, TimeSpan until)
        {
            Decision = decision;
            Token = token;
            allowed = token == null ? null : VerifyResult.Allowed(token);
            this.until = until;
            expire = token?.ExpireTime ?? DateTimeOffset.MaxValue;
            Bytes = SizeOf(token);
            Usage = token == null ? null : new Usage(token.Id);
        }

        internal Decision Decision { get; }

        internal VerifiedToken? Token { get; }

        internal DateTimeOffset? EndTime { get; set; }

        internal DateTimeOffset? ExpireTime { get; set; }

        internal long Bytes { get; }

        internal Usage? Usage { get; }

        internal MemoryKey Key { get; set; }

        /// <summary>Its place in the table's ring. Guarded by the memory's lock.</summary>
        internal int Slot { get; set; }

        /// <summary>The position that the answer is at least as new as.</summary>
        internal ulong Sequence { get; private set; }

        /// <summary>The owners, once the answer is in memory. A refusal depends on nothing.</summary>
        internal Owner? OfToken { get; private set; }

        internal Owner? OfUser { get; private set; }

        /// <summary>Whether a change was received since the answer was made.</summary>
        internal bool IsVoid => OfToken != null && (Sequence < OfToken.Changed || Sequence < OfUser!.Changed);

        /// <summary>Whether it is good for other checks than the one that asked.</summary>
        internal bool IsShared => Token == null || OfToken != null;

        /// <summary>Whether it was used since this was last asked.</summary>
        internal bool WasUsed => Interlocked.Exchange(ref recent, 0) != 0;

        internal void Own(Owner token, Owner user, ulong sequence)
        {
            Sequence = sequence;
            OfUser = user;
            OfToken = token;
        }

        internal void Disown() => OfToken = OfUser = null;

        internal void Use()
        {
            if (Volatile.Read(ref recent) == 0)
            {
                Volatile.Write(ref recent, 1);
            }
        }

        /// <summary>Reports whether its time is over, whatever the wall clock says.</summary>
        internal bool IsOver(TimeSpan mono) => mono >= until || IsVoid;

        /// <summary>Reports whether the entry may still be used, as far as the entry itself shows.</summary>
        internal bool IsSound(Instant now) => now.Wall < expire && !IsOver(now.Mono);

        internal VerifyResult Result(IReadOnlyList<string>? required) => allowed == null
            ? VerifyResult.Refused(Decision, EndTime, ExpireTime)
            : VerifyResult.Decide(allowed, required);

        private static long SizeOf(VerifiedToken? token)
        {
            var n = EntryBytes;
            if (token == null)
            {
                return n;
            }

            void Add(string? text) => n += text == null ? 0 : TextBytes + (2 * text.Length);
            // Owners have the texts of the token and the user as well.
            Add(token.Id);
            Add(token.Id);
            Add(token.User);
            Add(token.User);
            Add(token.Name);
            Add(token.AccessTokenId);
            Add(token.ClientId);
            foreach (var list in new[] { token.Scopes, token.GrantedScopes, token.SuspendedScopes,
                token.PausedScopes, token.Audiences })
            {
                foreach (var text in list)
                {
                    Add(text);
                }
            }

            foreach (var label in token.Labels)
            {
                Add(label.Key);
                Add(label.Value);
            }

            return n;
        }
    }

    /// <summary>
    /// A time by the monotonic and by the wall clock. Either may jump or stand still without the other.
    /// </summary>
    internal readonly struct Instant
    {
        internal Instant(TimeSpan mono, DateTimeOffset wall)
        {
            Mono = mono;
            Wall = wall;
        }

        /// <summary>Since some time in the past.</summary>
        internal TimeSpan Mono { get; }

        internal DateTimeOffset Wall { get; }

        internal Instant Plus(TimeSpan span) => new Instant(Mono + span, Wall + span);
    }
}
