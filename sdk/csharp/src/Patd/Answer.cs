using System;
using System.Collections.Generic;
using System.Globalization;

namespace Patd
{
    /// <summary>An answer of patd, read.</summary>
    internal sealed class Answer
    {
        /// <summary>How long a final refusal is kept.</summary>
        private static readonly TimeSpan RefusalAge = TimeSpan.FromSeconds(2);

        [ThreadStatic]
        private static Random? chance;

        private Answer(Entry entry, ulong sequence, bool everywhere)
        {
            Entry = entry;
            Sequence = sequence;
            Everywhere = everywhere;
        }

        internal Entry Entry { get; }

        internal ulong Sequence { get; }

        /// <summary>It is good for every address.</summary>
        internal bool Everywhere { get; }

        /// <summary>
        /// Reads an answer that was asked for at a time of the monotonic clock. What contradicts itself is a fault:
        /// nothing is known about the token.
        /// </summary>
        internal static Answer Read(object? body, TimeSpan sent, TimeSpan maxAge)
        {
            var r = Record(body);
            if (!Decisions.TryRead(Get(r, "decision") as string, out var decision) ||
                !(Get(r, "active") is bool active) || active != decision.IsActive())
            {
                throw PatdFaultException.Nonsense("the answer of patd contradicts itself");
            }

            var anywhere = Get(r, "any_client_ip") is true;
            if (!active)
            {
                return new Answer(
                    new Entry(decision, null, sent + RefusalAge)
                    {
                        EndTime = Time(Get(r, "end_time")), ExpireTime = Time(Get(r, "expire_time")),
                    },
                    0,
                    decision.IsFinal() || anywhere);
            }

            chance ??= new Random(Guid.NewGuid().GetHashCode());
            // so that answers do not end together
            var age = maxAge.TotalMilliseconds * (1 - (chance.NextDouble() / 10));
            var until = sent + TimeSpan.FromMilliseconds(age);
            if (Get(r, "expires_in") is object left)
            {
                var end = sent + Duration(left);
                until = end < until ? end : until;
            }

            var token = ReadToken(r);
            return new Answer(new Entry(decision, token, until), Position(Get(r, "sequence") ?? "0"), anywhere);
        }

        /// <summary>Reads a position in the change feed: a decimal number, as text.</summary>
        internal static ulong Position(object? value) =>
            value is string text && ulong.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var n)
                ? n : throw PatdFaultException.Nonsense("a position in the answer of patd is none");

        internal static Dictionary<string, object?> Record(object? value) =>
            value as Dictionary<string, object?>
                ?? throw PatdFaultException.Nonsense("the answer of patd is no object");

        internal static object? Get(Dictionary<string, object?> r, string name) =>
            r.TryGetValue(name, out var value) ? value : null;

        /// <summary>Reads a list of texts; absent: an empty one.</summary>
        internal static IReadOnlyList<string> Texts(object? value)
        {
            if (value == null)
            {
                return Array.Empty<string>();
            }

            var list = value as List<object?>
                ?? throw PatdFaultException.Nonsense("a list in the answer of patd is none");
            var texts = new string[list.Count];
            for (var i = 0; i < texts.Length; i++)
            {
                texts[i] = list[i] as string
                    ?? throw PatdFaultException.Nonsense("a text in the answer of patd is none");
            }

            return Array.AsReadOnly(texts);
        }

        /// <summary>Reads a time of RFC 3339.</summary>
        internal static DateTimeOffset? Time(object? value)
        {
            if (value == null)
            {
                return null;
            }

            var text = value as string ?? "";
            var dot = text.IndexOf('.');
            if (dot > 0)
            {
                var end = dot + 1;
                while (end < text.Length && text[end] >= '0' && text[end] <= '9')
                {
                    end++;
                }

                var digits = Math.Min(end - dot - 1, 7); // a tick is 100 ns
                text = text.Substring(0, dot + 1 + digits) + text.Substring(end);
            }

            return DateTimeOffset.TryParse(text, CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal,
                out var at)
                ? at : throw PatdFaultException.Nonsense("a time in the answer of patd is none");
        }

        private static TimeSpan Duration(object value)
        {
            var text = value as string ?? "";
            const NumberStyles Form = NumberStyles.AllowLeadingSign | NumberStyles.AllowDecimalPoint;
            if (!text.EndsWith("s", StringComparison.Ordinal) ||
                !double.TryParse(text.Substring(0, text.Length - 1), Form, CultureInfo.InvariantCulture,
                    out var seconds) ||
                !(Math.Abs(seconds) < 1e11))
            {
                throw PatdFaultException.Nonsense("a duration in the answer of patd is none");
            }

            return TimeSpan.FromMilliseconds(Math.Floor(seconds * 1000));
        }

        private static VerifiedToken ReadToken(Dictionary<string, object?> r)
        {
            string id = Text(r, "token_id"), user = Text(r, "user");
            if (id == "" || user == "")
            {
                throw PatdFaultException.Nonsense("the answer of patd does not say whose token it is");
            }

            return new VerifiedToken(id, user)
            {
                Name = Text(r, "name"),
                Scopes = Texts(Get(r, "scopes")),
                GrantedScopes = Texts(Get(r, "granted_scopes")),
                SuspendedScopes = Texts(Get(r, "suspended_scopes")),
                PausedScopes = Texts(Get(r, "paused_scopes")),
                Audiences = Texts(Get(r, "audiences")),
                Labels = Labels(Get(r, "labels")),
                IssueTime = Time(Get(r, "issue_time")),
                ExpireTime = Time(Get(r, "expire_time")),
                AccessTokenId = OrNull(Text(r, "access_token_id")),
                ClientId = OrNull(Text(r, "client_id")),
                Stale = Get(r, "stale") is true,
            };
        }

        private static string? OrNull(string text) => text == "" ? null : text;

        private static string Text(Dictionary<string, object?> r, string name)
        {
            var value = Get(r, name);
            return value == null
                ? "" : value as string ?? throw PatdFaultException.Nonsense("a text in the answer of patd is none");
        }

        private static IReadOnlyDictionary<string, string> Labels(object? value)
        {
            var labels = new Dictionary<string, string>(StringComparer.Ordinal);
            if (value != null)
            {
                foreach (var label in Record(value))
                {
                    labels[label.Key] = label.Value as string ??
                        throw PatdFaultException.Nonsense("a label in the answer of patd is none");
                }
            }

            return labels;
        }
    }
}
