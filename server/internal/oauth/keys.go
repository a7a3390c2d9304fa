package oauth

import (
	"crypto"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"patd/server/internal/fault"
	"patd/server/internal/httpx"
	"patd/tokens"
	"patd/tokens/secret"
)

// accessClaims are the claims of a JWT access token (RFC 9068 section 2.2). Its times are cut to whole seconds, so that
// it never lasts longer than was granted.
type accessClaims struct {
	Issuer   string `json:"iss"`
	Subject  string `json:"sub"`
	Audience any    `json:"aud"`
	Expires  int64  `json:"exp"`
	Issued   int64  `json:"iat"`
	ID       string `json:"jti"`
	ClientID string `json:"client_id"`
	Scope    string `json:"scope,omitempty"`
}

// sign returns the JWT of claims, signed with the current signing key.
func (o *Endpoints) sign(c tokens.AccessClaims) (tokens.Secret, error) {
	signing := o.Service.Signer()
	key, err := webKey(signing, signing.Key)
	if err != nil {
		return tokens.Secret{}, err
	}
	// RFC 9068 section 2.1 defines the type. The header has the key's id, not the key.
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.ES256, Key: key},
		(&jose.SignerOptions{}).WithType("at+jwt"),
	)
	if err != nil {
		return tokens.Secret{}, fmt.Errorf("sign an access token: %w", err)
	}
	claims := accessClaims{
		Issuer:   o.issuer,
		Subject:  c.User,
		Audience: audienceClaim(c.Audiences),
		Expires:  c.ExpireTime.Unix(),
		Issued:   c.IssueTime.Unix(),
		ID:       c.ID.String(),
		ClientID: c.ClientID,
		Scope:    strings.Join(c.Scopes, " "),
	}
	if claims.ClientID == "" {
		claims.ClientID = c.TokenID.String() // the client did not identify itself; the token that it presented is known
	}
	text, err := json.Marshal(claims)
	if err != nil {
		return tokens.Secret{}, fmt.Errorf("write the claims of an access token: %w", err)
	}
	signed, err := signer.Sign(text)
	if err != nil {
		return tokens.Secret{}, fmt.Errorf("sign an access token: %w", err)
	}
	jwt, err := signed.CompactSerialize()
	if err != nil {
		return tokens.Secret{}, fmt.Errorf("write an access token: %w", err)
	}
	return secret.NewSecret(jwt), nil
}

// isGoodJWT reports whether text is an access token that patd signed and that has not expired.
func (o *Endpoints) isGoodJWT(text tokens.Secret) bool {
	signed, err := jose.ParseSignedCompact(text.Reveal(), []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return false
	}
	for _, k := range o.Service.SigningKeys() {
		if signed.Signatures[0].Header.KeyID != k.ID {
			continue
		}
		var claims accessClaims
		payload, err := signed.Verify(k.Key.Public())
		return err == nil && json.Unmarshal(payload, &claims) == nil && claims.Expires > o.Service.Now().Unix()
	}
	return false
}

// webKey returns half as a JSON Web Key. Its id is its thumbprint (RFC 7638), the same on all servers of a store.
func webKey(k tokens.SigningKey, half any) (jose.JSONWebKey, error) {
	out := jose.JSONWebKey{Key: half, Algorithm: string(jose.ES256), Use: "sig"}
	thumbprint, err := out.Thumbprint(crypto.SHA256)
	if err != nil {
		return jose.JSONWebKey{}, fmt.Errorf("name signing key %s: %w", k.ID, err)
	}
	out.KeyID = base64.RawURLEncoding.EncodeToString(thumbprint)
	return out, nil
}

// keysPage serves the public keys (RFC 7517 section 5) to every client: the current one, and after a rotation those of
// JWTs that may still be valid.
type keysPage struct{ service *tokens.Service }

// ServeHTTP returns the current keys. Clients may cache them for less time than passes before a new key signs.
func (p keysPage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, k := range p.service.SigningKeys() {
		key, err := webKey(k, k.Key.Public())
		if err != nil {
			x := httpx.ExchangeOf(r.Context())
			x.Cause = err
			httpx.WriteError(w, r, fault.Status(fault.Public(err), x.RequestID))
			return
		}
		set.Keys = append(set.Keys, key)
	}
	if age := p.service.SigningKeysMaxAge(); age > 0 {
		w.Header().Set("Cache-Control", "public, max-age="+strconv.Itoa(int(age.Seconds())))
	}
	httpx.WriteJSON(w, http.StatusOK, set)
}

// NewKeysPage returns the page of the current keys.
func NewKeysPage(service *tokens.Service) http.Handler { return keysPage{service} }
