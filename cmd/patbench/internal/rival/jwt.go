package rival

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	jose4 "github.com/go-jose/go-jose/v4/jwt"
	"github.com/golang-jwt/jwt/v5"
)

const (
	jwtIssuer   = "https://login.example.com"
	jwtAudience = "reports"
	jwtScope    = "reports.read"
	jwtKeyID    = "2026-11"

	// jwtsACall is how many JWTs a call verifies, so that the clock is not read between two of them.
	jwtsACall = 10
)

// JWT is a token that says about itself who presents it.
type JWT struct{ Text, Subject string }

// JWTs makes n JWTs for each algorithm and returns the ways to verify them that a service has which keeps the issuer's
// key: signature, issuer, audience, expiry, and one scope.
func JWTs(ctx context.Context, n int) ([]Work, error) {
	var works []Work
	for _, a := range jwtAlgorithms() {
		key, public, err := a.keys()
		if err != nil {
			return nil, err
		}
		all := make([]JWT, n)
		if err := inParallel(ctx, n, func(_ context.Context, i int) (err error) {
			all[i], err = signJWT(a.name, key, i, time.Now().Add(24*time.Hour))
			return err
		}); err != nil {
			return nil, err
		}
		works = append(works,
			Work{"JWT, " + a.name + ", go-jose", verifyCall(all, goJose(a.name, public))},
			Work{"JWT, " + a.name + ", golang-jwt", verifyCall(all, golangJWT(a.name, public))})
	}
	return works, nil
}

// jwtAlgorithm makes a pair of keys.
type jwtAlgorithm struct {
	name string
	keys func() (crypto.Signer, crypto.PublicKey, error)
}

func jwtAlgorithms() []jwtAlgorithm {
	return []jwtAlgorithm{
		{"ES256", func() (crypto.Signer, crypto.PublicKey, error) {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			return key, key.Public(), err
		}},
		{"RS256", func() (crypto.Signer, crypto.PublicKey, error) {
			key, err := rsa.GenerateKey(rand.Reader, 2048)
			return key, key.Public(), err
		}},
		{"EdDSA", func() (crypto.Signer, crypto.PublicKey, error) {
			public, key, err := ed25519.GenerateKey(rand.Reader)
			return key, public, err
		}},
	}
}

// jwtClaims are those of RFC 9068.
type jwtClaims struct {
	jwt.RegisteredClaims

	ClientID string `json:"client_id"`
	Scope    string `json:"scope"`
}

func signJWT(algorithm string, key crypto.Signer, i int, expires time.Time) (JWT, error) {
	subject := fmt.Sprintf("user-%07d", i/10)
	token := jwt.NewWithClaims(jwt.GetSigningMethod(algorithm), jwtClaims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: jwtIssuer, Subject: subject, Audience: jwt.ClaimStrings{jwtAudience}, ID: fmt.Sprintf("%011d", i),
			IssuedAt: jwt.NewNumericDate(expires.Add(-48 * time.Hour)), ExpiresAt: jwt.NewNumericDate(expires),
		},
		ClientID: "ci", Scope: "billing.edit billing.read reports.edit reports.read",
	})
	token.Header["kid"], token.Header["typ"] = jwtKeyID, "at+jwt"
	text, err := token.SignedString(key)
	return JWT{text, subject}, err
}

// verifier returns the subject of a JWT that may pass.
type verifier func(text string) (subject string, err error)

// verifyCall verifies JWTs at random, and wants each to be of its subject.
func verifyCall(all []JWT, verify verifier) Call {
	return func(_ context.Context, _ int, rnd *mrand.Rand) (int, error) {
		for range jwtsACall {
			one := all[rnd.IntN(len(all))]
			subject, err := verify(one.Text)
			if err != nil {
				return 0, err
			}
			if subject != one.Subject {
				return 0, fmt.Errorf("wrong answer about a JWT of %s: it is of %q", one.Subject, subject)
			}
		}
		return jwtsACall, nil
	}
}

var errNoScope = errors.New("the JWT lacks the scope")

// mayPass wants the scope among the claim's.
func mayPass(scope string) error {
	for s := range strings.SplitSeq(scope, " ") {
		if s == jwtScope {
			return nil
		}
	}
	return errNoScope
}

// keyOf is the key of that id out of the issuer's set.
func keyOf[K any](set map[string]K, id any) (K, error) {
	name, _ := id.(string)
	key, ok := set[name]
	if !ok {
		return key, fmt.Errorf("no key %q", name)
	}
	return key, nil
}

// golangJWT verifies by github.com/golang-jwt/jwt.
func golangJWT(algorithm string, public crypto.PublicKey) verifier {
	set := map[string]crypto.PublicKey{jwtKeyID: public}
	parser := jwt.NewParser(
		jwt.WithValidMethods([]string{algorithm}),
		jwt.WithIssuer(jwtIssuer),
		jwt.WithAudience(jwtAudience),
		jwt.WithExpirationRequired(),
	)
	return func(text string) (string, error) {
		var claims jwtClaims
		key := func(t *jwt.Token) (any, error) { return keyOf(set, t.Header["kid"]) }
		_, err := parser.ParseWithClaims(text, &claims, key)
		if err == nil {
			err = mayPass(claims.Scope)
		}
		return claims.Subject, err
	}
}

// goJose verifies by github.com/go-jose/go-jose.
func goJose(algorithm string, public crypto.PublicKey) verifier {
	set := map[string]crypto.PublicKey{jwtKeyID: public}
	algorithms := []jose.SignatureAlgorithm{jose.SignatureAlgorithm(algorithm)}
	return func(text string) (string, error) {
		token, err := jose4.ParseSigned(text, algorithms)
		if err != nil {
			return "", err
		}
		key, err := keyOf(set, token.Headers[0].KeyID)
		if err != nil {
			return "", err
		}
		var claims struct {
			jose4.Claims

			ClientID string `json:"client_id"`
			Scope    string `json:"scope"`
		}
		if err := token.Claims(key, &claims); err != nil {
			return "", err
		}
		want := jose4.Expected{Issuer: jwtIssuer, AnyAudience: jose4.Audience{jwtAudience}, Time: time.Now()}
		err = claims.ValidateWithLeeway(want, 0)
		if err == nil && claims.Expiry == nil {
			err = errors.New("the JWT does not expire")
		}
		if err == nil {
			err = mayPass(claims.Scope)
		}
		return claims.Subject, err
	}
}
