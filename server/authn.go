package server

import (
	"context"
	"net/netip"
	"strings"

	"patd/internal/bearer"
	"patd/server/signin"
	"patd/tokens"
)

// Verifier tells who signed in with a JWT. Whatever is wrong with the token is an *tokens.Error of CodeUnauthenticated; a
// provider that cannot be asked is one of CodeUnavailable, and says nothing of the token. No error holds the token or any part
// of it. A Verifier may be used by many goroutines at once.
type Verifier interface {
	Verify(ctx context.Context, jwt tokens.Secret) (signin.Identity, error)
}

var _ Verifier = (*signin.SignIn)(nil)

// authenticator finds out who calls.
type authenticator struct {
	service *tokens.Service
	signIn  Verifier // nil: nobody signs in
}

// authenticate reads the Authorization headers, and nothing else. No header is nobody, the zero Actor; a header that is not
// one good bearer credential is an error at once, and so is an outage, which says nothing of the credential.
func (a authenticator) authenticate(ctx context.Context, headers []string, peer tokens.Peer) (tokens.Actor, error) {
	switch len(headers) {
	case 0:
		return tokens.Actor{Peer: peer}, nil
	case 1:
	default:
		return tokens.Actor{}, badCredential("give exactly one Authorization header")
	}
	token, ok := bearer.Token(headers[0])
	if !ok || token == "" {
		return tokens.Actor{}, badCredential("the Authorization header must be `Bearer` and a token")
	}
	// No secret of patd's has the form of a JWT. Where nobody can sign in, one is garbage like any other.
	if a.signIn != nil && signin.LooksLikeJWT(token) {
		return a.user(ctx, tokens.NewSecret(token), peer)
	}
	return a.service.Authenticate(ctx, tokens.NewSecret(token), peer)
}

// user is the actor of a signed-in user. Its features are nil when its token says nothing of them.
func (a authenticator) user(ctx context.Context, jwt tokens.Secret, peer tokens.Peer) (tokens.Actor, error) {
	who, err := a.signIn.Verify(ctx, jwt)
	if err != nil {
		return tokens.Actor{}, err
	}
	actor := tokens.Actor{Kind: tokens.UserActor, User: who.User, Peer: peer}
	if who.HasFeatures {
		actor.Features = append([]string{}, who.Features...)
	}
	return actor, nil
}

func noCredential() *tokens.Error {
	return tokens.Fail(tokens.CodeUnauthenticated, "CREDENTIAL_REQUIRED", "this call needs a credential: Authorization: Bearer and a token")
}

func badCredential(text string) *tokens.Error {
	return tokens.Fail(tokens.CodeUnauthenticated, "CREDENTIAL_INVALID", text)
}

// trusted is the set of proxies whose forwarded-address headers count.
type trusted []netip.Prefix

// client is the address of who made a request that arrived from peer. Unless peer is a trusted proxy that is peer
// itself, whatever the headers say. From a trusted one it is the right-most address of X-Forwarded-For that is not
// itself trusted: everything to the left of it was written by somebody we do not know. An entry that is no address ends the
// search, at the last address that is known.
func (t trusted) client(peer netip.Addr, forwarded []string) netip.Addr {
	peer = plain(peer)
	if !t.has(peer) {
		return peer
	}
	known := peer
	for i := len(forwarded) - 1; i >= 0; i-- {
		entries := strings.Split(forwarded[i], ",")
		for j := len(entries) - 1; j >= 0; j-- {
			a, ok := forwardedAddr(strings.TrimSpace(entries[j]))
			if !ok {
				return known
			}
			if known = a; !t.has(a) {
				return a
			}
		}
	}
	return known
}

func (t trusted) has(a netip.Addr) bool {
	for _, p := range t {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// forwardedAddr reads an entry of X-Forwarded-For: an address, which some proxies write with a port.
func forwardedAddr(s string) (netip.Addr, bool) {
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return plain(a), true
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return plain(ap.Addr()), true
	}
	return netip.Addr{}, false
}

// plain is an address as everything compares it: IPv4 unmapped, without a zone.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }
