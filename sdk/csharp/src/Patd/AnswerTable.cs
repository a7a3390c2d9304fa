using System;
using System.Collections.Concurrent;
using System.Collections.Generic;
using System.Threading;

namespace Patd
{
    /// <summary>
    /// A map of entries, bounded in number and bytes. What was not used lately makes room (second chance). Reading
    /// needs no lock; all else is called under that of the memory.
    /// </summary>
    internal sealed class AnswerTable
    {
        /// <summary>How many places hits are counted in, a power of 2, and how many numbers lie between two.</summary>
        private const int Stripes = 16, StripeWidth = 16;

        private readonly ConcurrentDictionary<MemoryKey, Entry> byKey = new ConcurrentDictionary<MemoryKey, Entry>();
        private readonly List<Entry> ring = new List<Entry>(); // all of byKey, in the order of the clock
        private readonly int maxEntries;
        private readonly long maxBytes;
        private readonly Action<Entry> left;

        /// <summary>Counted in several places, so that threads do not wait for each other's memory.</summary>
        private readonly long[] hits = new long[Stripes * StripeWidth];
        private int hand;
        private long bytes;
        private int size;

        /// <summary>Makes a table. left is called with each entry that leaves, but not by Clear.</summary>
        internal AnswerTable(int maxEntries, long maxBytes, Action<Entry> left)
        {
            this.maxEntries = maxEntries;
            this.maxBytes = maxBytes;
            this.left = left;
        }

        internal int Size => Volatile.Read(ref size);

        internal long Hits
        {
            get
            {
                long sum = 0;
                for (var i = 0; i < hits.Length; i += StripeWidth)
                {
                    sum += Interlocked.Read(ref hits[i]);
                }

                return sum;
            }
        }

        internal Entry? Get(MemoryKey key) => byKey.TryGetValue(key, out var e) ? e : null;

        internal void Hit(Entry e)
        {
            Interlocked.Increment(ref hits[(Environment.CurrentManagedThreadId & (Stripes - 1)) * StripeWidth]);
            e.Use();
        }

        /// <summary>Adds an entry, unless it is too large.</summary>
        internal bool Put(Entry e)
        {
            if (e.Bytes > maxBytes || maxEntries < 1)
            {
                return false;
            }

            if (byKey.TryGetValue(e.Key, out var old))
            {
                Remove(old);
            }

            while (ring.Count > 0 && (ring.Count >= maxEntries || bytes + e.Bytes > maxBytes))
            {
                Remove(Victim());
            }

            e.Slot = ring.Count;
            ring.Add(e);
            byKey[e.Key] = e;
            bytes += e.Bytes;
            Volatile.Write(ref size, ring.Count);
            return true;
        }

        /// <summary>Takes an entry out, if it is there; the last of the ring takes its place.</summary>
        internal void Remove(Entry e)
        {
            if (e.Slot >= ring.Count || !ReferenceEquals(ring[e.Slot], e))
            {
                return;
            }

            var last = ring[ring.Count - 1];
            ring[e.Slot] = last;
            last.Slot = e.Slot;
            ring.RemoveAt(ring.Count - 1);
            hand = hand >= ring.Count ? 0 : hand;
            byKey.TryRemove(e.Key, out _);
            bytes -= e.Bytes;
            Volatile.Write(ref size, ring.Count);
            left(e);
        }

        internal void Clear()
        {
            byKey.Clear();
            ring.Clear();
            hand = 0;
            bytes = 0;
            Volatile.Write(ref size, 0);
        }

        /// <summary>
        /// Advances the hand of the clock to an entry that is void, or was not used since the hand last passed.
        /// </summary>
        private Entry Victim()
        {
            for (; ;)
            {
                var e = ring[hand];
                hand = (hand + 1) % ring.Count;
                if (e.IsVoid || !e.WasUsed)
                {
                    return e;
                }
            }
        }
    }
}
