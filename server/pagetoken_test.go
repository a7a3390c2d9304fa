package server_test

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestAUserCancelsARotationAndEditsLabelsInTheBrowser takes a secret back that was never used, and is refused where it
// was.
func TestAUserCancelsARotationAndEditsLabelsInTheBrowser(t *testing.T) {
	t.Parallel()
	r := pageRig(t)
	b := r.signedIn("u1", time.Hour, "")
	first := b.newToken("laptop", "reports.read").wants(http.StatusOK).secret()
	id := strings.Split(first, "_")[1]
	rotate := func() string {
		form := b.get("/tokens/" + id).form("rotate")
		form.Set("grace", "24h")
		form.Set("expiration", "keep")
		return b.post("/tokens/"+id, form).wants(http.StatusOK).secret()
	}
	if page := b.get("/tokens/" + id); strings.Contains(page.text, "Cancel rotation") {
		t.Error("a token that was never rotated offers to cancel it")
	}
	second := rotate()
	form := b.get("/tokens/"+id).wants(http.StatusOK, "Cancel rotation").form("cancel")
	page := b.post("/tokens/"+id, form).
		wants(http.StatusOK, "The rotation is canceled", "You took back the last rotation")
	if got := r.introspect(first).String() + " " + r.introspect(second).String(); got != "ALLOW SUPERSEDED" {
		t.Errorf("after the cancellation: %s", got)
	}
	if strings.Contains(page.text, "Cancel rotation") {
		t.Error("it is offered again")
	}
	third := rotate()
	form = b.get("/tokens/" + id).form("cancel")
	if got := r.introspect(third).String(); got != "ALLOW" {
		t.Fatalf("the new secret: %s", got)
	}
	b.post("/tokens/"+id, form).wants(http.StatusBadRequest, "The new secret was used")

	edit := b.get("/tokens/"+id).wants(http.StatusOK, `name="labels"`).form("edit")
	edit.Set("name", "laptop")
	edit["scopes"] = []string{"reports.read"}
	edit.Set("labels", "team=infra\r\n\r\nwhy=a=b\r\n")
	b.post("/tokens/"+id, edit).wants(http.StatusOK, "Saved.", "Label team", "team=infra\nwhy=a=b\n</textarea>")
	if got := r.rest("GET", "/v1/tokens?label.why=a%3Db", r.admin, ""); !strings.Contains(got.body, id) {
		t.Errorf("the label is not that: %s", got.body)
	}
	edit = b.get("/tokens/" + id).form("edit")
	edit.Set("name", "laptop")
	edit["scopes"] = []string{"reports.read"}
	for _, wrong := range []string{"team", "a=1\na=2", "=x", strings.Repeat("k", 64) + "=v"} {
		edit.Set("labels", wrong)
		b.post("/tokens/"+id, edit).wants(http.StatusBadRequest, `id="labels-error" role="alert"`)
	}
	edit.Set("labels", "")
	page = b.post("/tokens/"+id, edit).wants(http.StatusOK, "Saved.")
	if strings.Contains(page.text, "Label team") {
		t.Error("the labels are still there")
	}
}
