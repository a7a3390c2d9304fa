package rival

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
)

// Unkey starts the API server of Unkey, without analytics, traces and logs. It is asked by a service that verifies its
// callers' keys, and answers from memory: a key is read from the database again ten seconds after it was read. What
// the database and Redis take is not counted.
//
// The environment names what it needs: UNKEY_DATABASE, a database of MySQL that has its schema, UNKEY_REDIS, and
// UNKEY_ROOT_KEY, a root key that may make and verify keys, which its command for development seeds.
func Unkey(ctx context.Context, c Config) (*Server, error) {
	at, err := freeAddresses(ctx, 1)
	if err != nil {
		return nil, err
	}
	config, err := unkeyConfig(c.Dir, at[0])
	if err != nil {
		return nil, err
	}
	client := newClient(c.Workers)
	unkey := unkey{client: client, base: "http://" + at[0], root: os.Getenv("UNKEY_ROOT_KEY")}
	s, err := start(ctx, "Unkey", c, nil, waitFor(client, unkey.base+"/health/ready"), "--config", config)
	if err != nil {
		return nil, err
	}
	return s.prepared(client, func() ([]Work, error) { return unkey.works(ctx, c.Tokens) })
}

// unkeyConfig writes the configuration of a server, which only this user can read.
func unkeyConfig(dir, at string) (path string, err error) {
	_, port, err := net.SplitHostPort(at)
	if err != nil {
		return "", err
	}
	for _, name := range []string{"UNKEY_DATABASE", "UNKEY_REDIS", "UNKEY_ROOT_KEY"} {
		if os.Getenv(name) == "" {
			return "", fmt.Errorf("start Unkey: %s is not set", name)
		}
	}
	text := "http_port = " + port + "\n" +
		"redis_url = " + strconv.Quote(os.Getenv("UNKEY_REDIS")) + "\n" +
		"[database]\nprimary = " + strconv.Quote(os.Getenv("UNKEY_DATABASE")) + "\n" +
		"[observability.logging]\nsample_rate = 1e-9\nslow_threshold = \"1h\"\n" +
		"[control]\nurl = \"http://127.0.0.1:9\"\ntoken = \"none\"\n" + // what is not used is not there
		"[restate]\nurl = \"http://127.0.0.1:9\"\napi_key = \"none\"\n" +
		"[[auth]]\ntype = \"root_key\"\n"
	path = filepath.Join(dir, "unkey.toml")
	return path, os.WriteFile(path, []byte(text), 0o600) //nolint:gosec // a directory of ours
}

// unkey is Unkey's API.
type unkey struct {
	client     *http.Client
	base, root string
}

// request is a call of the root key.
func (u unkey) request(path string, body map[string]any) (request, error) {
	text, err := json.Marshal(body)
	return request{method: http.MethodPost, url: u.base + path, body: string(text), header: http.Header{
		"Authorization": {"Bearer " + u.root}, "Content-Type": {"application/json"},
	}}, err
}

// call sends a request and decodes the data of the answer.
func (u unkey) call(ctx context.Context, path string, body map[string]any, data any) error {
	r, err := u.request(path, body)
	if err != nil {
		return err
	}
	answer := struct {
		Data any `json:"data"`
	}{data}
	return r.decode(ctx, u.client, &answer)
}

// works makes keys with four permissions each, as patd's tokens have four scopes; one after another, since databases in
// memory that speak MySQL's language may refuse or lose changes at the same time.
func (u unkey) works(ctx context.Context, n int) ([]Work, error) {
	var api struct {
		ID string `json:"apiId"`
	}
	if err := u.call(ctx, "/v2/apis.createApi", map[string]any{"name": "bench"}, &api); err != nil {
		return nil, err
	}
	all := make([]asked, n)
	for i := range all {
		user := fmt.Sprintf("user-%07d", i/10)
		var made struct {
			ID  string `json:"keyId"`
			Key string `json:"key"`
		}
		err := u.call(ctx, "/v2/keys.createKey", map[string]any{
			"apiId": api.ID, "name": "CI deploy", "externalId": user,
			"permissions": []string{"billing.edit", "billing.read", "reports.edit", "reports.read"},
		}, &made)
		if err != nil {
			return nil, err
		}
		all[i].want = []string{
			`"valid":true`,
			`"keyId":"` + made.ID + `"`,
			`"externalId":"` + user + `"`,
			`"reports.read"`,
		}
		if all[i].request, err = u.request("/v2/keys.verifyKey", map[string]any{"key": made.Key}); err != nil {
			return nil, err
		}
	}
	return []Work{{"Unkey, verifyKey", callOf(u.client, all)}}, nil
}
