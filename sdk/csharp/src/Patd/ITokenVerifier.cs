using System.Threading;
using System.Threading.Tasks;

namespace Patd
{
    /// <summary>
    /// Decides about tokens. A decision is a value. A <see cref="PatdFaultException"/> means that nothing is known
    /// about the token: the call at hand must fail with 503, and never pass.
    /// </summary>
    public interface ITokenVerifier
    {
        /// <summary>
        /// Decides about a token, exactly as the client sent it. The cancellation token ends the wait of this check; a
        /// request that other checks wait for goes on.
        /// </summary>
        Task<VerifyResult> VerifyAsync(string token, VerifyCall? call = null, CancellationToken cancel = default);
    }
}
