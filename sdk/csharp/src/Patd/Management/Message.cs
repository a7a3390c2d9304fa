using System;
using System.Collections.Generic;
using System.Globalization;
using System.Linq;

namespace Patd.Management
{
    /// <summary>
    /// A JSON object of patd. A member that is absent has the value that means nothing: an empty text or list, 0,
    /// false, or null for a time, a duration and another message. Members that this version of the library does not
    /// know stay.
    /// </summary>
    public abstract class Message
    {
        internal Dictionary<string, object?> Members { get; private set; } =
            new Dictionary<string, object?>(StringComparer.Ordinal);

        /// <summary>Returns the name of the type: members may be secrets.</summary>
        public override string ToString() => GetType().Name;

        internal static T Of<T>(object? value)
            where T : Message, new() =>
            new T { Members = value as Dictionary<string, object?> ?? new Dictionary<string, object?>() };

        private protected object? GetValue(string name) => Members.TryGetValue(name, out var value) ? value : null;

        private protected void SetValue(string name, object? value)
        {
            if (value == null)
            {
                Members.Remove(name);
            }
            else
            {
                Members[name] = value;
            }
        }

        private protected string GetText(string name) => GetValue(name) as string ?? "";

        private protected void SetText(string name, string value) => SetValue(name, value);

        private protected bool GetFlag(string name) => GetValue(name) is true;

        private protected void SetFlag(string name, bool value) => SetValue(name, value);

        private protected int GetInt(string name) => (int)Math.Max(int.MinValue, Math.Min(int.MaxValue, GetLong(name)));

        private protected void SetInt(string name, int value) => SetValue(name, value);

        // JSON has it as a text.
        private protected long GetLong(string name)
        {
            var value = GetValue(name);
            var text = value is JsonNumber number ? number.Text : Convert.ToString(value, CultureInfo.InvariantCulture);
            return long.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out var n) ? n : 0;
        }

        private protected void SetLong(string name, long value) =>
            SetValue(name, value.ToString(CultureInfo.InvariantCulture));

        private protected DateTimeOffset? GetTime(string name) =>
            DateTimeOffset.TryParse(GetText(name), CultureInfo.InvariantCulture, DateTimeStyles.RoundtripKind, out var t)
                ? t : (DateTimeOffset?)null;

        private protected void SetTime(string name, DateTimeOffset? value) => SetValue(name,
            value?.ToUniversalTime().ToString("yyyy-MM-dd'T'HH:mm:ss.FFFFFFF'Z'", CultureInfo.InvariantCulture));

        private protected TimeSpan? GetSpan(string name)
        {
            var text = GetText(name);
            return text.EndsWith("s", StringComparison.Ordinal) && decimal.TryParse(text.Substring(0, text.Length - 1),
                NumberStyles.AllowLeadingSign | NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out var n)
                && Math.Abs(n) < 100_000_000_000m
                ? new TimeSpan((long)(n * TimeSpan.TicksPerSecond)) : (TimeSpan?)null;
        }

        private protected void SetSpan(string name, TimeSpan? value) => SetValue(name, value == null ? null
            : ((decimal)value.Value.Ticks / TimeSpan.TicksPerSecond).ToString("0.#######", CultureInfo.InvariantCulture)
            + "s");

        private protected IReadOnlyList<string> GetTexts(string name) =>
            (GetValue(name) as List<object?> ?? new List<object?>()).OfType<string>().ToList();

        private protected void SetTexts(string name, IReadOnlyList<string> value) =>
            SetValue(name, value?.Cast<object?>().ToList());

        private protected IReadOnlyDictionary<string, string> GetLabels(string name) =>
            (GetValue(name) as Dictionary<string, object?> ?? new Dictionary<string, object?>())
            .ToDictionary(m => m.Key, m => m.Value as string ?? "");

        private protected void SetLabels(string name, IReadOnlyDictionary<string, string> value) =>
            SetValue(name, value?.ToDictionary(m => m.Key, m => (object?)m.Value));

        private protected T? GetChild<T>(string name)
            where T : Message, new() => GetValue(name) == null ? null : Of<T>(GetValue(name));

        private protected void SetChild(string name, Message? value) => SetValue(name, value?.Members);

        private protected IReadOnlyList<T> GetChildren<T>(string name)
            where T : Message, new() => List<T>(GetValue(name));

        internal static List<T> List<T>(object? value)
            where T : Message, new() => (value as List<object?> ?? new List<object?>()).Select(Of<T>).ToList();

        private protected void SetChildren(string name, IEnumerable<Message> value) =>
            SetValue(name, value?.Select(m => (object?)m.Members).ToList());
    }
}
