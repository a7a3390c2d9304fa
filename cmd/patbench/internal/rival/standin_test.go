package rival

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
)

// TestMain makes a run of the test binary under the name of a rival that rival, with the fault that follows its name.
func TestMain(m *testing.M) {
	name, fault, _ := strings.Cut(filepath.Base(os.Args[0]), ".")
	run := map[string]func(*standIn){"bao": bao{}.standIn, "hydra": hydra{}.standIn, "unkey": unkey{}.standIn}[name]
	if run == nil {
		os.Exit(m.Run())
	}
	if fault == "ends" {
		refuse("this machine is too small")
	}
	run(&standIn{fault: fault, users: map[string]string{}})
}

// refuse ends a stand-in.
func refuse(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(3)
}

// standIn is a rival that serves what is asked of one, and refuses what is not as it must be.
type standIn struct {
	fault string
	once  sync.Once

	mu    sync.Mutex
	users map[string]string // of tokens
}

// alone wants nothing in the environment but what a rival needs.
func alone(needs ...string) {
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); !slices.Contains(append(needs, "PATH", "HOME"), name) {
			refuse("the environment has %s", name)
		}
	}
}

// serve serves an API until it is killed.
func serve(address string, handler http.Handler) {
	lis, err := net.Listen("tcp", address)
	if err == nil {
		err = http.Serve(lis, handler)
	}
	refuse("%v", err)
}

// health is not ready the first time.
func (s *standIn) health(w http.ResponseWriter, _ *http.Request) {
	s.once.Do(func() { w.WriteHeader(http.StatusServiceUnavailable) })
}

// mint adds a token of a user.
func (s *standIn) mint(prefix, user string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	token := fmt.Sprint(prefix, len(s.users))
	s.users[token] = user
	return token
}

// userOf is whose a token is, and whether it is one.
func (s *standIn) userOf(token string) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	user, ok := s.users[token]
	return user, ok
}

// post serves a path: requests must have a header, and the members of a body, where nil stands for any. The body is
// given on.
func (s *standIn) post(mux *http.ServeMux, path, header, value string, body map[string]any,
	answer func(body map[string]any) any) {
	mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		var got map[string]any
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil && body != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if r.Header.Get(header) != value {
			http.Error(w, "another "+header, http.StatusUnauthorized)
			return
		}
		for name, want := range body {
			if want != nil && !reflect.DeepEqual(got[name], want) || got[name] == nil {
				http.Error(w, fmt.Sprintf("%s: %v", name, got[name]), http.StatusBadRequest)
				return
			}
		}
		switch s.fault {
		case "forbids":
			fmt.Fprintln(os.Stderr, "what is asked is not allowed here")
			http.Error(w, "see the log", http.StatusForbidden)
			return
		case "garbles":
			fmt.Fprintln(w, "<html>")
			return
		}
		_ = json.NewEncoder(w).Encode(answer(got))
	})
}

var fourScopes = []any{"billing.edit", "billing.read", "reports.edit", "reports.read"}

type object = map[string]any

func (bao) standIn(s *standIn) {
	alone("BAO_DEV_ROOT_TOKEN_ID")
	args := strings.Join(os.Args[1:], " ")
	at, rest, _ := strings.Cut(strings.TrimPrefix(args, "server -dev -dev-listen-address="), " ")
	if rest != "-dev-no-store-token -log-level=error" {
		refuse("started by %q", args)
	}
	const header = "X-Vault-Token"
	root, mux := os.Getenv("BAO_DEV_ROOT_TOKEN_ID"), http.NewServeMux()
	mux.HandleFunc("GET /v1/sys/health", s.health)
	policy := object{"policy": `path "auth/token/lookup" { capabilities = ["update"] }`}
	s.post(mux, "PUT /v1/sys/policies/acl/introspect", header, root, policy, func(object) any { return nil })
	create := object{"display_name": "CI deploy", "meta": nil, "policies": nil, "ttl": "24h"}
	s.post(mux, "POST /v1/auth/token/create", header, root, create, func(body object) any {
		meta, _ := body["meta"].(object)
		user, _ := meta["user"].(string)
		want := fourScopes
		if user == "service" {
			want = []any{"introspect"}
		}
		if s.fault == "omits" || !reflect.DeepEqual(body["policies"], want) {
			return object{}
		}
		return object{"auth": object{"client_token": s.mint("s.", user)}}
	})
	about := func(token string) any {
		user, ok := s.userOf(token)
		switch {
		case !ok:
			return object{"errors": []string{"bad token"}}
		case s.fault == "dies":
			refuse("panic: no memory is left")
		case s.fault == "mistakes":
			token = "s.another"
		}
		return object{"data": object{"id": token, "meta": object{"user": user}, "policies": fourScopes}}
	}
	s.post(mux, "POST /v1/auth/token/lookup", header, "s.0", object{"token": nil}, func(body object) any {
		return about(fmt.Sprint(body["token"]))
	})
	mux.HandleFunc("GET /v1/auth/token/lookup-self", func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(about(r.Header.Get(header)))
	})
	serve(at, mux)
}

