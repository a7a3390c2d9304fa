package server_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"patd/tokens"
)

// TestAnOperatorKeepsTheCatalogueInTheBrowser makes, changes and deletes an entry.
func TestAnOperatorKeepsTheCatalogueInTheBrowser(t *testing.T) {
	t.Parallel()
	r, p := webRig(t)
	b := r.operator(p, "ann", "catalog")
	form := b.get("/admin/features/new").wants(http.StatusOK, "New feature").form("save")
	form.Set("name", `with "quotes"`)
	form.Set("description", "kept")
	form.Set("consent", "required")
	form.Set("published", "yes")
	form = b.post("/admin/features/new", form).
		wants(http.StatusBadRequest, `id="name-error" role="alert"`, ">kept</textarea>", `name="published" value="yes" checked`).
		form("save")
	for name, text := range map[string]string{"name": "deploy.run", "display_name": "Deploy", "description": "line\r\nline", "consent": "required", "published": "yes"} {
		form.Set(name, text)
	}
	page := b.post("/admin/features/new", form).
		wants(http.StatusOK, "Saved.", `value="Deploy"`, `value="required" selected`)
	b.post("/admin/features/new", form).wants(http.StatusConflict, `role="alert"`)
	e, err := r.svc.Feature(t.Context(), tokens.Operator(), "deploy.run")
	if must(
		t,
		err,
	); e.DisplayName != "Deploy" || e.Consent != tokens.ConsentRequired || !e.Published || e.Default ||
		e.Description != "line\nline" {
		t.Errorf("the entry is %+v", e)
	}
	old := page.form("save")
	edit := page.form("save")
	edit.Set("display_name", "Deploy it")
	edit.Set("consent", "implicit")
	b.post("/admin/features/deploy.run", edit).wants(http.StatusOK, "Saved.", "Deploy it")
	old.Set("display_name", "Lost")
	b.post("/admin/features/deploy.run", old).wants(http.StatusPreconditionFailed, "changed in another window", "Lost")
	b.get("/admin/features?q=deploy").wants(http.StatusOK, ">deploy.run</a>")
	b.get("/admin/features?q=nothing").wants(http.StatusOK, "Nothing matches.")
	b.post("/admin/features/deploy.run", b.get("/admin/features/deploy.run").form("delete")).
		wants(http.StatusOK, "The entry is deleted.")
	b.get("/admin/features/deploy.run").wants(http.StatusNotFound)
}

// TestAnOperatorBlocksByAPolicyInTheBrowser goes from the dry run to the number, and back.
func TestAnOperatorBlocksByAPolicyInTheBrowser(t *testing.T) {
	t.Parallel()
	r, p := webRig(t)
	b := r.operator(p, "ann", "catalog")
	const id = "https://api.example.com/v1" // it does not fit into a path
	form := b.get("/admin/audiences/new").wants(http.StatusOK, "New audience").form("save")
	form.Set("id", id)
	form.Set("max_ttl", "soon")
	form = b.post("/admin/audiences/new", form).
		wants(http.StatusBadRequest, `id="max_ttl-error" role="alert"`, `value="soon"`).
		form("save")
	form.Set("id", id)
	form.Set("max_ttl", "300d")
	b.post("/admin/audiences/new", form).wants(http.StatusOK, "Saved.", `value="300d"`)
	at := "/admin/audiences/-?id=https%3A%2F%2Fapi.example.com%2Fv1"

	r.features("bob", "reports.read")
	var secrets []string
	for i, days := range []int{10, 100, 200} {
		ttl := time.Duration(days) * tokens.Day
		m, err := r.svc.Mint(t.Context(), tokens.Operator(), tokens.MintRequest{
			User:      "bob",
			Name:      "t" + strconv.Itoa(i),
			Scopes:    []string{"reports.read"},
			Audiences: []string{id},
			Lifetime:  tokens.Lifetime{TTL: &ttl},
		})
		must(t, err)
		secrets = append(secrets, m.Secret.Reveal())
	}
	r.mint("bob", "names none")
	b.get(at).wants(http.StatusOK, "0 tokens exceed the present policy", "unblocked or end within it: 0")
	page := b.get(at+"&longest=50d&named=yes").
		wants(http.StatusOK, "2 tokens would exceed this policy", "would refuse: 1", ">t1<", ">t2<")
	if strings.Contains(page.text, ">t0<") || strings.Contains(page.text, `href="/admin/tokens`) {
		t.Error("the dry run shows a token that stays within, or a link that the operator may not use")
	}
	b.get(at+"&longest=never").wants(http.StatusOK, `role="alert"`)

	save := b.get(at).form("save")
	save.Set("max_ttl", "50d")
	save.Set("require_named", "yes")
	asks := b.post(at, save).wants(http.StatusConflict, "would refuse: 1", `id="save-count"`)
	save = asks.form("save")
	save.Set("max_ttl", "50d")
	save.Set("require_named", "yes")
	save.Set("count", "1")
	b.post(at, save).
		wants(http.StatusOK, "Saved.", "2 tokens exceed the present policy", "unblocked or end within it: 2")

	block := b.get(at).form("block")
	for _, wrong := range []string{"", "1", "3"} {
		block.Set("count", wrong)
		if again := b.post(at, block); again.code < 400 || !strings.Contains(again.text, `role="alert"`) {
			t.Errorf("with the number %q: %d", wrong, again.code)
		}
	}
	if got := r.introspect(secrets[2]).String(); got == "POLICY_BLOCKED" {
		t.Error("a wrong number blocks")
	}
	block.Set("count", "2")
	b.post(at, block).wants(http.StatusOK, "The tokens are blocked.", "would work again: 2")
	if got := r.introspect(secrets[2]).String(); got != "POLICY_BLOCKED" {
		t.Errorf("blocked: %s", got)
	}
	unblock := b.get(at).form("unblock")
	unblock.Set("count", "2")
	b.post(at, unblock).wants(http.StatusOK, "The tokens are unblocked.", "would work again: 0")
	b.post(at, b.get(at).form("delete")).wants(http.StatusOK, "The entry is deleted.")
	b.get(at).wants(http.StatusNotFound)
}
