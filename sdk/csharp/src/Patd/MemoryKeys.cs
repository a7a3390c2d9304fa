using System;
using System.Security.Cryptography;
using System.Text;

namespace Patd
{
    /// <summary>The key of an answer in memory.</summary>
    internal readonly struct MemoryKey : IEquatable<MemoryKey>
    {
        private readonly ulong high;
        private readonly ulong low;

        internal MemoryKey(ulong high, ulong low)
        {
            this.high = high;
            this.low = low;
        }

        public bool Equals(MemoryKey other) => high == other.high && low == other.low;

        public override bool Equals(object? other) => other is MemoryKey key && Equals(key);

        public override int GetHashCode() => (int)low;

        internal void CopyTo(byte[] into, int at)
        {
            BitConverter.GetBytes(high).CopyTo(into, at);
            BitConverter.GetBytes(low).CopyTo(into, at + 8);
        }
    }

    /// <summary>
    /// Makes the keys of memory: keyed digests of all that an answer depends on. The secrets are random and never leave
    /// the process: memory holds no token, and nobody can search for two tokens that share a key.
    /// </summary>
    internal sealed class MemoryKeys
    {
        private const int SecretLength = 32, MaxAudience = 1024;

        private static readonly UTF8Encoding Strict = new UTF8Encoding(false, true);

        [ThreadStatic]
        private static Scratch? scratch;

        private readonly byte[] first = RandomSecret();
        private readonly byte[] second = RandomSecret();

        /// <summary>
        /// Returns the key of a token at an audience, for every address. The length stands before the token, so that no
        /// two requests have the same encoding. False: the text is not ASCII, so it is no token.
        /// </summary>
        internal bool TryKey(string token, string audience, out MemoryKey key)
        {
            var s = scratch ??= new Scratch();
            Buffer.BlockCopy(first, 0, s.Bytes, 0, SecretLength);
            var end = Encode(token, audience, s, SecretLength);
            key = end < 0 ? default : s.Digest(end);
            return end >= 0;
        }

        /// <summary>
        /// Returns the key of an answer that is good for one address; null: a client whose address is not known.
        /// </summary>
        internal MemoryKey At(MemoryKey key, ClientAddress? address)
        {
            var s = scratch ??= new Scratch();
            Buffer.BlockCopy(second, 0, s.Bytes, 0, SecretLength);
            key.CopyTo(s.Bytes, SecretLength);
            var end = SecretLength + 16;
            if (address != null)
            {
                Buffer.BlockCopy(address.Bytes, 0, s.Bytes, end, 16);
                end += 16;
            }

            return s.Digest(end);
        }

        /// <summary>Throws if a text cannot be an audience.</summary>
        internal static void CheckAudience(string audience)
        {
            try
            {
                if (Strict.GetByteCount(audience) > MaxAudience)
                {
                    throw PatdFaultException.Invalid("an audience has at most 1024 bytes");
                }
            }
            catch (EncoderFallbackException)
            {
                throw PatdFaultException.Invalid("an audience is Unicode text");
            }
        }

        /// <summary>Returns what a key is made of, before it is digested. For the conformance suite.</summary>
        internal static byte[]? Material(string token, string audience)
        {
            var s = new Scratch();
            var end = Encode(token, audience, s, 0);
            if (end < 0)
            {
                return null;
            }

            var out_ = new byte[end];
            Buffer.BlockCopy(s.Bytes, 0, out_, 0, end);
            return out_;
        }

        /// <summary>
        /// Writes length, token and audience; returns where they end, or -1 if the token is not ASCII.
        /// </summary>
        private static int Encode(string token, string audience, Scratch s, int at)
        {
            s.Bytes[at++] = (byte)(token.Length >> 8);
            s.Bytes[at++] = (byte)token.Length;
            foreach (var c in token)
            {
                if (c > 127)
                {
                    return -1;
                }

                s.Bytes[at++] = (byte)c;
            }

            if (!ReferenceEquals(audience, s.Audience))
            {
                CheckAudience(audience);
                s.AudienceBytes = Strict.GetBytes(audience);
                s.Audience = audience;
            }

            Buffer.BlockCopy(s.AudienceBytes, 0, s.Bytes, at, s.AudienceBytes.Length);
            return at + s.AudienceBytes.Length;
        }

        private static byte[] RandomSecret()
        {
            var secret = new byte[SecretLength];
            using (var random = RandomNumberGenerator.Create())
            {
                random.GetBytes(secret);
            }

            return secret;
        }

        /// <summary>What a thread needs to make a key.</summary>
        private sealed class Scratch
        {
            internal readonly byte[] Bytes = new byte[SecretLength + 2 + TokenForm.MaxToken + MaxAudience + 64];
            internal byte[] AudienceBytes = Array.Empty<byte>();
            internal string Audience = "";

            private readonly SHA256 hash = SHA256.Create();

            /// <summary>Returns the key of what Bytes begin with.</summary>
            internal MemoryKey Digest(int end)
            {
#if NETCOREAPP
                Span<byte> digest = stackalloc byte[32];
                if (!hash.TryComputeHash(new ReadOnlySpan<byte>(Bytes, 0, end), digest, out _))
                {
                    throw new InvalidOperationException("a digest has 32 bytes");
                }

                return new MemoryKey(BitConverter.ToUInt64(digest), BitConverter.ToUInt64(digest.Slice(8)));
#else
                var digest = hash.ComputeHash(Bytes, 0, end);
                return new MemoryKey(BitConverter.ToUInt64(digest, 0), BitConverter.ToUInt64(digest, 8));
#endif
            }
        }
    }
}
