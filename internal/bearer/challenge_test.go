package bearer

import "testing"

func TestResourceMetadataStandsOnTheResourcesHost(t *testing.T) {
	const known = "/.well-known/oauth-protected-resource"
	for resource, want := range map[string]string{
		"https://api.example.com":         "https://api.example.com" + known,
		"https://api.example.com/":        "https://api.example.com" + known,
		"https://api.example.com:8443/v1": "https://api.example.com:8443" + known + "/v1",
		"https://api.example.com/v1/":     "https://api.example.com" + known + "/v1/",
		"https://api.example.com/a%2Fb":   "https://api.example.com" + known + "/a%2Fb",
		"https://api.example.com?k=v":     "https://api.example.com" + known + "?k=v",
		"http://api.example.com/v1?k=v":   "http://api.example.com" + known + "/v1?k=v",
		"urn:example:api":                 "", "": "", "https:///x": "", "https://user@api.example.com": "", "ftp://api.example.com": "", "::": "",
	} {
		if got := ResourceMetadata(resource); got != want {
			t.Errorf("%q: %q, want %q", resource, got, want)
		}
	}
}

func TestAChallengeIsAQuotedString(t *testing.T) {
	for want, c := range map[string]Challenge{
		`Bearer`: {}, `Bearer realm="r"`: {Realm: "r"},
		`Bearer error="invalid_token", error_description="it 'is' ? ?"`: {Error: InvalidToken, Description: "it \"is\" \\ \n"},
		`Bearer realm="r", error="insufficient_scope", scope="a b", resource_metadata="https://x/y"`: {
			Realm: "r", Error: InsufficientScope, Scope: "a b", ResourceMetadata: "https://x/y",
		},
	} {
		if got := c.String(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
