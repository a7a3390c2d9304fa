using System;

namespace Patd
{
    /// <summary>Why nothing is known about a token.</summary>
    public enum FaultKind
    {
        /// <summary>patd did not answer in time, cannot decide now, or its answer made no sense.</summary>
        Unavailable,

        /// <summary>patd refuses the service token of this program (401, 403).</summary>
        Forbidden,

        /// <summary>The arguments of the call are refused.</summary>
        Invalid,

        /// <summary>The verifier was closed.</summary>
        Closed,
    }

    /// <summary>
    /// A check that has no decision. The call at hand must fail with 503, never with 401, and never pass.
    /// </summary>
    public sealed class PatdFaultException : Exception
    {
        /// <summary>Makes a fault.</summary>
        public PatdFaultException(FaultKind kind, string message, Exception? cause = null)
            : base(message, cause) => Kind = kind;

        /// <summary>Why nothing is known.</summary>
        public FaultKind Kind { get; }

        internal static PatdFaultException Closed() =>
            new PatdFaultException(FaultKind.Closed, "the verifier is closed");

        internal static PatdFaultException Invalid(string message) =>
            new PatdFaultException(FaultKind.Invalid, message);

        internal static PatdFaultException Nonsense(string message) =>
            new PatdFaultException(FaultKind.Unavailable, message);

        /// <summary>Returns the fault that an error is, or stands for.</summary>
        internal static PatdFaultException Of(Exception err, string doing) =>
            err as PatdFaultException ??
            new PatdFaultException(FaultKind.Unavailable, doing + ": " + err.Message, err);
    }
}
