package tokens_test

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/text/secure/precis"
	"pgregory.net/rapid"

	"patd/tokens"
)

// named mints under a name and returns the token's, or the reason of the refusal.
func (h *house) named(name string) (stored, why string) {
	m, err := h.Mint(ctx, admin, tokens.MintRequest{User: "u1", Name: name, Scopes: []string{"a"}})
	if err != nil {
		return "", reason(err)
	}
	_, err = h.Revoke(ctx, admin, "u1", m.Token.ID.String(), "")
	if err != nil {
		h.t.Fatal(err)
	}
	return m.Token.Name, ""
}

func TestNamesShowSomethingInTheirOwnOrder(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.give("u1", "a")
	got, want := map[string]string{}, map[string]string{}
	for name, stored := range map[string]string{
		"ci": "ci", " ci\t"[:3]: "ci", "CI  job": "CI  job", "\u3000ci\u00a0job\u2003": "ci job", "e\u0301": "é", "①": "①", "ｃｉ": "ｃｉ",
		"日本": "日本", "שלום": "שלום", "می\u200cخواهم": "می\u200cخواهم", "क्\u200dष": "क्\u200dष", "deploy · prod": "deploy · prod",
		"🚀": "🚀", "⚙️ ci": "⚙️ ci", "👩🏽‍💻": "👩🏽‍💻", "❤️‍🔥": "❤️‍🔥", "1️⃣": "1️⃣", "!": "!", "Größe": "Größe",
	} {
		got[name], _ = h.named(name)
		want[name] = stored
	}
	for name, reason := range map[string]string{
		"": "NAME_REQUIRED", " ": "NAME_REQUIRED", "\u00a0\u3000": "NAME_REQUIRED", "\u200b": "NAME_REQUIRED", "\u3164": "NAME_REQUIRED", "\u115f": "NAME_REQUIRED",
		"\uffa0": "NAME_REQUIRED", "\u2800": "NAME_REQUIRED", "\u00ad": "NAME_REQUIRED", "\ufeff": "NAME_REQUIRED", "\u2060\u180e": "NAME_REQUIRED", "\u0301": "NAME_REQUIRED",
		"\ufe0f": "NAME_REQUIRED", "\u200d": "NAME_REQUIRED", "\U000e0041": "NAME_REQUIRED", "\U0001d159": "NAME_REQUIRED",
		"ci\u200b": "TEXT_INVALID", "c\u00adi": "TEXT_INVALID", "ci\u3164": "TEXT_INVALID", "ci\u200d": "TEXT_INVALID", "ci\ufe0f": "TEXT_INVALID", "\ufeffci": "TEXT_INVALID",
		"a\u202eb": "TEXT_INVALID", "a\u202ab": "TEXT_INVALID", "a\u2066b\u2069": "TEXT_INVALID", "a\u200eb": "TEXT_INVALID", "a\u200fb": "TEXT_INVALID", "a\u061cb": "TEXT_INVALID",
		"a\u2028b": "TEXT_INVALID", "a\u0378": "TEXT_INVALID", "a\ue000": "TEXT_INVALID", "a\nb": "TEXT_INVALID", "a\x7fb": "TEXT_INVALID", "\xff": "TEXT_INVALID",
		strings.Repeat("ä", 101): "NAME_TOO_LONG",
	} {
		if stored, why := h.named(name); why != reason {
			t.Errorf("%+q: stored as %+q, %q, want %s", name, stored, why, reason)
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestEveryTextThatPeopleReadIsChecked puts a character that reorders text, and one that is nothing, into each field.
func TestEveryTextThatPeopleReadIsChecked(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.give("u1", "a")
	m := h.mint("u1", "n", "a")
	id := m.Token.ID.String()
	mint := func(r tokens.MintRequest) error {
		r.Name, r.Scopes = "other", []string{"a"}
		if r.User == "" {
			r.User = "u1"
		}
		_, err := h.Mint(ctx, admin, r)
		return err
	}
	names := map[string]func(s string) error{ // a name, or an id
		"token": func(s string) error { _, why := h.named(s); return tokens.Fail(tokens.CodeInvalid, why, "") },
		"update": func(s string) error {
			_, err := h.UpdateToken(ctx, admin, "u1", id, tokens.TokenChange{Name: &s})
			return err
		},
		"feature": func(s string) error {
			_, err := h.CreateFeature(ctx, admin, tokens.FeatureEntry{Name: "f", DisplayName: s})
			return err
		},
		"audience": func(s string) error {
			_, err := h.CreateAudience(ctx, admin, tokens.AudienceEntry{ID: "x", DisplayName: s})
			return err
		},
		"audience's id": func(s string) error { _, err := h.CreateAudience(ctx, admin, tokens.AudienceEntry{ID: s}); return err },
		"user":          func(s string) error { _, err := h.SetUserFeatures(ctx, admin, s, []string{"a"}); return err },
		"label's key":   func(s string) error { return mint(tokens.MintRequest{Labels: map[string]string{s: "v"}}) },
		"service": func(s string) error {
			_, err := h.CreateService(ctx, admin, tokens.ServiceRequest{Name: s, Permissions: []string{"audit"}})
			return err
		},
	}
	for what, try := range names {
		for _, bad := range []string{"a\u202eb", "\u2066a", "a\u200fb", "\u200b", "\u3164", "\u2800"} {
			if e := domainError(t, try(bad)); e.Code != tokens.CodeInvalid || e.Reason == "" {
				t.Errorf("%s %+q: %v", what, bad, e)
			}
		}
	}
	for what, try := range map[string]func(s string) error{ // a text of several lines, or a value
		"description": func(s string) error { return mint(tokens.MintRequest{Description: s}) },
		"feature's description": func(s string) error {
			_, err := h.CreateFeature(ctx, admin, tokens.FeatureEntry{Name: "f", Description: s})
			return err
		},
		"label's value": func(s string) error { return mint(tokens.MintRequest{Labels: map[string]string{"k": s}}) },
		"reason":        func(s string) error { _, err := h.Revoke(ctx, admin, "u1", id, s); return err },
	} {
		if e := domainError(
			t,
			try("a\u202eb"),
		); e.Code != tokens.CodeInvalid ||
			!strings.Contains(e.Error(), "leave them out") {
			t.Errorf("%s: %v", what, e)
		}
	}
}

// TestNamesThatLookAlikeAreOne tries a second name beside a live one.
func TestNamesThatLookAlikeAreOne(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.give("u1", "a")
	h.mint("u1", "CI job", "a")
	for _, name := range []string{"ci job", "CI  job", "ci\u00a0job", "ｃｉ job", "ℂ𝕀 job"} {
		if stored, why := h.named(name); why != "NAME_TAKEN" {
			t.Errorf("%+q: %q %q", name, stored, why)
		}
	}
	if _, why := h.named("cijob"); why != "" {
		t.Errorf("another name: %s", why)
	}
}

// TestNamesFromBeforeStayUsable is about a row of v0.1.0, with a name that would be refused now.
func TestNamesFromBeforeStayUsable(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.give("u1", "a")
	m := h.mint("u1", "old", "a")
	const name = "CI\u200b"
	err := h.store.Update(ctx, func(tx tokens.Tx) ([]tokens.Event, error) {
		old := m.Token
		old.Name = name
		e := tokens.Event{
			Time:    noon,
			Actor:   "operator",
			Action:  tokens.ActionTokenUpdate,
			User:    "u1",
			TokenID: old.ID,
			Outcome: tokens.OutcomeSuccess,
		}
		return []tokens.Event{e}, tx.UpdateToken(old)
	})
	if err != nil {
		t.Fatal(err)
	}
	h.wants(m.Secret, tokens.Allow, "it")
	if _, why := h.named("ci"); why != "NAME_TAKEN" {
		t.Errorf("ci beside it: %q", why)
	}
	if list, _, err := h.Tokens(
		ctx,
		admin,
		tokens.TokenFilter{User: "u1", NameHas: "ci"},
		tokens.Page{},
	); err != nil ||
		len(list) != 1 {
		t.Errorf("searched: %v, %v", list, err)
	}
	text := "d"
	got, err := h.UpdateToken(ctx, admin, "u1", m.Token.ID.String(), tokens.TokenChange{Description: &text})
	if err != nil || got.Name != name {
		t.Errorf("described: %+v, %v", got, err)
	}
	r, err := h.Rotate(ctx, admin, tokens.RotateRequest{User: "u1", TokenID: m.Token.ID.String()})
	if err != nil {
		t.Fatal(err)
	}
	h.wants(r.Secret, tokens.Allow, "rotated")
	better := "ci"
	if _, err := h.UpdateToken(ctx, admin, "u1", m.Token.ID.String(), tokens.TokenChange{Name: &better}); err != nil {
		t.Errorf("renamed: %v", err)
	}
}

// anyName draws names with many of the characters that matter.
func anyName() *rapid.Generator[string] {
	odd := rapid.SampledFrom(
		[]rune(
			"aA ı İſßﬁ①ｃ·\u00a0\u3000\u200b\u200c\u200d\u200e\u202e\u2066\u3164\u1160\uffa0\u2800\ufe0f\u20e3\u0301\u00ad⚙👩💻🏽\u0640\u0378\ue000\u1100\u1161ﷺ㌀\u0600",
		),
	)
	return rapid.OneOf(
		rapid.String(),
		rapid.StringOfN(odd, 0, 8, -1),
		rapid.StringOfN(rapid.OneOf(odd, rapid.Rune()), 0, 8, -1),
	)
}

func TestNameKeysFoldWhatLooksAlike(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyName().Draw(t, "a"), anyName().Draw(t, "b")
		key := tokens.NameKey(a)
		if again := tokens.NameKey(key); again != key {
			t.Fatalf("the key of %+q is %+q, and of that %+q", a, key, again)
		}
		// U+0345 is a mark that folds to a letter: what stands around it decides where.
		if former := tokens.NameKey(tokens.FormerNameKey(a)); former != key && !strings.ContainsRune(a, '\u0345') {
			t.Fatalf("by the former key of %+q: %+q, want %+q", a, former, key)
		}
		if tokens.FormerNameKey(a) == tokens.FormerNameKey(b) && key != tokens.NameKey(b) {
			t.Fatalf("%+q and %+q were one name, and are not", a, b)
		}
		for _, nothing := range []string{"\u200b", "\u2060", "\ufe0f", "\u00ad", "\u3164"} {
			at := rapid.IntRange(0, utf8.RuneCountInString(a)).Draw(t, "at")
			in := []rune(a)
			if utf8.ValidString(a) &&
				!unicode.In(append(in, 'x')[min(at, len(in))], unicode.M) { // a mark would have another base
				if got := tokens.NameKey(string(in[:at]) + nothing + string(in[at:])); got != key {
					t.Fatalf("%+q with %+q at %d: %+q, want %+q", a, nothing, at, got, key)
				}
			}
		}
		if same, err := precis.Nickname.CompareKey(a); err == nil && tokens.NameKey(same) != key {
			t.Fatalf("the key of %+q by Nickname, %+q, is another name: %+q, %+q", a, same, tokens.NameKey(same), key)
		}
	})
}

// FuzzNames holds the names of a catalogue's entry to what is promised of them.
func FuzzNames(f *testing.F) {
	for _, s := range []string{"ci", "ci\u200b", "\u3164", "⚙️", "👩‍💻", "a\u202eb", "a · b", "\u00a0", "e\u0301", "\xff"} {
		f.Add(s)
	}
	h := newHouse(f)
	f.Fuzz(func(t *testing.T, s string) {
		e, err := h.CreateFeature(ctx, admin, tokens.FeatureEntry{Name: "f", DisplayName: s})
		if err != nil {
			if e := domainError(t, err); e.Code != tokens.CodeInvalid {
				t.Fatal(err)
			}
			return
		}
		again, err := h.ReplaceFeature(ctx, admin, e)
		if err != nil || again.DisplayName != e.DisplayName {
			t.Errorf("%+q is stored as %+q, and that as %+q, %v", s, e.DisplayName, again.DisplayName, err)
		}
		if s != "" && strings.TrimSpace(s) != "" && tokens.NameKey(e.DisplayName) == "" {
			t.Errorf("%+q shows nothing", e.DisplayName)
		}
		if strings.ContainsFunc(
			e.DisplayName,
			func(r rune) bool { return unicode.Is(unicode.Bidi_Control, r) || unicode.IsControl(r) },
		) {
			t.Errorf("%+q", e.DisplayName)
		}
		if err := h.DeleteFeature(ctx, admin, "f"); err != nil {
			t.Fatal(err)
		}
	})
}
