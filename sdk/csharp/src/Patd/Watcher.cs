using System;
using System.Collections.Generic;
using System.Globalization;
using System.Linq;
using System.Net.Http;
using System.Threading;
using System.Threading.Tasks;

namespace Patd
{
    /// <summary>Follows the change feed and updates memory.</summary>
    internal sealed class Watcher
    {
        private static readonly TimeSpan LongPause = TimeSpan.FromSeconds(2);

        /// <summary>For errors that only a change of the server or of its rights resolves.</summary>
        private static readonly TimeSpan HopelessPause = TimeSpan.FromSeconds(15);

        private readonly PatdConnection connection;
        private readonly AnswerMemory memory;
        private readonly Acknowledger acks;
        private readonly Func<Instant> now;
        private readonly Action<string, Exception> log;
        private readonly Random chance = new Random(Guid.NewGuid().GetHashCode());
        private ulong sequence; // where to resume: the last event's position and history
        private string history = "";
        private string watchId = ""; // of the first event of the watch; empty: an older patd
        private long tokenExpires; // ticks; 0: never, or not known

        internal Watcher(PatdConnection connection, AnswerMemory memory, Acknowledger acks, Func<Instant> now,
            Action<string, Exception> log)
        {
            this.connection = connection;
            this.memory = memory;
            this.acks = acks;
            this.now = now;
            this.log = log;
        }

        private enum End
        {
            Renewal, // the server renews the connection, which is no fault
            Hopeless,
        }

        /// <summary>When the service token expires, as of the latest watch.</summary>
        internal DateTimeOffset? TokenExpireTime
        {
            get
            {
                var ticks = Interlocked.Read(ref tokenExpires);
                return ticks == 0 ? (DateTimeOffset?)null : new DateTimeOffset(ticks, TimeSpan.Zero);
            }
        }

        /// <summary>Watches until the cancellation.</summary>
        internal async Task RunAsync(CancellationToken stop)
        {
            for (var tries = 0; !stop.IsCancellationRequested; tries++)
            {
                var began = Clock.Mono();
                End? end = null;
                Exception? fault = null;
                try
                {
                    end = await WatchAsync(stop).ConfigureAwait(false);
                }
                catch (Exception err)
                {
                    fault = err;
                }

                if (stop.IsCancellationRequested)
                {
                    return;
                }

                if (end == End.Renewal || Clock.Mono() - began > LongPause)
                {
                    tries = 0;
                }

                if (end != End.Renewal && tries == 0)
                {
                    log("the watch of patd broke; watching again", fault
                        ?? new PatdFaultException(FaultKind.Forbidden, "patd refuses the watch"));
                }

                var pause = TimeSpan.FromMilliseconds(Math.Min(LongPause.TotalMilliseconds, 50 << Math.Min(tries, 10)));
                pause = end == End.Hopeless ? HopelessPause : pause;
                await Task.Delay(TimeSpan.FromTicks((long)(pause.Ticks * (0.5 + chance.NextDouble()))), stop)
                    .ContinueWith(_ => { }, CancellationToken.None, TaskContinuationOptions.ExecuteSynchronously,
                        TaskScheduler.Default)
                    .ConfigureAwait(false);
            }
        }

        /// <summary>Follows one stream until it ends, breaks or falls silent.</summary>
        private async Task<End> WatchAsync(CancellationToken stop)
        {
            using (var alarm = CancellationTokenSource.CreateLinkedTokenSource(stop))
            {
                // A silent stream is abandoned: its pipe may hold back old events.
                alarm.CancelAfter(AnswerMemory.Silence);
                var from = sequence;
                var pace = new Pace(now());
                var path = "/v1/invalidations" + (from == 0
                    ? "" : "?after=" + from.ToString(CultureInfo.InvariantCulture) + "&history=" +
                        Uri.EscapeDataString(history));
                using (var response = await connection.SendAsync(HttpMethod.Get, path, null, r =>
                    r.Headers.Add("Accept", "text/event-stream"), alarm.Token).ConfigureAwait(false))
                using (alarm.Token.Register(response.Dispose)) // not every stream heeds the token
                {
                    if (!IsWatch(response))
                    {
                        return End.Hopeless;
                    }

                    var events = new EventReader(await response.Content.ReadAsStreamAsync().ConfigureAwait(false));
                    while (await events.NextAsync(alarm.Token).ConfigureAwait(false))
                    {
                        alarm.CancelAfter(AnswerMemory.Silence);
                        if (alarm.IsCancellationRequested)
                        {
                            break;
                        }

                        if (events.Type == "end")
                        {
                            return EndOf(events.Data);
                        }

                        Take(events, pace, from);
                    }

                    throw new PatdFaultException(FaultKind.Unavailable, alarm.IsCancellationRequested
                        ? "the watch was silent" : "the watch ended");
                }
            }
        }