func (hydra) standIn(s *standIn) {
	env := []string{
		"DSN", "SECRETS_SYSTEM", "LOG_LEVEL", "SQA_OPT_OUT", "URLS_SELF_ISSUER", "TTL_ACCESS_TOKEN",
		"STRATEGIES_ACCESS_TOKEN", "OAUTH2_SESSION_ENCRYPT_AT_REST", "OAUTH2_HASHERS_PBKDF2_ITERATIONS",
		"SERVE_PUBLIC_HOST", "SERVE_PUBLIC_PORT", "SERVE_ADMIN_HOST", "SERVE_ADMIN_PORT",
	}
	alone(env...)
	args := strings.Join(os.Args[1:], " ")
	if args != "serve all --dev --sqa-opt-out" || os.Getenv("DSN") != "memory" {
		refuse("started by %q on %s", args, os.Getenv("DSN"))
	}
	at := func(part string) string {
		return net.JoinHostPort(os.Getenv("SERVE_"+part+"_HOST"), os.Getenv("SERVE_"+part+"_PORT"))
	}
	admin, public := http.NewServeMux(), http.NewServeMux()
	admin.HandleFunc("GET /health/ready", s.health)
	register := object{
		"client_id": nil, "scope": hydraScopes, "grant_types": []any{"client_credentials"},
		"token_endpoint_auth_method": "client_secret_post",
	}
	s.post(admin, "POST /admin/clients", "Content-Type", "application/json", register, func(body object) any {
		return object{"client_secret": s.mint("secret-", fmt.Sprint(body["client_id"]))}
	})
	public.HandleFunc("POST /oauth2/token", func(w http.ResponseWriter, r *http.Request) {
		user, ok := s.userOf(r.PostFormValue("client_secret"))
		prefix := "ory_at_"
		if s.fault == "omits" {
			prefix = "eyJ"
		}
		if !ok || user != r.PostFormValue("client_id") || r.PostFormValue("scope") != hydraScopes ||
			r.PostFormValue("grant_type") != "client_credentials" {
			http.Error(w, "invalid_client", http.StatusUnauthorized)
			return
		}
		_ = json.NewEncoder(w).Encode(object{"access_token": s.mint(prefix, user)})
	})
	admin.HandleFunc("POST /admin/oauth2/introspect", func(w http.ResponseWriter, r *http.Request) {
		user, ok := s.userOf(r.PostFormValue("token"))
		if s.fault == "dies" {
			refuse("panic: no memory is left")
		}
		if s.fault == "mistakes" {
			user = "user-9999999"
		}
		_ = json.NewEncoder(w).Encode(object{"active": ok, "client_id": user, "scope": hydraScopes})
	})
	go serve(at("PUBLIC"), public)
	serve(at("ADMIN"), admin)
}

// unkeyEnv is what the bench's environment says of Unkey.
var unkeyEnv = map[string]string{
	"UNKEY_DATABASE": `unkey:pass"word@tcp(127.0.0.1:3306)/unkey`, "UNKEY_REDIS": "redis://127.0.0.1:6379",
	"UNKEY_ROOT_KEY": "unkey_root",
}

func (unkey) standIn(s *standIn) {
	alone()
	if len(os.Args) != 3 || os.Args[1] != "--config" {
		refuse("started by %q", os.Args[1:])
	}
	info, err := os.Stat(os.Args[2])
	if err != nil || info.Mode().Perm() != 0o600 {
		refuse("others can read the configuration: %v", err)
	}
	config, err := os.ReadFile(os.Args[2])
	if err != nil || !bytes.Contains(config, []byte(`primary = "unkey:pass\"word@tcp(127.0.0.1:3306)/unkey"`)) ||
		!bytes.Contains(config, []byte(`redis_url = "redis://127.0.0.1:6379"`)) ||
		bytes.Contains(config, []byte(unkeyEnv["UNKEY_ROOT_KEY"])) {
		refuse("the configuration: %v", err)
	}
	port, _, _ := strings.Cut(strings.TrimPrefix(string(config), "http_port = "), "\n")
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health/ready", s.health)
	post := func(path string, body object, answer func(object) any) {
		s.post(mux, "POST "+path, "Authorization", "Bearer "+unkeyEnv["UNKEY_ROOT_KEY"], body,
			func(body object) any { return object{"data": answer(body)} })
	}
	post("/v2/apis.createApi", object{"name": "bench"}, func(object) any { return object{"apiId": "api_1"} })
	create := object{"apiId": "api_1", "name": "CI deploy", "externalId": nil, "permissions": fourScopes}
	post("/v2/keys.createKey", create, func(body object) any {
		key := s.mint("key_", fmt.Sprint(body["externalId"]))
		return object{"keyId": "id_" + key, "key": key}
	})
	post("/v2/keys.verifyKey", object{"key": nil}, func(body object) any {
		key := fmt.Sprint(body["key"])
		user, ok := s.userOf(key)
		if s.fault == "dies" {
			refuse("panic: no memory is left")
		}
		ok = ok && s.fault != "mistakes"
		return object{"valid": ok, "keyId": "id_" + key, "externalId": user, "permissions": fourScopes}
	})
	serve(net.JoinHostPort("127.0.0.1", port), mux)
}
