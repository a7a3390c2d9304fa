using System;
using System.IO;
using System.Text;
using System.Threading;
using System.Threading.Tasks;

namespace Patd
{
    /// <summary>Reads server-sent events (WHATWG HTML, section 9.2) from a stream of bytes.</summary>
    internal sealed class EventReader
    {
        /// <summary>The longest event, in characters.</summary>
        private const int Longest = 4 << 20;

        private readonly Stream stream;
        private readonly Decoder decoder = new UTF8Encoding(false).GetDecoder();
        private readonly byte[] bytes = new byte[8192];
        private readonly char[] chars = new char[8193];
        private readonly StringBuilder line = new StringBuilder();
        private int at;
        private int end;
        private bool begun;
        private bool afterReturn; // a line feed that comes next belongs to the carriage return before it

        internal EventReader(Stream stream) => this.stream = stream;

        /// <summary>The name of the event that was read last.</summary>
        internal string Type { get; private set; } = "";

        /// <summary>The data of the event that was read last.</summary>
        internal string Data { get; private set; } = "";

        /// <summary>
        /// Reads the next event; false at the end of the stream. What no empty line ended is no event.
        /// </summary>
        internal async Task<bool> NextAsync(CancellationToken cancel)
        {
            var type = "";
            StringBuilder? data = null;
            var length = 0;
            while (await ReadLineAsync(Longest - length, cancel).ConfigureAwait(false))
            {
                if (line.Length == 0)
                {
                    if (data != null)
                    {
                        Type = type == "" ? "message" : type;
                        Data = data.ToString();
                        return true;
                    }

                    type = "";
                    length = 0;
                    continue;
                }

                var text = line.ToString();
                length += text.Length;
                var colon = text.IndexOf(':');
                if (colon == 0)
                {
                    continue; // a comment
                }

                var field = colon < 0 ? text : text.Substring(0, colon);
                var content = colon < 0 ? "" : text.Substring(colon + 1);
                content = content.StartsWith(" ", StringComparison.Ordinal) ? content.Substring(1) : content;
                if (field == "event")
                {
                    type = content;
                }
                else if (field == "data")
                {
                    data = data == null ? new StringBuilder() : data.Append('\n');
                    data.Append(content);
                }
            }

            return false;
        }

        private async Task<bool> ReadLineAsync(int longest, CancellationToken cancel)
        {
            line.Clear();
            for (; ;)
            {
                if (at == end && !await FillAsync(cancel).ConfigureAwait(false))
                {
                    return false;
                }

                var c = chars[at++];
                var feed = c == '\n' && afterReturn;
                afterReturn = c == '\r';
                if (feed)
                {
                    continue;
                }

                if (c == '\n' || c == '\r')
                {
                    return true;
                }

                if (line.Length >= longest)
                {
                    throw PatdFaultException.Nonsense("an event of patd is too long");
                }

                line.Append(c);
            }
        }

        private async Task<bool> FillAsync(CancellationToken cancel)
        {
            do
            {
                var n = await stream.ReadAsync(bytes, 0, bytes.Length, cancel).ConfigureAwait(false);
                if (n == 0)
                {
                    return false;
                }

                at = 0;
                end = decoder.GetChars(bytes, 0, n, chars, 0);
                if (!begun && end > 0)
                {
                    begun = true;
                    at = chars[0] == '\ufeff' ? 1 : 0;
                }
            }
            while (at == end);
            return true;
        }
    }
}
