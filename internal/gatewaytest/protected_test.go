package gatewaytest

import (
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// TestAClientFindsTheIssuerFromAChallenge follows RFC 9728 through nginx and Caddy: the challenge of a refused request
// names the metadata, on the host of the API, and the metadata names the API and patd.
func TestAClientFindsTheIssuerFromAChallenge(t *testing.T) {
	t.Parallel()
	d := serve(t, certificate{})
	s := site{patd: &d.issuer, upstream: newUpstream(t).addr}
	starts := map[string]func(audience string) string{
		"nginx": func(audience string) string {
			return nginxWith(t, s, func(c string) string {
				return strings.ReplaceAll(c, "?scope=$patd_scope", "?scope=$patd_scope&audience="+audience)
			})
		},
		"Caddy": func(audience string) string {
			return caddyWith(t, s, func(c string) string {
				return strings.ReplaceAll(c, "?scope={args.0}", "?scope={args.0}&audience="+audience)
			})
		},
	}
	for name, start := range starts {
		addr := start(name)
		for path, resource := range map[string]string{"": "http://" + addr, "/reports": "http://" + addr + "/reports"} {
			id := name
			if path != "" {
				id += "-other"
			}
			d.call(
				t,
				http.MethodPost,
				"/v1/audiences",
				map[string]any{"id": id, "resource": resource, "display_name": "Reports"},
				nil,
			)
		}
		resp, err := http.Get("http://" + addr + "/reports/1")
		must(t, err)
		resp.Body.Close()
		found := regexp.MustCompile(`resource_metadata="([^"]*)"`).
			FindStringSubmatch(resp.Header.Get("WWW-Authenticate"))
		if len(found) != 2 || found[1] != "http://"+addr+"/.well-known/oauth-protected-resource" {
			t.Fatalf("%s: the challenge is %q", name, resp.Header.Values("WWW-Authenticate"))
		}
		for address, want := range map[string]string{found[1]: "http://" + addr, found[1] + "/reports": "http://" + addr + "/reports", found[1] + "/none": ""} {
			resp, err := http.Get(address)
			must(t, err)
			text, err := io.ReadAll(resp.Body)
			must(t, err)
			resp.Body.Close()
			var got struct {
				Resource string
				Servers  []string `json:"authorization_servers"`
				Methods  []string `json:"bearer_methods_supported"`
			}
			if want == "" {
				if resp.StatusCode != http.StatusNotFound {
					t.Errorf("%s: %s: %s", name, address, resp.Status)
				}
				continue
			}
			must(t, json.Unmarshal(text, &got))
			if resp.StatusCode != http.StatusOK || got.Resource != want || len(got.Servers) != 1 ||
				got.Servers[0] != d.url ||
				len(got.Methods) != 1 {
				t.Errorf("%s: %s: %s %s", name, address, resp.Status, text)
			}
		}
	}
}
