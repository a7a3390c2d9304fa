using System;
using System.Collections.Generic;
using System.Linq;
using System.Threading;
using System.Threading.Tasks;

namespace Patd
{
    /// <summary>What a token of the fake is like.</summary>
    public sealed class FakeToken
    {
        /// <summary>Its owner.</summary>
        public string User { get; set; } = "alice";

        /// <summary>Its name.</summary>
        public string Name { get; set; } = "a token of a test";

        /// <summary>The scopes in effect.</summary>
        public IReadOnlyList<string> Scopes { get; set; } = Array.Empty<string>();

        /// <summary>The APIs that it is for; empty: none in particular.</summary>
        public IReadOnlyList<string> Audiences { get; set; } = Array.Empty<string>();

        /// <summary>The client addresses that it works from; null: all.</summary>
        public IReadOnlyList<string>? ClientIps { get; set; }

        /// <summary>When it expires; null: never.</summary>
        public DateTimeOffset? ExpireTime { get; set; }
    }

    /// <summary>
    /// A verifier without a patd, for tests of programs that accept tokens. It decides about tokens that a test minted
    /// as patd would: in the order of its decisions, with its reasons. It checks the form of a token too, so that a
    /// test with a made-up text sees <see cref="Decision.NotFound"/>.
    /// </summary>
    public sealed class FakePatd : ITokenVerifier
    {
        private readonly object gate = new object();
        private readonly Dictionary<string, Minted> tokens = new Dictionary<string, Minted>();
        private readonly HashSet<string> suspended = new HashSet<string>();
        private readonly List<string> uses = new List<string>();
        private readonly string audience;
        private readonly Func<DateTimeOffset> now;
        private bool down;

        /// <summary>Makes a fake for an audience; empty: audiences are not checked.</summary>
        public FakePatd(string audience = "", Func<DateTimeOffset>? now = null)
        {
            this.audience = audience;
            this.now = now ?? (() => DateTimeOffset.UtcNow);
        }

        /// <summary>The ids of the tokens that were let pass, in that order.</summary>
        public IReadOnlyList<string> Uses
        {
            get
            {
                lock (gate)
                {
                    return uses.ToList();
                }
            }
        }

        /// <summary>Makes a token. The secret is what a client sends.</summary>
        public string Mint(FakeToken like, out string id)
        {
            var secret = TokenForm.Random(out id);
            var scopes = like.Scopes.OrderBy(s => s, StringComparer.Ordinal).ToList().AsReadOnly();
            var token = new VerifiedToken(id, like.User)
            {
                Name = like.Name, Scopes = scopes, GrantedScopes = scopes,
                    Audiences = like.Audiences.ToList().AsReadOnly(),
                IssueTime = now(), ExpireTime = like.ExpireTime,
            };
            lock (gate)
            {
                tokens[secret] = new Minted(token, like.ClientIps?.ToList());
            }

            return secret;
        }

        /// <summary>Revokes a token by its id.</summary>
        public void Revoke(string id)
        {
            lock (gate)
            {
                foreach (var minted in tokens.Values.Where(m => m.Token.Id == id))
                {
                    minted.Revoked = true;
                }
            }
        }

        /// <summary>Suspends a user, or resumes it.</summary>
        public void Suspend(string user, bool suspend = true)
        {
            lock (gate)
            {
                _ = suspend ? suspended.Add(user) : suspended.Remove(user);
            }
        }

        /// <summary>From now on, nothing is known about any token that has the form of one.</summary>
        public void Outage(bool outage = true)
        {
            lock (gate)
            {
                down = outage;
            }
        }

        /// <inheritdoc/>
        public Task<VerifyResult> VerifyAsync(string token, VerifyCall? call = null, CancellationToken cancel = default)
        {
            call ??= new VerifyCall();
            lock (gate)
            {
                if (!TokenForm.IsPlausible(token))
                {
                    return Task.FromResult(VerifyResult.Refused(Decision.NotFound));
                }

                if (down)
                {
                    return Task.FromException<VerifyResult>(new PatdFaultException(FaultKind.Unavailable,
                        "the fake has an outage"));
                }

                if (!tokens.TryGetValue(token, out var minted))
                {
                    return Task.FromResult(VerifyResult.Refused(Decision.NotFound));
                }

                if (Inactive(minted, call) is Decision no)
                {
                    return Task.FromResult(VerifyResult.Refused(no, null, minted.Token.ExpireTime));
                }

                var result = VerifyResult.Decide(VerifyResult.Allowed(minted.Token), call.Scopes);
                if (result.IsAllowed)
                {
                    uses.Add(minted.Token.Id);
                }

                return Task.FromResult(result);
            }
        }

        private Decision? Inactive(Minted m, VerifyCall call)
        {
            var at = string.IsNullOrEmpty(call.Audience) ? audience : call.Audience!;
            if (m.Revoked)
            {
                return Decision.Revoked;
            }

            if (m.Token.ExpireTime <= now())
            {
                return Decision.Expired;
            }

            if (suspended.Contains(m.Token.User))
            {
                return Decision.UserSuspended;
            }

            if (at != "" && m.Token.Audiences.Count > 0 && !m.Token.Audiences.Contains(at))
            {
                return Decision.AudienceMismatch;
            }

            return m.ClientIps != null && (call.ClientIp == null || !m.ClientIps.Contains(call.ClientIp))
                ? Decision.IpNotAllowed : (Decision?)null;
        }

        private sealed class Minted
        {
            internal Minted(VerifiedToken token, List<string>? clientIps)
            {
                Token = token;
                ClientIps = clientIps;
            }

            internal VerifiedToken Token { get; }

            internal List<string>? ClientIps { get; }

            internal bool Revoked { get; set; }
        }
    }
}
