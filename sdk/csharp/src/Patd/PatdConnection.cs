using System;
using System.IO;
using System.Net;
using System.Net.Http;
using System.Threading;
using System.Threading.Tasks;

namespace Patd
{
    /// <summary>Where patd is, and how this program is known to it.</summary>
    public class PatdOptions
    {
        /// <summary>
        /// The address of patd, such as <c>https://patd.example.com:8080</c>. Plain http is for this machine only.
        /// </summary>
        public Uri? Url { get; set; }

        /// <summary>
        /// Returns the service token of this program. It is called before each request, so that the token can be
        /// rotated; see <see cref="ServiceToken"/>.
        /// </summary>
        public Func<CancellationToken, Task<string>>? Token { get; set; }

        /// <summary>Allows plain http to other machines, which shows every token to the network in between.</summary>
        public bool AllowPlainHttp { get; set; }

        /// <summary>
        /// Sends the requests, in place of a handler of the library's own. It must not follow redirects. It is not
        /// disposed.
        /// </summary>
        public HttpMessageHandler? Handler { get; set; }
    }

    /// <summary>Sources of the service token.</summary>
    public static class ServiceToken
    {
        /// <summary>Returns a source that always returns one token.</summary>
        public static Func<CancellationToken, Task<string>> Of(string token) => _ => Task.FromResult(token);

        /// <summary>
        /// Returns a source that reads a file, at most once a second, so that the token can be rotated without a
        /// restart.
        /// </summary>
        public static Func<CancellationToken, Task<string>> FromFile(string path)
        {
            var gate = new object();
            var until = TimeSpan.MinValue;
            var token = "";
            return _ =>
            {
                lock (gate)
                {
                    var now = Clock.Mono();
                    if (now >= until)
                    {
                        token = File.ReadAllText(path).Trim(); // local, and short
                        until = now + TimeSpan.FromSeconds(1);
                    }

                    return Task.FromResult(token);
                }
            };
        }
    }

    /// <summary>Sends requests to patd.</summary>
    internal sealed class PatdConnection : IDisposable
    {
        private readonly string root;
        private readonly Func<CancellationToken, Task<string>> token;
        private readonly HttpClient client;

        internal PatdConnection(PatdOptions options)
        {
            root = RootOf(options.Url
                ?? throw new ArgumentException("the address of patd is needed"), options.AllowPlainHttp);
            token = options.Token ?? throw new ArgumentException("the service token is needed");
            var handler = options.Handler ?? new HttpClientHandler
            {
                AllowAutoRedirect = false, // a redirect would carry tokens to where it points
                UseCookies = false,
                AutomaticDecompression = DecompressionMethods.None,
                MaxConnectionsPerServer = 1024, // .NET Framework would use two
            };
            client = new HttpClient(handler, options.Handler == null) { Timeout = Timeout.InfiniteTimeSpan };
        }

        public void Dispose() => client.Dispose();

        /// <summary>Sends a request. Throws a fault if there is no response; the status may be any.</summary>
        internal async Task<HttpResponseMessage> SendAsync(
            HttpMethod method, string path, byte[]? body, Action<HttpRequestMessage>? change, CancellationToken cancel)
        {
            var authorization = "Bearer " + Checked(await token(cancel).ConfigureAwait(false));
            var request = new HttpRequestMessage(method, root + path);
            request.Headers.TryAddWithoutValidation("Authorization", authorization);
            if (body != null)
            {
                request.Content = new ByteArrayContent(body);
                request.Content.Headers.TryAddWithoutValidation("Content-Type", "application/json");
            }

            change?.Invoke(request);
            var sent = client.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, cancel);
            try
            {
                return await Waiting.Until(sent, cancel).ConfigureAwait(false);
            }
            catch (OperationCanceledException)
            {
                _ = sent.ContinueWith(t =>
                    t.Result.Dispose(), CancellationToken.None, TaskContinuationOptions.OnlyOnRanToCompletion,
                    TaskScheduler.Default);
                throw;
            }
        }

