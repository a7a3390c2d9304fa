package rival

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
)

// OpenBao starts a development server of OpenBao, which has its store in memory and no audit device. It is asked about
// a token in two ways: by a service that looks up its callers' tokens, as patd is, and by the token itself.
func OpenBao(ctx context.Context, c Config) (*Server, error) {
	at, err := freeAddresses(ctx, 1)
	if err != nil {
		return nil, err
	}
	const root = "bench-root"
	client, base := newClient(c.Workers), "http://"+at[0]
	s, err := start(
		ctx,
		"OpenBao",
		c,
		[]string{"BAO_DEV_ROOT_TOKEN_ID=" + root},
		waitFor(client, base+"/v1/sys/health"),
		"server",
		"-dev",
		"-dev-listen-address="+at[0],
		"-dev-no-store-token",
		"-log-level=error",
	)
	if err != nil {
		return nil, err
	}
	bao := bao{client: client, base: base}
	return s.prepared(client, func() ([]Work, error) { return bao.works(ctx, root, c.Tokens) })
}

// bao is OpenBao's API.
type bao struct {
	client *http.Client
	base   string
}

func (b bao) request(method, path, token string, body any) request {
	r := request{method: method, url: b.base + path, header: http.Header{"X-Vault-Token": {token}}}
	if body != nil {
		text, _ := json.Marshal(body) //nolint:errchkjson // maps and texts
		r.body = string(text)
	}
	return r
}

// works makes tokens with four policies each, as patd's have four scopes, and a service that may look them up.
func (b bao) works(ctx context.Context, root string, n int) ([]Work, error) {
	policy := map[string]string{"policy": `path "auth/token/lookup" { capabilities = ["update"] }`}
	allow := b.request(http.MethodPut, "/v1/sys/policies/acl/introspect", root, policy)
	if err := allow.decode(ctx, b.client, nil); err != nil {
		return nil, err
	}
	service, err := b.create(ctx, root, "service", "introspect")
	if err != nil {
		return nil, err
	}
	lookups, selves := make([]asked, n), make([]asked, n)
	err = inParallel(ctx, n, func(ctx context.Context, i int) error {
		user := fmt.Sprintf("user-%07d", i/10)
		token, err := b.create(ctx, root, user, "billing.edit", "billing.read", "reports.edit", "reports.read")
		if err != nil {
			return err
		}
		want := []string{`"id":"` + token + `"`, `"user":"` + user + `"`, `"reports.read"`}
		lookups[i] = asked{
			b.request(http.MethodPost, "/v1/auth/token/lookup", service, map[string]string{"token": token}),
			want,
		}
		selves[i] = asked{b.request(http.MethodGet, "/v1/auth/token/lookup-self", token, nil), want}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return []Work{
		{"OpenBao, lookup", callOf(b.client, lookups)},
		{"OpenBao, lookup-self", callOf(b.client, selves)},
	}, nil
}

func (b bao) create(ctx context.Context, root, user string, policies ...string) (string, error) {
	var made struct {
		Auth struct {
			ClientToken string `json:"client_token"`
		} `json:"auth"`
	}
	err := b.request(http.MethodPost, "/v1/auth/token/create", root, map[string]any{
		"display_name": "CI deploy", "meta": map[string]string{"user": user}, "policies": policies, "ttl": "24h",
	}).decode(ctx, b.client, &made)
	if err == nil && made.Auth.ClientToken == "" {
		err = fmt.Errorf("create a token of %s: the answer holds none", user)
	}
	return made.Auth.ClientToken, err
}
