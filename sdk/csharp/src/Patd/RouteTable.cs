using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Text;
using System.Text.RegularExpressions;

namespace Patd
{
    /// <summary>
    /// A table of routes: which scopes a token needs for which requests. <c>patd scopes import</c> writes one, and
    /// docs/routes.md describes it. It closes all that it does not open, and does not change.
    /// </summary>
    public sealed class RouteTable
    {
        private const int MaxTable = 8 << 20;
        private const int MaxPath = 2048;

        private static readonly Regex Method = Whole("[A-Z-]{1,32}");
        private static readonly Regex Scope = Whole("[\\x21\\x23-\\x5b\\x5d-\\x7e]{1,128}");
        private static readonly Regex Plain = Whole("[A-Za-z0-9._~!$&'()*+,=:@-]*");
        private static readonly Regex Parameter = Whole("([^{}]*)\\{[A-Za-z0-9._-]+\\}([^{}]*)");

        /// <summary>By the number of their segments, the most specific first.</summary>
        private readonly ILookup<int, Template> templates;

        private RouteTable(IEnumerable<Template> all) =>
            templates = all.OrderBy(t => t, Comparer<Template>.Create(Template.Compare))
                .ToLookup(t => t.Segments.Count);

        /// <summary>Reads a table in JSON. Throws FormatException for one that is not understood.</summary>
        public static RouteTable Parse(string json)
        {
            if (json.Length > MaxTable)
            {
                throw new FormatException("the table of routes is too large");
            }

            object? read;
            try
            {
                read = Json.Read(json);
            }
            catch (PatdFaultException)
            {
                throw new FormatException("the table of routes is not JSON");
            }

            var table = Members(read, "version", "routes");
            if (!(table["version"] is JsonNumber version) || version.Text != "1")
            {
                throw new FormatException("the table of routes is of another version than 1");
            }

            var shapes = new Dictionary<string, Template>(StringComparer.Ordinal);
            foreach (var one in List(table["routes"]))
            {
                var route = Members(one, "method", "path", "scopes");
                if (!(route["method"] is string method) || !(route["path"] is string path) || !Method.IsMatch(method))
                {
                    throw new FormatException("a route is wrong: " + route["method"] + " " + route["path"]);
                }

                var made = new Template(path);
                if (!shapes.TryGetValue(made.Shape, out var known))
                {
                    shapes[made.Shape] = known = made;
                }

                if (known.Text != path)
                {
                    throw new FormatException(known.Text + " and " + path +
                        " are the same path, but for names, case or a slash");
                }

                if (known.Methods.ContainsKey(method))
                {
                    throw new FormatException(method + " " + path + " is listed twice");
                }

                known.Methods[method] = Scopes(List(route["scopes"]));
            }

            return new RouteTable(shapes.Values);
        }

        /// <summary>Reads a table from a file. Throws FormatException for one that is not understood.</summary>
        public static RouteTable Read(string file) => Parse(File.ReadAllText(file));

        /// <summary>
        /// Returns the scopes that a request needs, at least one; null: it is closed. The path is that of the request
        /// line, without the query and as it was written.
        /// </summary>
        public IReadOnlyList<string>? Find(string method, string path) => Find(method, path, false);

        /// <summary>
        /// Is <see cref="Find(string, string)"/> for a path that the server has decoded, as ASP.NET Core has it.
        /// </summary>
        public IReadOnlyList<string>? FindDecoded(string method, string path) => Find(method, path, true);

        private static Regex Whole(string pattern) =>
            new Regex("\\A(?:" + pattern + ")\\z", RegexOptions.CultureInvariant);

        private static IReadOnlyDictionary<string, object?> Members(object? value, params string[] names)
        {
            if (value is Dictionary<string, object?> members && members.Count == names.Length &&
                names.All(members.ContainsKey))
            {
                return members;
            }

            throw new FormatException(
                "a table of routes has an object with " + string.Join(", ", names) + " there, and nothing else");
        }

        private static List<object?> List(object? value) => value as List<object?>
            ?? throw new FormatException("a table of routes has a list there");

        private static IReadOnlyList<string> Scopes(List<object?> all)
        {
            var scopes = all.Select(s => s is string scope && Scope.IsMatch(scope)
                ? scope : throw new FormatException("no scope: " + s)).ToArray();
            return scopes.Distinct().Count() == scopes.Length
                ? scopes : throw new FormatException("a scope is named twice");
        }

        private IReadOnlyList<string>? Find(string method, string path, bool isDecoded)
        {
            if (!path.StartsWith("/", StringComparison.Ordinal))
            {
                return null;
            }

            var raw = path.Substring(1).Split('/').ToList();
            var slash = raw[raw.Count - 1].Length == 0;
            if (slash)
            {
                raw.RemoveAt(raw.Count - 1);
            }

            var texts = raw.Select(segment => Decode(segment, isDecoded)).ToList();
            if (texts.Contains(null))
            {
                return null;
            }

            var found = templates[raw.Count].FirstOrDefault(t => t.Folded.Zip(texts, (s, text) => s.Holds(text!))
                .All(holds => holds));
            if (found == null || found.Slash != slash || !found.Methods.TryGetValue(method, out var scopes))
            {
                return null;
            }

            var spelled = found.Segments.Zip(raw, (s, text) => s.Spells(text)).All(same => same);
            return spelled && scopes.Count > 0 ? scopes : null;
        }

        /// <summary>
        /// Decodes a segment, in small letters; null: it is empty or dots, it has a character that ends a segment
        /// somewhere or that no path has, or an escape of what needs none.
        /// </summary>
        private static string? Decode(string raw, bool isDecoded)
        {
            if (raw == "" || raw == "." || raw == ".." ||
                (isDecoded && raw.IndexOf("%2f", StringComparison.OrdinalIgnoreCase) >= 0))
            {
                return null;
            }

            var out_ = new StringBuilder(raw.Length);
            for (var i = 0; i < raw.Length; i++)
            {
                var c = raw[i];
                if ((c == '#' || c == '?') && !isDecoded)
                {
                    return null; // no part of a path, and some routers end one there
                }

                if (c == '%' && !isDecoded)
                {
                    var high = i + 2 < raw.Length ? Hex(raw[i + 1]) : -1;
                    var low = i + 2 < raw.Length ? Hex(raw[i + 2]) : -1;
                    if (high < 0 || low < 0)
                    {
                        return null;
                    }

                    c = (char)((high << 4) | low);
                    if (c < 0x80 && (char.IsLetterOrDigit(c) || "-._~/".IndexOf(c) >= 0))
                    {
                        return null;
                    }

                    i += 2;
                }

                if (c < ' ' || c == 0x7f || c == '\\' || c == ';')
                {
                    return null;
                }

                out_.Append(Fold(c));
            }

            return out_.ToString();
        }

        private static int Hex(char c) => c >= '0' && c <= '9' ? c - '0'
            : c >= 'a' && c <= 'f' ? c - 'a' + 10
            : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;

        /// <summary>Turns a letter of ASCII into a small one.</summary>
        private static char Fold(char c) => c >= 'A' && c <= 'Z' ? (char)(c + 'a' - 'A') : c;

        private static string Fold(string text) => new string(text.Select(Fold).ToArray());

        /// <summary>A part of a path between two slashes: a text, or a parameter with texts around it.</summary>
        private sealed class Segment
        {
            private readonly string prefix;
            private readonly string suffix;
            private readonly bool isParameter;

            internal Segment(string text, string path)
            {
                var found = Parameter.Match(text);
                isParameter = found.Success;
                prefix = isParameter ? found.Groups[1].Value : text;
                suffix = isParameter ? found.Groups[2].Value : "";
                if (text == "" || text == "." || text == ".." || !Plain.IsMatch(prefix) || !Plain.IsMatch(suffix))
                {
                    throw new FormatException("no path of a table of routes: " + path);
                }
            }

            private Segment(string prefix, string suffix, bool isParameter)
            {
                this.prefix = prefix;
                this.suffix = suffix;
                this.isParameter = isParameter;
            }

            /// <summary>
            /// A text comes first, then a parameter with texts around it, the longer first, then a parameter alone.
            /// </summary>
            internal int Rank => isParameter ? (2 * MaxPath) - prefix.Length - suffix.Length : 0;

            internal string Shape => "/" + prefix + (isParameter ? "{}" + suffix : "");

            internal Segment InSmallLetters() => new Segment(Fold(prefix), Fold(suffix), isParameter);

            internal bool Spells(string text) => isParameter
                ? text.StartsWith(prefix, StringComparison.Ordinal) && text.EndsWith(suffix, StringComparison.Ordinal)
                : text == prefix;

            internal bool Holds(string text) =>
                Spells(text) && (!isParameter || text.Length > prefix.Length + suffix.Length);
        }

        private sealed class Template
        {
            internal Template(string path)
            {
                if (!path.StartsWith("/", StringComparison.Ordinal) || path.Length > MaxPath)
                {
                    throw new FormatException("no path of a table of routes: " + path);
                }

                var texts = path.Substring(1).Split('/');
                Slash = texts[texts.Length - 1].Length == 0;
                Text = path;
                Segments = texts.Take(Slash ? texts.Length - 1 : texts.Length).Select(t => new Segment(t, path))
                    .ToList();
                Folded = Segments.Select(s => s.InSmallLetters()).ToList();
                Shape = string.Concat(Folded.Select(s => s.Shape));
            }

            internal string Text { get; }

            internal List<Segment> Segments { get; }

            internal List<Segment> Folded { get; }

            internal bool Slash { get; }

            /// <summary>Is equal for templates of the same paths.</summary>
            internal string Shape { get; }

            internal Dictionary<string, IReadOnlyList<string>> Methods { get; } =
                new Dictionary<string, IReadOnlyList<string>>(StringComparer.Ordinal);

            internal static int Compare(Template a, Template b)
            {
                var ranks = a.Segments.Zip(b.Segments, (x, y) => x.Rank.CompareTo(y.Rank));
                var first = ranks.FirstOrDefault(c => c != 0);
                return first != 0 ? first : string.CompareOrdinal(a.Shape, b.Shape);
            }
        }
    }
}
