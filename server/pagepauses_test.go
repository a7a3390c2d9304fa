package server_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	patdv1 "patd/gen/patd/v1"
)

// TestAUserPausesUnusedScopesInTheBrowser has the page say which scopes were never used, pause one, keep it paused when
// something else is edited, and resume it.
func TestAUserPausesUnusedScopesInTheBrowser(t *testing.T) {
	t.Parallel()
	r := pageRig(t)
	r.features("u1", "a", "b", "c")
	b := r.signedIn("u1", time.Hour, "")
	secret := b.newToken("laptop", "a", "b", "c").wants(http.StatusOK).secret()
	id := strings.Split(secret, "_")[1]
	path := "/tokens/" + id
	_, err := patdv1.NewIntrospectionServiceClient(r.conn).
		Introspect(as(r.admin), &patdv1.IntrospectRequest{Token: secret, RequiredScopes: []string{"a"}})
	must(t, err)
	must(t, r.store.FlushUses(t.Context(), nil))
	shown := b.get(path).wants(http.StatusOK, "Scopes that were never used", `id="narrow-b"`, `id="narrow-c"`)
	if n := strings.Count(shown.text, "Never used"); n != 2 || strings.Contains(shown.text, `id="narrow-a"`) {
		t.Errorf("never used: %d marks, want 2, of b and c", n)
	}
	if n := strings.Count(shown.text, ">b</label>"); n != 1 || !strings.Contains(shown.text, ">Pause b</label>") {
		t.Errorf("b: %d checkboxes of this name, want 1, and one to pause it", n)
	}
	form := shown.form("narrow")
	delete(form, "scopes")
	b.post(path, form).wants(http.StatusBadRequest, "Tick at least one scope")
	form["scopes"] = []string{"b"}
	b.post(path, form).
		wants(http.StatusOK, "The scopes are paused.", "Paused scopes", ">Resume b</label>", "scopes paused: b")
	if again := b.post(path, form); again.code < 400 {
		t.Errorf("a form from before: %d", again.code)
	}

	edit := b.get(path).form("edit")
	edit.Set("name", "desktop")
	edit["scopes"] = append(edit["scopes"], "a")
	b.post(path, edit).wants(http.StatusOK, "Saved.")
	tok := r.token(t, "u1", id)
	if got := strings.Join(tok.GetScopes(), " ") + "|" + strings.Join(tok.GetPausedScopes(), " "); got != "a b|b" {
		t.Fatalf("after an edit: %s, want a b|b", got)
	}
	form = b.get(path).form("unpause")
	form["scopes"] = []string{"b"}
	b.post(path, form).wants(http.StatusOK, "The scopes are in effect again.")
	if tok := r.token(t, "u1", id); len(tok.GetPausedScopes()) != 0 || len(tok.GetScopes()) != 2 {
		t.Errorf("resumed: %v, paused %v", tok.GetScopes(), tok.GetPausedScopes())
	}
}
