using System;
using System.Collections.Generic;
using System.IO;
using System.Text;
using System.Text.Json;

namespace Patd
{
    /// <summary>
    /// JSON as plain objects: dictionaries, lists, texts, numbers as their text in a <see cref="JsonNumber"/>,
    /// booleans, null. The only part that knows System.Text.Json.
    /// </summary>
    internal static class Json
    {
        /// <summary>Reads a text. What is no JSON, or nested more than 64 deep, is a fault without the text.</summary>
        internal static object? Read(byte[] text, int length)
        {
            try
            {
                using (var document = JsonDocument.Parse(new MemoryStream(text, 0, length, false)))
                {
                    return Plain(document.RootElement);
                }
            }
            catch (Exception err) when (err is JsonException || err is InvalidOperationException)
            {
                throw PatdFaultException.Nonsense("the answer of patd is not JSON");
            }
        }

        internal static object? Read(string text)
        {
            var bytes = Encoding.UTF8.GetBytes(text);
            return Read(bytes, bytes.Length);
        }

        /// <summary>Writes what Read returns, and numbers.</summary>
        internal static byte[] Write(object? value)
        {
            var out_ = new MemoryStream();
            using (var writer = new Utf8JsonWriter(out_))
            {
                Write(writer, value);
            }

            return out_.ToArray();
        }

        private static object? Plain(JsonElement element)
        {
            switch (element.ValueKind)
            {
                case JsonValueKind.Object:
                    var object_ = new Dictionary<string, object?>(StringComparer.Ordinal);
                    foreach (var member in element.EnumerateObject())
                    {
                        object_[member.Name] = Plain(member.Value);
                    }

                    return object_;
                case JsonValueKind.Array:
                    var list = new List<object?>(element.GetArrayLength());
                    foreach (var one in element.EnumerateArray())
                    {
                        list.Add(Plain(one));
                    }

                    return list;
                case JsonValueKind.String:
                    return element.GetString();
                case JsonValueKind.Number:
                    return new JsonNumber(element.GetRawText());
                case JsonValueKind.True:
                    return true;
                case JsonValueKind.False:
                    return false;
                default:
                    return null;
            }
        }

        private static void Write(Utf8JsonWriter writer, object? value)
        {
            switch (value)
            {
                case null:
                    writer.WriteNullValue();
                    break;
                case string text:
                    writer.WriteStringValue(text);
                    break;
                case bool yes:
                    writer.WriteBooleanValue(yes);
                    break;
                case int n:
                    writer.WriteNumberValue(n);
                    break;
                case long n:
                    writer.WriteNumberValue(n);
                    break;
                case double n:
                    writer.WriteNumberValue(n);
                    break;
                case IReadOnlyDictionary<string, object?> members:
                    writer.WriteStartObject();
                    foreach (var member in members)
                    {
                        writer.WritePropertyName(member.Key);
                        Write(writer, member.Value);
                    }

                    writer.WriteEndObject();
                    break;
                case IReadOnlyDictionary<string, string> members:
                    writer.WriteStartObject();
                    foreach (var member in members)
                    {
                        writer.WriteString(member.Key, member.Value);
                    }

                    writer.WriteEndObject();
                    break;
                case System.Collections.IEnumerable list:
                    writer.WriteStartArray();
                    foreach (var one in list)
                    {
                        Write(writer, one);
                    }

                    writer.WriteEndArray();
                    break;
                default:
                    throw new ArgumentException("JSON has no " + value.GetType());
            }
        }
    }

    /// <summary>A number as it was written.</summary>
    internal readonly struct JsonNumber
    {
        internal JsonNumber(string text) => Text = text;

        internal string Text { get; }
    }
}
