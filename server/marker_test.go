package server_test

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/emptypb"

	"patd/internal/longtest"
	"patd/tokens"
	"patd/tokens/secret"
)

// markers are the forms in which a secret, or what is stored of it, must appear nowhere.
func markers(t testing.TB, s string) []string {
	t.Helper()
	keys, err := secret.ParseKeys(keyLine)
	must(t, err)
	sum := keys.Digest(secret.NewSecret(s)).Sum
	_, tail, _ := strings.Cut(s, "_")
	_, tail, _ = strings.Cut(tail, "_")
	return []string{
		s, tail[:43], url.QueryEscape(s), base64.StdEncoding.EncodeToString([]byte(s))[:40],
		hex.EncodeToString(sum[:]), strings.ToUpper(hex.EncodeToString(sum[:])),
		base64.RawStdEncoding.EncodeToString(sum[:]), base64.RawURLEncoding.EncodeToString(sum[:]),
		fmt.Sprint(sum), strings.Trim(fmt.Sprint(sum), "[]"), string(sum[:]),
	}
}

func leaks(text string, marks []string) (string, bool) {
	for i, m := range marks {
		if strings.Contains(text, m) {
			return fmt.Sprintf("form %d of the secret", i), true
		}
	}
	return "", false
}

// plant returns copies of a request, each with the secret in one more of its text fields.
func plant(m proto.Message, secret string) []proto.Message {
	var planted []proto.Message
	value := protoreflect.ValueOfString(secret)
	add := func(set func(protoreflect.Message)) {
		c := proto.Clone(m)
		set(c.ProtoReflect())
		planted = append(planted, c)
	}
	fields := m.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case f.IsMap():
			add(
				func(c protoreflect.Message) { c.Mutable(f).Map().Set(value.MapKey(), protoreflect.ValueOfString("v")) },
			)
			add(func(c protoreflect.Message) {
				c.Mutable(f).Map().Set(protoreflect.ValueOfString("k").MapKey(), value)
			})
		case f.Kind() == protoreflect.StringKind && f.IsList():
			add(func(c protoreflect.Message) { c.Mutable(f).List().Append(value) })
		case f.Kind() == protoreflect.StringKind:
			add(func(c protoreflect.Message) { c.Set(f, value) })
		case f.Kind() == protoreflect.MessageKind && f.Message().ParentFile().Package() == "patd.v1":
			inner := m.ProtoReflect().Get(f)
			if !f.IsList() && !m.ProtoReflect().Has(f) {
				inner = m.ProtoReflect().NewField(f)
			}
			if f.IsList() {
				inner = protoreflect.ValueOfMessage(m.ProtoReflect().NewField(f).List().NewElement().Message())
			}
			for _, p := range plant(inner.Message().Interface(), secret) {
				add(func(c protoreflect.Message) {
					if f.IsList() {
						c.Mutable(f).List().Append(protoreflect.ValueOfMessage(p.ProtoReflect()))
					} else {
						c.Set(f, protoreflect.ValueOfMessage(p.ProtoReflect()))
					}
				})
			}
		}
	}
	return planted
}

// TestSecretIsNeverRepeated puts a live secret everywhere a caller could put one, with good and bad input and with a
// store that panics, and looks for it in answers, logs, events and metrics.
func TestSecretIsNeverRepeated(t *testing.T) {
	t.Parallel()
	longtest.Slow(t)
	r := newRig(t)
	id, secret := r.mint("u1", "marked")
	marks := append(markers(t, secret), markers(t, r.admin)...)
	victim, err := r.svc.CreateService(
		context.Background(),
		tokens.Operator(),
		tokens.ServiceRequest{Name: "victim", Permissions: []string{"audit"}},
	)
	must(t, err)
	r.catalogue()
	m := marked{t: t, r: r, secret: secret, marks: append(marks, markers(t, victim.Secret.Reveal())...)}

	for name, method := range served(t, r) {
		if name == "SelfService/RevokeSelf" || name == "UserService/DeleteUser" || name == "LeakService/ReportLeaks" {
			continue // they would end the marked token; TestRevokedSecretIsNeverRepeated and TestReportedSecretIsNeverRepeated have them
		}
		good := goodRequest(r, name, id, "garbage")
		for _, req := range append(plant(good, secret), good) {
			for _, credential := range []string{r.admin, secret, victim.Secret.Reveal(), secret + "x", ""} {
				if !(credential == r.admin && ends(name)) {
					m.grpc(name, method, req, credential)
				}
			}
			m.panicking(func() { m.grpc(name, method, req, r.admin) })
		}
	}
	err = r.conn.Invoke(as(r.admin), "/"+secret+"/"+secret, &emptypb.Empty{}, &emptypb.Empty{})
	m.check("an unknown method", protojson.Format(status.Convert(err).Proto()))
	err = r.conn.Invoke(as(r.admin), "/patd.v1.TokenService/"+secret, &emptypb.Empty{}, &emptypb.Empty{})
	m.check("an unknown method of a known service", protojson.Format(status.Convert(err).Proto()))
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("an unknown method: %v", err)
	}
	for _, b := range bindings(t, r) {
		b.path = strings.NewReplacer("target", "nobody-here").Replace(b.path)
		m.restAll(b)
	}
	m.aftermath()
}

