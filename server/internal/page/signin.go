package page

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/oauth2"

	"patd/server/internal/call"
	"patd/server/internal/frame"
	"patd/tokens"
	"patd/tokens/secret"
)

// signInData is the data of the page on which nobody is signed in.
type signInData struct {
	Address string // where signing in begins; empty: nobody signs in here
}

// random returns 256 random bits as text.
func random() string {
	var raw [32]byte
	_, _ = rand.Read(raw[:]) // it never fails
	return base64.RawURLEncoding.EncodeToString(raw[:])
}

// signIn sends the user to the provider, if the address says what for. Otherwise it shows a link: who has signed out
// must not be signed in again at once.
func (p *Pages) signIn(q *frame.Request) error {
	query := q.R.URL.Query()
	if p.provider == nil || q.Embedded() {
		q.Message(http.StatusOK, "no_session")
		return nil
	}
	if !query.Has("next") {
		q.Render(http.StatusOK, "signin", signInData{Address: p.frame.URL("/signin?next=%2F")})
		return nil
	}
	found, err := p.provider.discover(q.Context())
	if err != nil {
		return err
	}
	next, state, nonce, verifier := p.frame.Local(query.Get("next")), random(), random(), oauth2.GenerateVerifier()
	q.SetSignIn(
		state,
		strings.Join([]string{state, nonce, verifier, base64.RawURLEncoding.EncodeToString([]byte(next))}, "."),
	)
	c := p.provider.config(found, p.redirect())
	to := c.AuthCodeURL(state, oauth2.SetAuthURLParam("nonce", nonce), oauth2.S256ChallengeOption(verifier))
	http.Redirect(q.W, q.R, to, http.StatusSeeOther)
	return nil
}

// redirect returns the address that is registered at the provider.
func (p *Pages) redirect() string { return p.frame.Absolute("/signin/callback") }

// callback receives the browser back from the provider.
func (p *Pages) callback(q *frame.Request) error {
	query := q.R.URL.Query()
	if p.provider == nil {
		q.Message(http.StatusNotFound, "not_found")
		return nil
	}
	if !query.Has("state") { // the provider sends users back here who have signed out there
		q.Redirect("/signin")
		return nil
	}
	found, err := p.provider.discover(q.Context())
	if err != nil {
		return err // before the cookie is taken, so that the page can be loaded again
	}
	state := query.Get("state")
	kept := strings.Split(q.TakeSignIn(state), ".")
	if len(kept) != 4 || subtle.ConstantTimeCompare([]byte(kept[0]), []byte(state)) != 1 {
		q.Render(http.StatusBadRequest, "signin", signInData{Address: p.frame.URL("/signin?next=%2F")})
		return nil
	}
	// RFC 9207: an answer from another provider is refused.
	if iss := query.Get("iss"); iss != p.provider.Issuer && (iss != "" || found.more.Iss) {
		return errProvider(errors.New("the answer is from another issuer, or does not say from which (RFC 9207)"))
	}
	if query.Has("error") {
		return errProvider(errors.New("the provider refused: " + printable(query.Get("error"))))
	}
	next, err := base64.RawURLEncoding.DecodeString(kept[3])
	if err != nil {
		return errProvider(errors.New("the cookie of the sign-in cannot be read"))
	}
	err = q.Do(call.PageSignIn, frame.Mine{}, func(ctx context.Context) error {
		who, hint, err := p.provider.redeem(ctx, found, p.redirect(), query.Get("code"), kept[1], kept[2])
		if err != nil {
			return err
		}
		user := tokens.Actor{Kind: tokens.UserActor, User: who.User, Permissions: who.Permissions, Peer: q.Peer}
		if who.HasFeatures {
			user.Features = append([]string{}, who.Features...)
		}
		if err := p.frame.Chain.Limits.SignIn(user); err != nil {
			return err
		}
		in, err := p.service.BeginPageSession(
			ctx,
			user,
			tokens.SignIn{Permissions: who.Permissions, Agent: q.R.UserAgent(), Hint: hint, Replaces: q.Secret()},
		)
		if err != nil {
			return err
		}
		q.SetSession(in)
		return nil
	})
	if err != nil {
		return err
	}
	p.goOn(q, string(next))
	return nil
}

// goOn sends a browser that has signed in to the form whose text was kept for it, or else on to next.
func (p *Pages) goOn(q *frame.Request, next string) {
	if path := frame.DraftPath(q.In); path != "" {
		next = path
	}
	q.Redirect(p.frame.Local(next))
}

// printable returns a provider's error code for the log.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < '!' || r > '~' {
			return -1
		}
		return r
	}, s)
	return s[:min(len(s), 40)]
}

// signOut ends the session here and, if it began at the provider and the provider offers it, there.
func (p *Pages) signOut(q *frame.Request) error {
	text := q.Secret()
	if text.IsEmpty() {
		q.Redirect("/signin")
		return nil
	}
	var in tokens.SignedIn
	err := p.frame.Chain.Identify(q.Context(), q.Peer, func(ctx context.Context) (err error) {
		in, err = p.service.PageSession(ctx, text, q.Peer)
		return err
	})
	over := call.IsBadCredential(err) || call.HasEnded(err)
	if err != nil && !over {
		return err
	}
	if !over {
		q.In = in
		err := q.Do(call.PageSignOut, frame.Mine{}, func(ctx context.Context) error {
			_, err := p.service.EndPageSessions(ctx, in.Actor, in.Session.ID.String(), 0)
			return err
		})
		if err != nil {
			return err
		}
	}
	q.DropSession()
	if in.Session.Service != "" || p.provider == nil {
		q.Leaving(in.Session.ReturnURL)
		return nil
	}
	if to := p.provider.endSession(q.Context(), in.Hint(), p.redirect()); to != "" {
		http.Redirect(q.W, q.R, to, http.StatusSeeOther)
		return nil
	}
	q.Redirect("/signin")
	return nil
}

// endSession returns the address at which a user signs out at the provider (OpenID Connect RP-Initiated Logout 1.0);
// empty: the provider has none.
func (p *Provider) endSession(ctx context.Context, hint, back string) string {
	found, err := p.discover(ctx)
	if err != nil || found.more.EndSession == "" {
		return ""
	}
	to, err := url.Parse(found.more.EndSession)
	if err != nil {
		return ""
	}
	v := to.Query()
	v.Set("client_id", p.ClientID)
	v.Set("post_logout_redirect_uri", back)
	if hint != "" {
		v.Set("id_token_hint", hint)
	}
	to.RawQuery = v.Encode()
	return to.String()
}

// handoff signs in the browser of a user whom the company's own product has handed over. The code must not stay in the
// address: the browser is sent on to one without it.
func (p *Pages) handoff(q *frame.Request) error {
	if q.R.Method != http.MethodGet || strings.HasPrefix(q.R.Header.Get("Sec-Purpose"), "prefetch") {
		q.Message(http.StatusMethodNotAllowed, "method") // only the person's own visit counts
		return nil
	}
	code := secret.NewSecret(q.R.URL.Query().Get("code"))
	err := q.Do(call.PageHandoff, frame.Mine{}, func(ctx context.Context) error {
		return p.frame.Chain.Identify(ctx, q.Peer, func(ctx context.Context) error {
			in, err := p.service.TakeHandoff(ctx, code, q.Peer, q.R.UserAgent(), q.Secret())
			if err != nil {
				return err
			}
			q.SetSession(in)
			return nil
		})
	})
	if err != nil {
		return err
	}
	p.goOn(q, "/")
	return nil
}
