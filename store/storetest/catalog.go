package storetest

import (
	"testing"
	"time"

	"patd/tokens"
)

// describe adds entries of features, with their events.
func (f *fixture) describe(es ...tokens.FeatureEntry) {
	f.t.Helper()
	for _, e := range es {
		f.update(func(tx tokens.Tx) error { return tx.InsertFeature(e) },
			tokens.Event{Action: tokens.ActionFeatureCreate, Detail: e.Name})
	}
}

func (f *fixture) feature(name string) (e tokens.FeatureEntry) {
	f.t.Helper()
	f.view(func(tx tokens.ReadTx) (err error) {
		e, err = tx.Feature(name)
		return err
	})
	return e
}

func (f *fixture) features(q tokens.FeatureQuery) (names []string) {
	f.t.Helper()
	if q.Limit == 0 {
		q.Limit = 100
	}
	f.view(func(tx tokens.ReadTx) error {
		list, err := tx.Features(q)
		for _, e := range list {
			names = append(names, e.Name)
			f.equal("an entry in a list", e, f.feature(e.Name))
		}
		return err
	})
	return names
}

func testFeatures(_ *testing.T, f *fixture) {
	plain := tokens.FeatureEntry{Name: "a", Consent: tokens.ConsentImplicit}
	full := tokens.FeatureEntry{
		Name: "reports/read:%_*'", DisplayName: "Größe", Description: "two\nlines", Consent: tokens.ConsentRequired,
		Default: true, Optional: true, Published: true, System: true,
	}
	f.describe(plain, full)
	f.equal("an entry", f.feature(plain.Name), plain)
	f.equal("an entry with all fields", f.feature(full.Name), full)
	f.update(func(tx tokens.Tx) error {
		f.isTaken("a second of its name", tx.InsertFeature(tokens.FeatureEntry{Name: "a", DisplayName: "second",
			Consent: tokens.ConsentFlexible}))
		return tx.PutPrefix("acme")
	})
	f.equal("the entry that was there", f.feature(plain.Name), plain)
	f.equal("what came after in the transaction", f.prefixes(), []string{"acme"})

	turned := tokens.FeatureEntry{Name: full.Name, Consent: tokens.ConsentFlexible}
	f.update(func(tx tokens.Tx) error { return tx.UpdateFeature(turned) })
	f.equal("written anew", f.feature(full.Name), turned)
	f.equal("the other", f.feature(plain.Name), plain)
	f.equal("by what it was called", f.features(tokens.FeatureQuery{Has: tokens.NameKey("Größe")}), []string{})
	yes := true
	f.equal("by what it was", f.features(tokens.FeatureQuery{Default: &yes}), []string{})

	f.update(func(tx tokens.Tx) error {
		if err := tx.DeleteFeature(full.Name); err != nil {
			return err
		}
		_, err := tx.Feature(full.Name)
		f.isNotFound("a deleted entry", err)
		f.isNotFound("delete again", tx.DeleteFeature(full.Name))
		return nil
	})
	f.equal("entries", f.features(tokens.FeatureQuery{}), []string{"a"})
	f.describe(full)
	f.equal("added again", f.feature(full.Name), full)
}

func testFeatureQueries(_ *testing.T, f *fixture) {
	f.describe(
		tokens.FeatureEntry{Name: "b", DisplayName: "Größe", Consent: tokens.ConsentImplicit, Default: true,
			Published: true},
		tokens.FeatureEntry{Name: "a", Description: "IN GRÖSSE", Consent: tokens.ConsentRequired, Default: true,
			Optional: true},
		tokens.FeatureEntry{Name: "B", DisplayName: "x", Description: "y", Consent: tokens.ConsentFlexible,
			Published: true, System: true},
		tokens.FeatureEntry{Name: "aa", DisplayName: "100%", Consent: tokens.ConsentImplicit},
	)
	yes, no := true, false
	for _, c := range []struct {
		what string
		q    tokens.FeatureQuery
		want []string
	}{
		{"all, in byte order", tokens.FeatureQuery{}, []string{"B", "a", "aa", "b"}},
		{"a page", tokens.FeatureQuery{After: "B", Limit: 2}, []string{"a", "aa"}},
		{"the next page", tokens.FeatureQuery{After: "aa", Limit: 2}, []string{"b"}},
		{"after the last", tokens.FeatureQuery{After: "b", Limit: 2}, nil},
		{"after one that is not there", tokens.FeatureQuery{After: "a/"}, []string{"aa", "b"}},
		{"contained in display name or description", tokens.FeatureQuery{Has: tokens.NameKey("gröSSE")}, []string{"a",
			"b"}},
		{"contained in a name, whatever the case", tokens.FeatureQuery{Has: tokens.NameKey("B")}, []string{"B", "b"}},
		{"a wildcard is a character", tokens.FeatureQuery{Has: "%"}, []string{"aa"}},
		{"fields are not one text", tokens.FeatureQuery{Has: "xy"}, nil},
		{"name", tokens.FeatureQuery{Name: "a"}, []string{"a"}},
		{"no such name", tokens.FeatureQuery{Name: "A"}, nil},
		{"consent", tokens.FeatureQuery{Consent: tokens.ConsentRequired}, []string{"a"}},
		{"default", tokens.FeatureQuery{Default: &yes}, []string{"a", "b"}},
		{"a page of default", tokens.FeatureQuery{Default: &yes, After: "a", Limit: 1}, []string{"b"}},
		{"not default", tokens.FeatureQuery{Default: &no}, []string{"B", "aa"}},
		{"optional", tokens.FeatureQuery{Optional: &yes}, []string{"a"}},
		{"not optional", tokens.FeatureQuery{Optional: &no}, []string{"B", "aa", "b"}},
		{"published", tokens.FeatureQuery{Published: &yes}, []string{"B", "b"}},
		{"not published", tokens.FeatureQuery{Published: &no}, []string{"a", "aa"}},
		{"system", tokens.FeatureQuery{System: &yes}, []string{"B"}},
		{"not system", tokens.FeatureQuery{System: &no}, []string{"a", "aa", "b"}},
		{"default and published", tokens.FeatureQuery{Default: &yes, Published: &yes}, []string{"b"}},
		{"default and not published", tokens.FeatureQuery{Default: &yes, Published: &no}, []string{"a"}},
		{"published and not default", tokens.FeatureQuery{Default: &no, Published: &yes}, []string{"B"}},
		{"all at once", tokens.FeatureQuery{
			Has: "gr", Name: "b", Consent: tokens.ConsentImplicit, Default: &yes, Optional: &no, Published: &yes,
			System: &no, After: "aa",
		}, []string{"b"}},
	} {
		f.equal(c.what, f.features(c.q), c.want)
	}
}

// audience adds an audience, with its event.
func (f *fixture) audience(e tokens.AudienceEntry) {
	f.t.Helper()
	f.update(func(tx tokens.Tx) error { return tx.InsertAudience(e) },
		tokens.Event{Action: tokens.ActionAudienceCreate, Detail: e.ID})
}

func (f *fixture) readAudience(id string) (e tokens.AudienceEntry) {
	f.t.Helper()
	f.view(func(tx tokens.ReadTx) (err error) {
		e, err = tx.Audience(id)
		return err
	})
	return e
}

func testAudiences(_ *testing.T, f *fixture) {
	plain := tokens.AudienceEntry{ID: "api", AccessFormat: tokens.AccessOpaque}
	full := tokens.AudienceEntry{
		ID: "https://api.example/v1?ü=%", DisplayName: "The API", Resource: "https://api.example/v1",
		DefaultTTL: time.Microsecond,
		MaxTTL:     100 * 366 * tokens.Day, AllowNever: true, AllowOffline: true, AccessTTL: tokens.MaxAccessTTL,
		AccessFormat: tokens.AccessJWT,
	}
	f.audience(plain)
	f.audience(full)
	f.equal("an audience", f.readAudience(plain.ID), plain)
	f.equal("an audience with all fields", f.readAudience(full.ID), full)
	f.update(func(tx tokens.Tx) error {
		f.isTaken("a second of its id", tx.InsertAudience(tokens.AudienceEntry{ID: "api", MaxTTL: 1,
			AccessFormat: tokens.AccessJWT}))
		return tx.PutPrefix("acme")
	})
	f.equal("the audience that was there", f.readAudience(plain.ID), plain)
	f.equal("what came after in the transaction", f.prefixes(), []string{"acme"})

	turned := tokens.AudienceEntry{ID: full.ID, MaxTTL: time.Nanosecond, AccessTTL: time.Hour,
		AccessFormat: tokens.AccessOpaque}
	f.update(func(tx tokens.Tx) error { return tx.UpdateAudience(turned) })
	got := f.readAudience(full.ID)
	if got.MaxTTL <= 0 || got.MaxTTL > time.Microsecond {
		f.t.Errorf("the shortest limit became %s", got.MaxTTL)
	}
	got.MaxTTL = turned.MaxTTL
	f.equal("written anew", got, turned)
	f.equal("the other", f.readAudience(plain.ID), plain)

	tok := f.token(f.user("u"), "one", f.of(time.Hour, full.ID))
	f.update(func(tx tokens.Tx) error {
		if err := tx.DeleteAudience(full.ID); err != nil {
			return err
		}
		_, err := tx.Audience(full.ID)
		f.isNotFound("a deleted audience", err)
		f.isNotFound("delete again", tx.DeleteAudience(full.ID))
		return nil
	})
	f.equal("a token of a deleted audience", f.read(tok.ID), tok)
	f.audience(full)
	f.equal("added again", f.readAudience(full.ID), full)
}

func testAudienceQueries(_ *testing.T, f *fixture) {
	for id, display := range map[string]string{"b": "Straße", "ä": "", "B": "x", "a%": "STRASSE 2", "a": "über"} {
		f.audience(tokens.AudienceEntry{ID: id, DisplayName: display, Resource: "https://secret.example",
			AccessFormat: tokens.AccessJWT})
	}
	for _, c := range []struct {
		what string
		q    tokens.AudienceQuery
		want []string
	}{
		{"all, in byte order", tokens.AudienceQuery{}, []string{"B", "a", "a%", "b", "ä"}},
		{"a page", tokens.AudienceQuery{After: "B", Limit: 2}, []string{"a", "a%"}},
		{"the next page", tokens.AudienceQuery{After: "a%", Limit: 9}, []string{"b", "ä"}},
		{"contained in a display name", tokens.AudienceQuery{Has: tokens.NameKey("strasse")}, []string{"a%", "b"}},
		{"contained in an id, whatever the case", tokens.AudienceQuery{Has: tokens.NameKey("Ä")}, []string{"ä"}},
		{"a page of those", tokens.AudienceQuery{Has: "b", After: "a", Limit: 1}, []string{"b"}},
		{"a wildcard is a character", tokens.AudienceQuery{Has: "%"}, []string{"a%"}},
		{"the resource is not looked in", tokens.AudienceQuery{Has: "secret"}, nil},
	} {
		if c.q.Limit == 0 {
			c.q.Limit = 100
		}
		var got []string
		f.view(func(tx tokens.ReadTx) error {
			list, err := tx.Audiences(c.q)
			for _, e := range list {
				got = append(got, e.ID)
				f.equal("an audience in a list", e, f.readAudience(e.ID))
			}
			return err
		})
		f.equal(c.what, got, c.want)
	}
}