// ends reports whether a good call of the method would end the marked token or its user.
func ends(name string) bool {
	switch name {
	case "TokenService/RevokeToken", "TokenService/RevokeTokens", "TokenService/RotateToken", "UserService/SuspendUser":
		return true
	}
	return false
}

// marked drives calls and looks at what comes back.
type marked struct {
	t      *testing.T
	r      *rig
	secret string
	marks  []string
}

func (m marked) check(what, text string) {
	m.t.Helper()
	if form, ok := leaks(text, m.marks); ok {
		m.t.Errorf("%s: holds %s", strings.ReplaceAll(what, m.secret, "<secret>"), form)
	}
}

func (m marked) grpc(name string, method protoreflect.MethodDescriptor, req proto.Message, credential string) {
	m.t.Helper()
	var header, trailer metadata.MD
	ctx := as(credential)
	for _, key := range []string{"x-request-id", "x-forwarded-for", "patd-request-id", "patd-client", "idempotency-key", "x-" + strings.ToLower(m.secret[:10])} {
		ctx = metadata.AppendToOutgoingContext(ctx, key, m.secret)
	}
	resp := answerFor(m.t, method)
	err := m.r.invoke(ctx, method, req, resp, grpc.Header(&header), grpc.Trailer(&trailer))
	m.check(name+" answer", protojson.Format(resp)+fmt.Sprint(header, trailer))
	m.check(name+" error", protojson.Format(status.Convert(err).Proto()))
}

// panicking runs calls while the store panics with the secret.
func (m marked) panicking(calls func()) {
	m.r.store.set(func(op string) error {
		if op != "LookupService" {
			panic(fmt.Errorf("holding %s", m.secret))
		}
		return nil
	})
	calls()
	m.r.store.set(nil)
}

