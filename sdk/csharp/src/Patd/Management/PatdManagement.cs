using System;
using System.Collections.Generic;
using System.Globalization;
using System.Linq;
using System.Net.Http;
using System.Runtime.CompilerServices;
using System.Threading;
using System.Threading.Tasks;

namespace Patd.Management
{
    /// <summary>Configures <see cref="PatdManagement"/>.</summary>
    public sealed class PatdManagementOptions : PatdOptions
    {
        /// <summary>Bounds a call with all its repetitions.</summary>
        public TimeSpan Timeout { get; set; } = TimeSpan.FromSeconds(30);

        /// <summary>How often a call is sent at most, where that is safe.</summary>
        public int Attempts { get; set; } = 4;
    }

    /// <summary>What is special about one call.</summary>
    public sealed class CallOptions
    {
        /// <summary>
        /// Changes a record only if it still has this etag. Then the call is not repeated by itself.
        /// </summary>
        public string? Etag { get; set; }

        /// <summary>
        /// The key of a call that creates or rotates, at least 16 characters that are hard to guess. By default each
        /// call has one of its own, so that a repetition returns the first secret.
        /// </summary>
        public string? IdempotencyKey { get; set; }
    }

    /// <summary>
    /// Calls the operations of patd. Calls that create or rotate carry an idempotency key of their own, so they are
    /// repeated safely when a connection breaks; a change that could happen twice is not repeated. A failed call throws
    /// a <see cref="PatdCallException"/>. It is safe for use by many threads.
    /// </summary>
    public sealed partial class PatdManagement : IDisposable
    {
        private const int LongestAnswer = 64 << 20;
        private static readonly TimeSpan LongestPause = TimeSpan.FromSeconds(10);
        private static readonly string[] NoPath = new string[0];

        private readonly PatdConnection connection;
        private readonly TimeSpan timeout;
        private readonly int attempts;
        private readonly Random random = new Random();

        /// <summary>Makes a client.</summary>
        public PatdManagement(PatdManagementOptions options)
        {
            connection = new PatdConnection(options);
            timeout = options.Timeout;
            attempts = options.Attempts;
        }

        /// <inheritdoc/>
        public void Dispose() => connection.Dispose();

        private sealed class Operation
        {
            internal Operation(string id, string method, string path, bool key, bool repeat, string items, string ask,
                string next)
            {
                Id = id;
                Method = new HttpMethod(method);
                Path = path;
                HasKey = key;
                MayRepeat = repeat;
                Items = items;
                Ask = ask;
                Next = next;
            }

            internal string Id { get; }

            internal HttpMethod Method { get; }

            internal string Path { get; }

            internal bool HasKey { get; }

            internal bool MayRepeat { get; }

            // The member with the items of a page, the parameter that asks for one, and the member with its next value.
            internal string Items { get; }

            internal string Ask { get; }

            internal string Next { get; }
        }

        private async Task<T> CallAsync<T>(Operation operation, string[] path, Message? query, Message? body,
            CallOptions? options, CancellationToken cancel)
            where T : Message, new() =>
            Message.Of<T>(await SendAsync(operation, path, query?.Members, body, options, cancel)
                .ConfigureAwait(false));

        private Task CallAsync(Operation operation, string[] path, Message? query, Message? body, CallOptions? options,
            CancellationToken cancel) => SendAsync(operation, path, query?.Members, body, options, cancel);

        private async IAsyncEnumerable<T> ListAsync<T>(Operation operation, string[] path, Message? query,
            CallOptions? options, [EnumeratorCancellation] CancellationToken cancel)
            where T : Message, new()
        {
            var members = new Dictionary<string, object?>(query?.Members ?? new Dictionary<string, object?>());
            for (; ;)
            {
                var page = await SendAsync(operation, path, members, null, options, cancel).ConfigureAwait(false)
                    as Dictionary<string, object?> ?? new Dictionary<string, object?>();
                page.TryGetValue(operation.Items, out var items);
                foreach (var one in Message.List<T>(items))
                {
                    yield return one;
                }

                page.TryGetValue(operation.Next, out var next);
                if (!(next is string text) || text == "")
                {
                    yield break;
                }

                members[operation.Ask] = text;
            }
        }

