using System;
using System.Collections.Generic;
using System.Linq;

namespace Patd.Management
{
    /// <summary>What is wrong with a field of a request.</summary>
    public sealed class FieldViolation
    {
        internal FieldViolation(string field, string description, string reason)
        {
            Field = field;
            Description = description;
            Reason = reason;
        }

        /// <summary>The field, in snake_case.</summary>
        public string Field { get; }

        /// <summary>What is wrong, for people.</summary>
        public string Description { get; }

        /// <summary>Why, for programs; empty: it does not say.</summary>
        public string Reason { get; }
    }

    /// <summary>
    /// A call of the management client that failed. Decide by <see cref="Reason"/>, which is stable, not by the
    /// message.
    /// </summary>
    public sealed class PatdCallException : Exception
    {
        internal PatdCallException(int httpStatus, string status, string message, Exception? cause = null)
            : base(message, cause)
        {
            HttpStatus = httpStatus;
            Status = status;
        }

        /// <summary>The status of the response; 0: there was none. Then a change may have happened.</summary>
        public int HttpStatus { get; }

        /// <summary>The name of the status, such as <c>INVALID_ARGUMENT</c>.</summary>
        public string Status { get; }

        /// <summary>The stable reason, as docs/api.md lists them; empty: none.</summary>
        public string Reason { get; private set; } = "";

        /// <summary>What programs may know besides.</summary>
        public IReadOnlyDictionary<string, string> Metadata { get; private set; } = new Dictionary<string, string>();

        /// <summary>What is wrong with which fields.</summary>
        public IReadOnlyList<FieldViolation> Violations { get; private set; } = new List<FieldViolation>();

        /// <summary>The id of the request in patd's logs; empty: not known.</summary>
        public string RequestId { get; private set; } = "";

        /// <summary>How long to wait before the call is repeated, if patd says so.</summary>
        public TimeSpan? RetryAfter { get; private set; }

        /// <summary>Reads the error of a response. What is not of patd's form has a status and no reason.</summary>
        internal static PatdCallException Read(int httpStatus, object? body, string requestId, TimeSpan? retryAfter)
        {
            var error = Members(Member(body, "error"));
            var err = new PatdCallException(httpStatus, Text(error, "status", "UNKNOWN"),
                Text(error, "message", "patd answered with status " + httpStatus))
            {
                RequestId = requestId,
                RetryAfter = retryAfter,
            };
            var violations = new List<FieldViolation>();
            foreach (var detail in (Member(error, "details") as List<object?> ?? new List<object?>()).Select(Members))
            {
                if (Text(detail, "@type", "").EndsWith("google.rpc.ErrorInfo", StringComparison.Ordinal))
                {
                    err.Reason = Text(detail, "reason", "");
                    err.Metadata = Members(Member(detail, "metadata"))
                        .ToDictionary(m => m.Key, m => m.Value as string ?? "");
                }

                err.RequestId = Text(detail, "request_id", err.RequestId);
                violations.AddRange((Member(detail, "field_violations") as List<object?> ?? new List<object?>())
                    .Select(v => new FieldViolation(Text(v, "field", ""), Text(v, "description", ""),
                        Text(v, "reason", ""))));
            }

            err.Violations = violations;
            return err;
        }

        private static Dictionary<string, object?> Members(object? value) =>
            value as Dictionary<string, object?> ?? new Dictionary<string, object?>();

        private static object? Member(object? of, string name) =>
            Members(of).TryGetValue(name, out var value) ? value : null;

        private static string Text(object? of, string name, string or) => Member(of, name) as string ?? or;
    }
}
