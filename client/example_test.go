package client_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"google.golang.org/grpc"

	"patd/client"
	"patd/client/clienttest"
)

// A program decides about tokens by a Verifier. In a real one, conn comes from client.Dial.
func Example() {
	server := clienttest.Start()
	defer server.Close()
	secret, _ := server.Mint(clienttest.Token{User: "ada", Name: "laptop", Scopes: []string{"reports.read"}})
	conn := server.Dial()
	defer conn.Close()

	verifier, err := client.New(conn, client.Config{Audience: "reports"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer verifier.Close()

	got, err := verifier.Verify(
		context.Background(),
		secret,
		client.Call{Scopes: []string{"reports.read", "reports.write"}},
	)
	if err != nil {
		fmt.Println("nothing is known:", err) // the call at hand fails with 503
		return
	}
	fmt.Println(got.Decision, got.Missing, "for", got.Token.User)
	// Output: INSUFFICIENT_SCOPE [reports.write] for ada
}

func ExampleGuard() {
	checker := client.Static(map[string]client.Token{
		"pat_of_ada": {User: "ada", Scopes: []string{"reports.read"}},
	})
	guard := client.NewGuard(checker, client.HTTPConfig{Realm: "reports"})
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, _ := client.FromContext(r.Context())
		fmt.Fprint(w, "hello ", who.Token.User)
	})
	mux := http.NewServeMux()
	mux.Handle("GET /reports", guard.Require("reports.read")(hello))
	mux.Handle("POST /reports", guard.Require("reports.write")(hello))

	for _, method := range []string{http.MethodGet, http.MethodPost} {
		r := httptest.NewRequest(method, "/reports", nil)
		r.Header.Set("Authorization", "Bearer pat_of_ada")
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		fmt.Println(w.Code, w.Header().Get("WWW-Authenticate"), w.Body)
	}
	// Output:
	// 200  hello ada
	// 403 Bearer realm="reports", error="insufficient_scope", error_description="the token was not granted reports.write", scope="reports.write" {"error":"insufficient_scope","error_description":"the token was not granted reports.write","reason":"SCOPE_INSUFFICIENT","missing_scopes":["reports.write"]}
}

func ExampleUnaryServerInterceptor() {
	checker := client.Static(nil) // or a Verifier
	methods := client.GRPCConfig{
		Scopes: map[string][]string{
			"/reports.v1.Reports/Read":  {"reports.read"},
			"/reports.v1.Reports/Write": {"reports.read", "reports.write"},
		},
		Open: []string{"/grpc.health.v1.Health/Check"},
	}
	server := grpc.NewServer(
		grpc.ChainUnaryInterceptor(client.UnaryServerInterceptor(checker, methods)),
		grpc.ChainStreamInterceptor(client.StreamServerInterceptor(checker, methods)),
	)
	server.Stop()
}

func ExampleStatic() {
	checker := client.Static(map[string]client.Token{
		"pat_of_ada": {
			User:       "ada",
			Scopes:     []string{"reports.read"},
			ExpireTime: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC),
		},
	})
	got, _ := checker.Verify(context.Background(), "pat_of_ada", client.Call{})
	fmt.Println(got.Decision)
	got, _ = checker.Verify(context.Background(), "pat_of_eve", client.Call{})
	fmt.Println(got.Decision)
	// Output:
	// EXPIRED
	// NOT_FOUND
}

func ExampleDial() {
	conn, err := client.Dial("patd.internal:9090", client.ServiceToken(client.TokenFile("/run/secrets/patd")))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	verifier, err := client.New(conn, client.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer verifier.Close()
	fmt.Println("memory may be used:", verifier.Stats().Watching)
	// Output: memory may be used: false
}