        private async Task<object?> SendAsync(Operation operation, string[] path, Dictionary<string, object?>? query,
            Message? body, CallOptions? options, CancellationToken cancel)
        {
            var key = options?.IdempotencyKey ?? (operation.HasKey ? Guid.NewGuid().ToString() : null);
            var repeat = (operation.MayRepeat || key != null) && options?.Etag == null;
            var address = Fill(operation, path) + Search(query);
            var text = body == null ? null : Json.Write(body.Members);
            void Change(HttpRequestMessage request)
            {
                if (key != null)
                {
                    request.Headers.TryAddWithoutValidation("Idempotency-Key", key);
                }

                if (options?.Etag != null)
                {
                    request.Headers.TryAddWithoutValidation("If-Match", options.Etag);
                }
            }

            using (var alarm = CancellationTokenSource.CreateLinkedTokenSource(cancel))
            {
                alarm.CancelAfter(timeout);
                var pause = TimeSpan.Zero;
                for (var attempt = 1; ; attempt++)
                {
                    try
                    {
                        await Task.Delay(pause, alarm.Token).ConfigureAwait(false);
                        return await AttemptAsync(operation, address, text, Change, alarm.Token).ConfigureAwait(false);
                    }
                    catch (PatdCallException err) when (attempt < attempts && Pause(err, repeat, attempt) is TimeSpan p)
                    {
                        pause = p;
                    }
                    catch (Exception err) when (alarm.IsCancellationRequested && !(err is PatdCallException))
                    {
                        cancel.ThrowIfCancellationRequested();
                        throw new PatdCallException(0, "DEADLINE_EXCEEDED", "patd did not answer in time", err);
                    }
                }
            }
        }

        private async Task<object?> AttemptAsync(Operation operation, string address, byte[]? body,
            Action<HttpRequestMessage> change, CancellationToken cancel)
        {
            HttpResponseMessage response;
            try
            {
                response = await connection.SendAsync(operation.Method, address, body, change, cancel)
                    .ConfigureAwait(false);
            }
            catch (HttpRequestException err)
            {
                throw new PatdCallException(0, "UNAVAILABLE", "the connection to patd failed", err);
            }
            catch (Exception err) when (!(err is OperationCanceledException))
            {
                throw new PatdCallException(0, "UNAUTHENTICATED", "the token of this program cannot be read", err);
            }

            using (response)
            {
                var status = (int)response.StatusCode;
                System.IO.MemoryStream read;
                try
                {
                    read = await PatdConnection.ReadAsync(response, LongestAnswer, cancel).ConfigureAwait(false);
                }
                catch (Exception err) when (!cancel.IsCancellationRequested)
                {
                    throw new PatdCallException(0, "UNAVAILABLE", "the connection to patd failed", err);
                }

                object? value = null;
                var isJson = true;
                try
                {
                    value = read.Length == 0 ? null : Json.Read(read.GetBuffer(), (int)read.Length);
                }
                catch (PatdFaultException)
                {
                    isJson = false;
                }

                if (status / 100 == 2)
                {
                    return isJson ? value
                        : throw new PatdCallException(status, "INTERNAL", "the answer of patd is not JSON");
                }

                var id = response.Headers.TryGetValues("X-Request-Id", out var ids) ? ids.First() : "";
                throw PatdCallException.Read(status, value, id, response.Headers.RetryAfter?.Delta);
            }
        }

        private static string Fill(Operation operation, string[] values)
        {
            var n = 0;
            return System.Text.RegularExpressions.Regex.Replace(operation.Path, @"\{\w+\}", _ =>
            {
                var value = values[n++];
                // A segment of dots would be folded away, and the call would be another one.
                return string.IsNullOrEmpty(value) || value == "." || value == ".."
                    ? throw new ArgumentException("an id in the path of " + operation.Id + " is empty or dots")
                    : Uri.EscapeDataString(value);
            });
        }

        private static string Search(Dictionary<string, object?>? query)
        {
            var out_ = new List<string>();
            foreach (var member in query ?? new Dictionary<string, object?>())
            {
                foreach (var one in member.Value as List<object?> ?? new List<object?> { member.Value })
                {
                    var text = one is bool yes ? (yes ? "true" : "false")
                        : Convert.ToString(one, CultureInfo.InvariantCulture) ?? "";
                    out_.Add(member.Key + "=" + Uri.EscapeDataString(text));
                }
            }

            return out_.Count == 0 ? "" : "?" + string.Join("&", out_);
        }

        /// <summary>Returns how long to wait before a call is repeated; null: it is not.</summary>
        private TimeSpan? Pause(PatdCallException err, bool repeat, int attempt)
        {
            var busy = err.HttpStatus == 429; // the call was refused before it began
            var lost = err.Status == "UNAVAILABLE" || (err.HttpStatus >= 502 && err.HttpStatus <= 504);
            if (!busy && !(lost && repeat))
            {
                return null;
            }

            if (err.RetryAfter is TimeSpan after)
            {
                return after > LongestPause ? (TimeSpan?)null : after;
            }

            lock (random)
            {
                return TimeSpan.FromMilliseconds((100 << attempt) * (0.5 + random.NextDouble()));
            }
        }
    }
}