// restAll puts the secret into the path, the query, headers, keys and values and broken JSON.
func (m marked) restAll(b binding) {
	m.t.Helper()
	s := m.secret
	bodies := []string{
		"",
		"{}",
		`{"` + s + `":1}`,
		`{"name":"` + s,
		`{"name":"` + s + `",}`,
		`"` + s + `"`,
		s,
		`{"name":{"` + s + `":1}}`,
		`{"name":["` + s + `"]}`,
		`{"token":"` + s + `"}`,
		`{"token":{"` + s + `":""}}`,
		`{"ttl":"` + s + `"}`,
		`{"expire_time":"` + s + `"}`,
		`{"grace":"` + s + `"}`,
		`{"update_mask":"` + s + `"}`,
		`{"update_mask":"name,` + s + `"}`,
		`{"user":"` + s + `"}`,
		`{"scopes":["a","` + s + `"]}`,
		`{"name":"a","name":"` + s + `"}`,
		`{"never_expires":"` + s + `"}`,
		`{"labels":{"` + s + `":"a","` + s + `":"b"}}`,
		"{\"" + s + "\xff\":1}",
		`{"reason":"` + s + `"}`,
		`{"requests":[{"token":"` + s + `","client_ip":"` + s + `"}]}`,
		`{"client_ip":"` + s + `"}`,
		`{"url":"https://hooks.example.com/` + s + `"}`,
		`{"webhook_id":"` + s + `","url":"https://` + s + `/"}`,
		strings.Repeat(s, 1<<14),
	}
	if b.verb == http.MethodGet || b.verb == http.MethodDelete {
		bodies = bodies[:1]
	}
	paths := []string{
		b.path,
		b.path + "/" + s,
		strings.Replace(b.path, "nobody-here", s, 1),
		strings.Replace(b.path, "15ODq7pq8Hy", s, 1),
		strings.Replace(b.path, "no-such-service", s, 1),
		strings.Replace(b.path, "no-such-audience", s, 1),
		strings.Replace(
			b.path,
			"no-such-webhook",
			s,
			1,
		),
		strings.Replace(b.path, "no-such-delivery", s, 1),
		b.path + "?after=" + s + "&limit=" + s + "&filter=" + s,
		b.path + ":" + s,
		b.path + "?" + s,
		b.path + "?" + s + "=1",
		b.path + "?page_token=" + s,
		b.path + "?page_size=" + s,
		b.path + "?state=" + s,
		b.path + "?page_size=" + s + "&page_size=1",
		b.path + "?page_size=1&q=" + s,
		b.path + "?token=" + s,
		b.path + "?a;" + s,
		b.path + "?%zz" + s,
		b.path + "?page_size[" + s + "]=1",
		b.path + "?actor=" + s + "&action=" + s + "&user=" + s + "&token_id=" + s + "&reason=" + s,
		b.path + "/%01" + s,
	}
	for _, path := range paths {
		for _, credential := range []string{m.r.admin, s, ""} {
			got := m.r.rest(b.verb, path, credential, bodies[0])
			m.check(b.verb+" "+path, fmt.Sprint(got))
		}
	}
	for _, body := range bodies[1:] {
		got := m.r.rest(b.verb, b.path, m.r.admin, body)
		m.check(b.verb+" "+b.path+" with "+body[:min(len(body), 120)], fmt.Sprint(got))
	}
	for _, name := range []string{
		"X-Request-Id", "X-Forwarded-For", "Idempotency-Key", "Grpc-Timeout", "Grpc-Metadata-X", "Content-Type", "User-Agent", "Cookie", "Te", "Accept",
		"Grpc-Metadata-Authorization", "Authorization", "X-Forwarded-Host", "Referer", "Origin", "X-" + strings.ReplaceAll(s, "_", "-"), "Grpc-Metadata-A-Bin",
	} {
		got := m.r.rest(b.verb, b.path, m.r.admin, bodies[0], name, s)
		m.check(b.verb+" "+b.path+" with header "+name, fmt.Sprint(got))
	}
	got := m.r.rest("BREW", b.path+"/"+s, m.r.admin, s)
	m.check("an unknown method", fmt.Sprint(got))
}

// aftermath looks into what stays: logs, events and metrics. There no secret at all may stand, known or not.
func (m marked) aftermath() {
	m.t.Helper()
	logs, metrics := m.r.logs.String(), m.r.rest("GET", "/metrics", "", "").body
	events, path := "", "/v1/events?page_size=200"
	for path != "" {
		got := m.r.rest("GET", path, m.r.admin, "")
		events += got.body
		link, _ := strings.CutSuffix(got.header.Get("Link"), `>; rel="next"`)
		path, _ = strings.CutPrefix(link, "<"+m.r.srv.Issuer())
	}
	for what, text := range map[string]string{"the log": logs, "the events": events, "the metrics": metrics} {
		if len(text) < 100 {
			m.t.Errorf("%s: hardly anything there: %q", what, text)
		}
		m.check(what, text)
		if secret.ContainsSecret(text) {
			m.t.Errorf("%s: a secret stands in it", what)
		}
	}
	if !strings.Contains(logs, `"panic"`) {
		m.t.Error("nothing panicked")
	}
}

func TestRevokedSecretIsNeverRepeated(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, secret := r.mint("u1", "marked")
	m := marked{t: t, r: r, secret: secret, marks: markers(t, secret)}
	for range 2 {
		got := r.rest("DELETE", "/v1/self?reason="+secret, secret, "")
		m.check("revoke self with the secret as its reason", fmt.Sprint(got))
		got = r.rest("DELETE", "/v1/self", secret, "")
		m.check("revoke self", fmt.Sprint(got))
		got = r.rest("DELETE", "/v1/users/u1?reason="+secret, r.admin, "")
		m.check("delete user with the secret as its reason", fmt.Sprint(got))
		got = r.rest("DELETE", "/v1/users/u1", r.admin, "")
		m.check("delete user", fmt.Sprint(got))
	}
	m.panicking(func() { m.check("panic", fmt.Sprint(r.rest("GET", "/v1/self", secret, ""))) })
	m.aftermath()
}
