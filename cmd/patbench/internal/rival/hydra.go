package rival

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// hydraScopes are the scopes that each token has, as patd's have.
const hydraScopes = "billing.edit billing.read reports.edit reports.read"

// Hydra starts an Ory Hydra, which has its store in memory, in its own process, and logs nothing. It is asked about
// opaque access tokens. It authenticates no caller there: whoever reaches its port for administration may ask.
func Hydra(ctx context.Context, c Config) (*Server, error) {
	at, err := freeAddresses(ctx, 2)
	if err != nil {
		return nil, err
	}
	client := newClient(c.Workers)
	hydra := hydra{client: client, public: "http://" + at[0], admin: "http://" + at[1]}
	env := []string{
		"DSN=memory", "SECRETS_SYSTEM=bench-system-secret-of-32-bytes", "LOG_LEVEL=panic", "SQA_OPT_OUT=true",
		"URLS_SELF_ISSUER=" + hydra.public, "TTL_ACCESS_TOKEN=24h", "STRATEGIES_ACCESS_TOKEN=opaque",
		"OAUTH2_SESSION_ENCRYPT_AT_REST=false", // else it decrypts a session for each answer
		"OAUTH2_HASHERS_PBKDF2_ITERATIONS=1",   // of secrets of clients, who ask for tokens before the measurement
	}
	for i, part := range []string{"PUBLIC", "ADMIN"} {
		host, port, err := net.SplitHostPort(at[i])
		if err != nil {
			return nil, err
		}
		env = append(env, "SERVE_"+part+"_HOST="+host, "SERVE_"+part+"_PORT="+port)
	}
	s, err := start(
		ctx,
		"Hydra",
		c,
		env,
		waitFor(client, hydra.admin+"/health/ready"),
		"serve",
		"all",
		"--dev",
		"--sqa-opt-out",
	)
	if err != nil {
		return nil, err
	}
	return s.prepared(client, func() ([]Work, error) { return hydra.works(ctx, c.Tokens) })
}

// hydra is Hydra's API.
type hydra struct {
	client        *http.Client
	public, admin string
}

// works makes OAuth clients, which stand for users, with ten tokens each; one after another, since its store in memory
// refuses changes at the same time.
func (h hydra) works(ctx context.Context, n int) ([]Work, error) {
	const tokensOfClient = 10
	all := make([]asked, n)
	var id, secret string
	for i := range all {
		var err error
		if i%tokensOfClient == 0 {
			id = fmt.Sprintf("user-%07d", i/tokensOfClient)
			if secret, err = h.register(ctx, id); err != nil {
				return nil, err
			}
		}
		token, err := h.token(ctx, id, secret)
		if err != nil {
			return nil, err
		}
		all[i] = asked{h.form(h.admin+"/admin/oauth2/introspect", url.Values{"token": {token}}), []string{
			`"active":true`, `"client_id":"` + id + `"`, `"scope":"` + hydraScopes + `"`,
		}}
	}
	return []Work{{"Ory Hydra, introspect", callOf(h.client, all)}}, nil
}

func (hydra) form(to string, values url.Values) request {
	header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	return request{method: http.MethodPost, url: to, header: header, body: values.Encode()}
}

// register makes an OAuth client and returns its secret.
func (h hydra) register(ctx context.Context, id string) (string, error) {
	body, err := json.Marshal(map[string]any{
		"client_id": id, "scope": hydraScopes, "grant_types": []string{"client_credentials"},
		"token_endpoint_auth_method": "client_secret_post",
	})
	if err != nil {
		return "", err
	}
	var made struct {
		Secret string `json:"client_secret"`
	}
	header := http.Header{"Content-Type": {"application/json"}}
	to := request{method: http.MethodPost, url: h.admin + "/admin/clients", header: header, body: string(body)}
	err = to.decode(ctx, h.client, &made)
	return made.Secret, err
}

// token gets an access token.
func (h hydra) token(ctx context.Context, id, secret string) (string, error) {
	var made struct {
		AccessToken string `json:"access_token"`
	}
	err := h.form(h.public+"/oauth2/token", url.Values{
		"grant_type": {"client_credentials"}, "scope": {hydraScopes}, "client_id": {id}, "client_secret": {secret},
	}).decode(ctx, h.client, &made)
	if err == nil && !strings.HasPrefix(made.AccessToken, "ory_at_") {
		err = fmt.Errorf("get a token of %s: the answer holds no opaque one", id)
	}
	return made.AccessToken, err
}