        private void Take(EventReader events, Pace pace, ulong from)
        {
            var r = Answer.Record(Json.Read(events.Data));
            var news = new News(
                Answer.Position(Answer.Get(r, "sequence")),
                Answer.Get(r, "start_over") is true || events.Type == "start-over",
                Answer.Texts(Answer.Get(r, "token_ids")),
                Answer.Texts(Answer.Get(r, "users")));
            var its = Answer.Get(r, "history") as string
                ?? throw PatdFaultException.Nonsense("an event of patd has no history");
            var elapsed = TimeSpan.Zero;
            if (Answer.Get(r, "elapsed_ms") is JsonNumber ms)
            {
                elapsed = TimeSpan.FromMilliseconds(uint.Parse(ms.Text, NumberStyles.None,
                    CultureInfo.InvariantCulture));
            }

            if (pace.IsFirst)
            {
                watchId = Answer.Get(r, "watch_id") as string ?? "";
            }

            var startOver = news.StartOver || (from == 0 && pace.IsFirst);
            if (pace.IsFirst && !startOver)
            {
                memory.Resumed(from);
            }

            memory.Apply(news, startOver);
            sequence = news.Sequence;
            history = its;
            if (Answer.Get(r, "acknowledge") is true && watchId != "")
            {
                acks.Applied(watchId, sequence);
            }

            var known = pace.Event(now(), elapsed, news.IsQuiet, startOver);
            if (pace.Behind.Ticks > AnswerMemory.Silence.Ticks / 2)
            {
                throw new PatdFaultException(FaultKind.Unavailable, "the watch lags");
            }

            var more = Answer.Get(r, "more") is true; // further changes are known, and follow
            if (known != null && !more)
            {
                memory.Known(known.Value);
            }
        }

        /// <summary>Checks the head of a response; false: a retry is unlikely to help.</summary>
        private bool IsWatch(HttpResponseMessage response)
        {
            var status = (int)response.StatusCode;
            if (status == 401 || status == 403 || status == 404)
            {
                return false;
            }

            if (status == 400)
            {
                sequence = 0; // the server does not know the position
            }

            PatdConnection.Succeeded(response);
            if (response.Content.Headers.ContentType?.MediaType != "text/event-stream")
            {
                throw PatdFaultException.Nonsense("patd did not answer with events");
            }

            var expires = response.Headers.TryGetValues("Patd-Token-Expires-At", out var values)
                ? values.FirstOrDefault() : null;
            var at = DateTimeOffset.TryParse(expires, CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal,
                out var time) ? time.UtcTicks : 0;
            Interlocked.Exchange(ref tokenExpires, at);
            return true;
        }

        /// <summary>Returns why a stream ended, if that is no fault, or throws what the server said.</summary>
        private static End EndOf(string data)
        {
            var reason = "no reason";
            if (Json.Read(data) is Dictionary<string, object?> body
                && Answer.Get(body, "error") is Dictionary<string, object?> error &&
                Answer.Get(error, "details") is List<object?> details)
            {
                reason = details.OfType<Dictionary<string, object?>>().Select(d => Answer.Get(d, "reason") as string)
                    .FirstOrDefault(text => text != null) ?? reason;
            }

            return reason == "CONNECTION_AGED"
                ? End.Renewal : throw new PatdFaultException(FaultKind.Unavailable, "patd ended the watch: " + reason);
        }
    }
}
