using System;
using System.Security.Cryptography;

namespace Patd
{
    /// <summary>The form of tokens.</summary>
    public static class TokenForm
    {
        /// <summary>The longest text that can be a token, in bytes.</summary>
        internal const int MaxToken = 256;

        private const string Digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

        // The digits stand in the order of their codes, so that numbers of one length compare as texts do.
        private const string ZeroId = "00000000000";
        private const string LargestId = "LygHa16AHYF"; // 2^64 - 1
        private const string LargestSecret = "yhjskwdA6OZ1AL1YmHWZWm8LLG7HjnuCA2j5rOw8Xp1"; // 2^256 - 1
        private const int IdLength = 11, SecretLength = 43, SumLength = 6, MaxPrefix = 16;

        private static readonly uint[] Table = MakeTable();

        /// <summary>
        /// Reports whether a text has the form of a token that may be introspected, checksum included. Any prefix but
        /// those of service and refresh tokens is good: patd decides which ones it uses.
        /// </summary>
        public static bool IsPlausible(string text)
        {
            var prefix = text.Length - (1 + IdLength + 1 + SecretLength + SumLength);
            if (prefix < 2 || prefix > MaxPrefix || text[0] < 'a' || text[0] > 'z')
            {
                return false;
            }

            for (var i = 1; i < prefix; i++)
            {
                if (!(text[i] >= 'a' && text[i] <= 'z') && !(text[i] >= '0' && text[i] <= '9'))
                {
                    return false;
                }
            }

            int id = prefix + 1, secret = id + IdLength + 1, sum = secret + SecretLength;
            if (text[prefix] != '_' || text[secret - 1] != '_' || !AreDigits(text, id, IdLength) ||
                !AreDigits(text, secret, SecretLength + SumLength))
            {
                return false;
            }

            if (prefix == 4 && (text.StartsWith("pats", StringComparison.Ordinal)
                || text.StartsWith("patr", StringComparison.Ordinal)))
            {
                return false;
            }

            return string.CompareOrdinal(text, id, ZeroId, 0, IdLength) != 0 &&
                string.CompareOrdinal(text, id, LargestId, 0, IdLength) <= 0 &&
                string.CompareOrdinal(text, secret, LargestSecret, 0, SecretLength) <= 0 &&
                string.CompareOrdinal(text, sum, Checksum(text, sum), 0, SumLength) == 0;
        }

        /// <summary>Returns a new token text of random bits, for tests. Nothing else knows it.</summary>
        internal static string Random(out string id)
        {
            id = "1" + RandomDigits(IdLength - 1);
            var body = "pat_" + id + "_0" + RandomDigits(SecretLength - 1);
            return body + Checksum(body, body.Length);
        }

        private static string RandomDigits(int n)
        {
            var bytes = new byte[n];
            using (var random = RandomNumberGenerator.Create())
            {
                random.GetBytes(bytes);
            }

            var out_ = new char[n];
            for (var i = 0; i < n; i++)
            {
                out_[i] = Digits[bytes[i] % Digits.Length];
            }

            return new string(out_);
        }

        private static bool AreDigits(string text, int from, int n)
        {
            for (var i = from; i < from + n; i++)
            {
                var c = text[i];
                if (!(c >= '0' && c <= '9') && !(c >= 'A' && c <= 'Z') && !(c >= 'a' && c <= 'z'))
                {
                    return false;
                }
            }

            return true;
        }

        /// <summary>Returns the CRC-32 (IEEE) of the beginning of an ASCII text, as 6 base62 digits.</summary>
        private static string Checksum(string text, int length)
        {
            var c = 0xffffffffu;
            for (var i = 0; i < length; i++)
            {
                c = Table[(c ^ text[i]) & 0xff] ^ (c >> 8);
            }

            var n = c ^ 0xffffffffu;
            var out_ = new char[SumLength];
            for (var i = SumLength - 1; i >= 0; i--)
            {
                out_[i] = Digits[(int)(n % 62)];
                n /= 62;
            }

            return new string(out_);
        }

        private static uint[] MakeTable()
        {
            var table = new uint[256];
            for (uint i = 0; i < 256; i++)
            {
                var c = i;
                for (var bit = 0; bit < 8; bit++)
                {
                    c = (c & 1) != 0 ? (c >> 1) ^ 0xedb88320u : c >> 1;
                }

                table[i] = c;
            }

            return table;
        }
    }
}