        /// <summary>Posts a JSON body and returns that of the response, whose status must be 200.</summary>
        internal async Task<object?> PostAsync(string path, object body, TimeSpan timeout, CancellationToken end)
        {
            var text = Json.Write(body);
            using (var alarm = CancellationTokenSource.CreateLinkedTokenSource(end))
            {
                alarm.CancelAfter(timeout);
                try
                {
                    HttpResponseMessage response;
                    try
                    {
                        response = await SendAsync(HttpMethod.Post, path, text, null, alarm.Token)
                            .ConfigureAwait(false);
                    }
                    catch (HttpRequestException)
                    {
                        // A connection that was kept open may have ended. To ask again does no harm.
                        response = await SendAsync(HttpMethod.Post, path, text, null, alarm.Token)
                            .ConfigureAwait(false);
                    }

                    using (response)
                    {
                        Succeeded(response);
                        const int Longest = 4 << 20;
                        var read = await ReadAsync(response, Longest, alarm.Token).ConfigureAwait(false);
                        return Json.Read(read.GetBuffer(), (int)read.Length);
                    }
                }
                catch (Exception err) when (alarm.IsCancellationRequested)
                {
                    throw end.IsCancellationRequested
                        ? PatdFaultException.Closed()
                        : new PatdFaultException(FaultKind.Unavailable, "patd did not answer in time", err);
                }
                catch (Exception err)
                {
                    throw PatdFaultException.Of(err, "ask patd");
                }
            }
        }

        /// <summary>Throws unless the status is 200.</summary>
        internal static void Succeeded(HttpResponseMessage response)
        {
            var status = (int)response.StatusCode;
            if (status != 200)
            {
                var kind = status == 401 || status == 403 ? FaultKind.Forbidden : status == 400
                    ? FaultKind.Invalid : FaultKind.Unavailable;
                throw new PatdFaultException(kind, "patd answered with status " + status);
            }
        }

        /// <summary>Reads a body, up to a number of bytes.</summary>
        internal static async Task<MemoryStream> ReadAsync(HttpResponseMessage response, int longest,
            CancellationToken cancel)
        {
            using (cancel.Register(response.Dispose)) // not every stream heeds the token
            {
                var out_ = new MemoryStream();
                var stream = await response.Content.ReadAsStreamAsync().ConfigureAwait(false);
                var buffer = new byte[8192];
                for (; ;)
                {
                    var n = await stream.ReadAsync(buffer, 0, buffer.Length, cancel).ConfigureAwait(false);
                    if (n == 0)
                    {
                        return out_;
                    }

                    out_.Write(buffer, 0, n);
                    if (out_.Length > longest)
                    {
                        throw PatdFaultException.Nonsense("the answer of patd is too long");
                    }
                }
            }
        }

        private static string Checked(string text)
        {
            text = text.Trim();
            foreach (var c in text)
            {
                if (c < '!' || c > '~')
                {
                    text = "";
                    break;
                }
            }

            // The error does not say it.
            return text != "" ? text
                : throw new ArgumentException("the service token is no token: it has no or other characters");
        }

        private static string RootOf(Uri url, bool allowPlainHttp)
        {
            if (!url.IsAbsoluteUri || url.UserInfo != "" || url.Query != "" || url.Fragment != "")
            {
                throw new ArgumentException("the address of patd is absolute, without user, query or fragment");
            }

            if (url.Scheme != "https" && (url.Scheme != "http" || !(allowPlainHttp || IsLoopback(url))))
            {
                throw new ArgumentException("the address of patd must be https, unless it is this machine: " +
                    url.GetLeftPart(UriPartial.Authority));
            }

            return url.GetLeftPart(UriPartial.Path).TrimEnd('/');
        }

        private static bool IsLoopback(Uri url) =>
            url.Host == "localhost"
                || (IPAddress.TryParse(url.Host.Trim('[', ']'), out var address) && IPAddress.IsLoopback(address));
    }
}
