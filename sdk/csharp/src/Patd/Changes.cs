using System;
using System.Collections.Generic;

namespace Patd
{
    /// <summary>
    /// Which tokens and users the watch reported, and at which position, so that older answers are recognized. Names
    /// are kept as hashes: two that share one cost a request, never a wrong answer. Old changes are dropped, and the
    /// floor rises instead: an answer below the floor cannot be judged, and is not kept.
    /// </summary>
    internal sealed class Changes
    {
        /// <summary>How many tokens and users each of two generations holds.</summary>
        private const int Remembered = 1 << 15;

        private readonly ulong seed = BitConverter.ToUInt64(Guid.NewGuid().ToByteArray(), 0);
        private Dictionary<ulong, ulong> young = new Dictionary<ulong, ulong>();
        private Dictionary<ulong, ulong> old = new Dictionary<ulong, ulong>();
        private ulong youngest; // the position of the newest change in young
        private ulong oldest; // the same in old

        internal Changes(ulong floor) => Floor = floor;

        internal ulong Floor { get; private set; }

        /// <summary>Records a change of a token ('t') or a user ('u') at a position.</summary>
        internal void Note(char kind, string name, ulong sequence)
        {
            if (young.Count >= Remembered)
            {
                Floor = Math.Max(Floor, oldest);
                old = young;
                oldest = youngest;
                young = new Dictionary<ulong, ulong>();
                youngest = 0;
            }

            var h = Hash(kind, name);
            young[h] = young.TryGetValue(h, out var at) ? Math.Max(at, sequence) : sequence;
            youngest = Math.Max(youngest, sequence);
        }

        /// <summary>Reports whether a token or its user changed after a position.</summary>
        internal bool After(ulong sequence, string token, string user) =>
            After(sequence, Hash('t', token)) || After(sequence, Hash('u', user));

        private bool After(ulong sequence, ulong h) =>
            (young.TryGetValue(h, out var at) && at > sequence) || (old.TryGetValue(h, out at) && at > sequence);

        private ulong Hash(char kind, string name)
        {
            unchecked
            {
                var h = (seed ^ kind) * 0x9e3779b97f4a7c15UL;
                foreach (var c in name)
                {
                    h = (h ^ c) * 0xff51afd7ed558ccdUL;
                    h ^= h >> 32;
                }

                return h;
            }
        }
    }
}
