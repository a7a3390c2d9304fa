using System;
using System.Collections.Generic;
using System.Threading;

namespace Patd
{
    /// <summary>What the watch sends.</summary>
    internal sealed class News
    {
        internal News(ulong sequence, bool startOver, IReadOnlyList<string> tokenIds, IReadOnlyList<string> users)
        {
            Sequence = sequence;
            StartOver = startOver;
            TokenIds = tokenIds;
            Users = users;
        }

        internal ulong Sequence { get; }

        internal bool StartOver { get; }

        internal IReadOnlyList<string> TokenIds { get; }

        internal IReadOnlyList<string> Users { get; }

        internal bool IsQuiet => TokenIds.Count + Users.Count == 0;
    }

    /// <summary>
    /// The memory of answers. It is used only while the watch is alive, and for answers without a change since. An
    /// answer that was made before a change may arrive after the news of it. Positions in the change feed decide: an
    /// answer is kept only if it is at least as new as every change received of its token and its user.
    /// </summary>
    internal sealed class AnswerMemory
    {
        /// <summary>The greatest age of the watch's last event while memory is used.</summary>
        internal static readonly TimeSpan Silence = TimeSpan.FromSeconds(3);

        /// <summary>The refusals' part, in a table of their own: garbage evicts only garbage.</summary>
        private const int RefusalShare = 8;

        private readonly object gate = new object();
        private readonly Dictionary<string, Owner> byToken = new Dictionary<string, Owner>(StringComparer.Ordinal);
        private readonly Dictionary<string, Owner> byUser = new Dictionary<string, Owner>(StringComparer.Ordinal);
        private Changes changes = new Changes(0);
        private long epoch;
        private long knownMono = long.MinValue; // ticks
        private long knownWall = long.MinValue;

        internal AnswerMemory(int maxEntries, long maxBytes)
        {
            var entries = maxEntries / RefusalShare;
            var bytes = maxBytes / RefusalShare;
            Answers = new AnswerTable(maxEntries - entries, maxBytes - bytes, Disown);
            Refusals = new AnswerTable(entries, bytes, e => { });
        }

        internal AnswerTable Answers { get; }

        internal AnswerTable Refusals { get; }

        /// <summary>
        /// Counts how often all was forgotten, or a watch resumed. An answer that was asked for before the last time is
        /// not kept.
        /// </summary>
        internal long Epoch => Interlocked.Read(ref epoch);

        /// <summary>Closes memory until the next call of Known.</summary>
        internal void Distrust() => Volatile.Write(ref knownMono, long.MinValue);

        /// <summary>Opens memory: up to that time, every change is known.</summary>
        internal void Known(Instant at)
        {
            Volatile.Write(ref knownWall, at.Wall.UtcTicks);
            Volatile.Write(ref knownMono, at.Mono.Ticks);
        }

        /// <summary>
        /// Reports whether memory may be used. Both clocks must agree: the monotonic one may stand still while a
        /// machine sleeps, the other may be set back.
        /// </summary>
        internal bool IsOpen(Instant now)
        {
            var mono = Volatile.Read(ref knownMono);
            return mono != long.MinValue && now.Mono.Ticks - mono < Silence.Ticks &&
                now.Wall.UtcTicks - Volatile.Read(ref knownWall) < Silence.Ticks;
        }

        /// <summary>Returns an entry that may be used, or null.</summary>
        internal Entry? Recall(MemoryKey key, Instant now) =>
            IsOpen(now) ? Recall(Answers, key, now) ?? Recall(Refusals, key, now) : null;

        /// <summary>
        /// Reports whether the entry that a request brought may serve other checks than the one that asked.
        /// </summary>
        internal bool IsUsable(Entry e, Instant now) => e.IsShared && IsOpen(now) && e.IsSound(now);

