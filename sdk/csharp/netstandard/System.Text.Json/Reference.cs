// What the core uses of System.Text.Json, as a reference assembly: something to compile against where NuGet cannot be
// reached. It has no code. The tests run the core with the System.Text.Json of .NET.
using System.Collections;
using System.Collections.Generic;
using System.IO;
using System.Runtime.CompilerServices;

[assembly: ReferenceAssembly]

namespace System.Text.Json
{
    public enum JsonValueKind : byte
    {
        Undefined,
        Object,
        Array,
        String,
        Number,
        True,
        False,
        Null,
    }

    public struct JsonDocumentOptions
    {
    }

    public struct JsonWriterOptions
    {
    }

    public class JsonException : Exception
    {
    }

    public sealed class JsonDocument : IDisposable
    {
        internal JsonDocument()
        {
        }

        public JsonElement RootElement => throw null!;

        public static JsonDocument Parse(Stream utf8Json, JsonDocumentOptions options = default) => throw null!;

        public void Dispose() => throw null!;
    }

    public readonly struct JsonElement
    {
        public JsonValueKind ValueKind => throw null!;

        public ArrayEnumerator EnumerateArray() => throw null!;

        public ObjectEnumerator EnumerateObject() => throw null!;

        public int GetArrayLength() => throw null!;

        public string GetRawText() => throw null!;

        public string GetString() => throw null!;

        public struct ArrayEnumerator : IEnumerable<JsonElement>, IEnumerator<JsonElement>
        {
            public JsonElement Current => throw null!;

            object IEnumerator.Current => throw null!;

            public void Dispose() => throw null!;

            public ArrayEnumerator GetEnumerator() => throw null!;

            public bool MoveNext() => throw null!;

            public void Reset() => throw null!;

            IEnumerator<JsonElement> IEnumerable<JsonElement>.GetEnumerator() => throw null!;

            IEnumerator IEnumerable.GetEnumerator() => throw null!;
        }

        public struct ObjectEnumerator : IEnumerable<JsonProperty>, IEnumerator<JsonProperty>
        {
            public JsonProperty Current => throw null!;

            object IEnumerator.Current => throw null!;

            public void Dispose() => throw null!;

            public ObjectEnumerator GetEnumerator() => throw null!;

            public bool MoveNext() => throw null!;

            public void Reset() => throw null!;

            IEnumerator<JsonProperty> IEnumerable<JsonProperty>.GetEnumerator() => throw null!;

            IEnumerator IEnumerable.GetEnumerator() => throw null!;
        }
    }

    public readonly struct JsonProperty
    {
        public string Name => throw null!;

        public JsonElement Value => throw null!;
    }

    public sealed class Utf8JsonWriter : IDisposable
    {
        public Utf8JsonWriter(Stream utf8Json, JsonWriterOptions options = default) => throw null!;

        public void Dispose() => throw null!;

        public void WriteBooleanValue(bool value) => throw null!;

        public void WriteEndArray() => throw null!;

        public void WriteEndObject() => throw null!;

        public void WriteNullValue() => throw null!;

        public void WriteNumberValue(double value) => throw null!;

        public void WriteNumberValue(int value) => throw null!;

        public void WriteNumberValue(long value) => throw null!;

        public void WritePropertyName(string propertyName) => throw null!;

        public void WriteStartArray() => throw null!;

        public void WriteStartObject() => throw null!;

        public void WriteString(string propertyName, string value) => throw null!;

        public void WriteStringValue(string value) => throw null!;
    }
}