        /// <summary>
        /// Keeps an answer, unless a received change may be newer. Also reports whether a newer change of this very
        /// token or user was received, or all was forgotten meanwhile, which means that the answer is outdated.
        /// </summary>
        internal bool Keep(Entry e, long asked, ulong sequence)
        {
            lock (gate)
            {
                if (asked != epoch)
                {
                    return true;
                }

                if (e.Token == null)
                {
                    if (e.Decision.IsFinal())
                    {
                        Refusals.Put(e);
                    }

                    return false;
                }

                if (sequence == 0)
                {
                    return false; // it is for this check only
                }

                if (changes.After(sequence, e.Token.Id, e.Token.User))
                {
                    return true;
                }

                if (e.Token.Stale || sequence < changes.Floor)
                {
                    return false;
                }

                Owner token = OwnerOf(byToken, e.Token.Id), user = OwnerOf(byUser, e.Token.User);
                token.Newest = Math.Max(token.Newest, sequence);
                e.Own(token, user, sequence);
                if (!Answers.Put(e))
                {
                    Disown(e);
                    e.Disown();
                }

                return false;
            }
        }

        /// <summary>
        /// Drops what was kept for the same request before an answer, under either key. Otherwise a check could pass by
        /// what memory holds, after patd refused another one, until the watch tells why.
        /// </summary>
        internal void Replaced(MemoryKey everywhere, MemoryKey here, Entry by)
        {
            if (!by.IsShared)
            {
                return; // it was not kept, for a reason of its own
            }

            lock (gate)
            {
                foreach (var key in new[] { everywhere, here })
                {
                    var old = Answers.Get(key);
                    if (old != null && !ReferenceEquals(old, by))
                    {
                        Answers.Remove(old);
                    }
                }
            }
        }

        /// <summary>Applies an event. From then on, no answer from before its changes is used.</summary>
        internal void Apply(News news, bool startOver)
        {
            lock (gate)
            {
                if (startOver)
                {
                    Forget();
                    changes = new Changes(news.Sequence); // what changed before is not known
                }

                foreach (var id in news.TokenIds)
                {
                    changes.Note('t', id, news.Sequence);
                    Change(byToken, id, news.Sequence);
                }

                foreach (var user in news.Users)
                {
                    changes.Note('u', user, news.Sequence);
                    Change(byUser, user, news.Sequence);
                }
            }
        }

        /// <summary>
        /// Drops the answers that are newer than the position at which a watch was resumed, and those under way. They
        /// rest on changes that this watch never received. A server that was restored does not have these changes, and
        /// nothing would ever make the answers unsound.
        /// </summary>
        internal void Resumed(ulong at)
        {
            lock (gate)
            {
                Interlocked.Increment(ref epoch);
                var newer = new List<Owner>();
                foreach (var owner in byToken.Values)
                {
                    if (owner.Newest > at)
                    {
                        newer.Add(owner);
                    }
                }

                foreach (var owner in newer)
                {
                    owner.Changed = ulong.MaxValue;
                    byToken.Remove(owner.Name);
                }
            }
        }

        private static Owner OwnerOf(Dictionary<string, Owner> by, string name)
        {
            if (!by.TryGetValue(name, out var owner))
            {
                by[name] = owner = new Owner(name);
            }

            owner.Entries++;
            return owner;
        }

        private static void Disown(Dictionary<string, Owner> by, Owner owner)
        {
            if (--owner.Entries == 0 && by.TryGetValue(owner.Name, out var now) && ReferenceEquals(now, owner))
            {
                by.Remove(owner.Name);
            }
        }

        private static void Change(Dictionary<string, Owner> by, string name, ulong sequence)
        {
            if (by.TryGetValue(name, out var owner))
            {
                owner.Changed = Math.Max(owner.Changed, sequence);
            }
        }

        private Entry? Recall(AnswerTable from, MemoryKey key, Instant now)
        {
            var e = from.Get(key);
            if (e == null)
            {
                return null;
            }

            if (e.IsSound(now))
            {
                from.Hit(e);
                return e;
            }

            if (e.IsOver(now.Mono)) // a wall clock that is ahead may be set right again
            {
                lock (gate)
                {
                    from.Remove(e);
                }
            }

            return null;
        }

        private void Forget()
        {
            Interlocked.Increment(ref epoch);
            foreach (var by in new[] { byToken, byUser })
            {
                foreach (var owner in by.Values)
                {
                    owner.Changed = ulong.MaxValue;
                }

                by.Clear();
            }

            Answers.Clear();
            Refusals.Clear();
        }

        private void Disown(Entry e)
        {
            Disown(byToken, e.OfToken!);
            Disown(byUser, e.OfUser!);
        }
    }
}
