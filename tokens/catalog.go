package tokens

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"patd/tokens/secret"
)

// Consent says how a feature gets into a token.
type Consent int

// The consents. The zero value is ConsentImplicit in a request.
const (
	ConsentImplicit Consent = iota + 1 // by name, or by default
	ConsentRequired                    // only ever by name
	ConsentFlexible                    // as implicit; a page may ask
)

// FeatureEntry is the catalogue's entry of a feature. A feature without an entry is treated as if it had the one that
// describe returns: implicit, not default, not published.
type FeatureEntry struct {
	Name        string
	DisplayName string
	Description string
	Consent     Consent
	Default     bool // granted when a request names no scopes, unless ConsentRequired
	Optional    bool // for pages: the user may leave it out
	Published   bool // listed in the public metadata document
	System      bool // cannot be changed or deleted
}

// describe returns the default entry of a feature that has none.
func describe(name string) FeatureEntry { return FeatureEntry{Name: name, Consent: ConsentImplicit} }

// FeatureFilter selects entries.
type FeatureFilter struct {
	Q      string
	Filter string // see ParseFeatureFilter
}

// HeldFeatures are the features that a user holds, with their catalogue entries.
type HeldFeatures struct {
	Features []FeatureEntry // by name
	Stale    bool           // the last known, served during an outage of the source
	// ETag is the entity tag of the features; empty: patd has no record of the user, or another source decides.
	ETag string
}

// CreateFeature adds an entry. It fails with FEATURE_EXISTS if there is one.
func (s *Service) CreateFeature(ctx context.Context, a Actor, e FeatureEntry) (FeatureEntry, error) {
	return s.writeFeature(ctx, a, ActionFeatureCreate, e, func(tx Tx, e FeatureEntry) error {
		err := tx.InsertFeature(e)
		if errors.Is(err, ErrTaken) {
			return Fail(CodeExists, "FEATURE_EXISTS", "the catalogue has an entry of this name; replace it instead")
		}
		return err
	})
}

// ReplaceFeature overwrites an existing entry. It fails with FEATURE_SYSTEM for a system entry.
func (s *Service) ReplaceFeature(ctx context.Context, a Actor, e FeatureEntry) (FeatureEntry, error) {
	return s.writeFeature(ctx, a, ActionFeatureReplace, e, func(tx Tx, e FeatureEntry) error {
		if err := changeable(ctx, tx, e.Name); err != nil {
			return err
		}
		return tx.UpdateFeature(e)
	})
}

// DeleteFeature removes an entry. The feature itself and the tokens that carry it do not change.
func (s *Service) DeleteFeature(ctx context.Context, a Actor, name string) error {
	_, err := s.changeCatalog(ctx, a, ActionFeatureDelete, name, func(tx Tx) error {
		if err := changeable(ctx, tx, name); err != nil {
			return err
		}
		return tx.DeleteFeature(name)
	})
	return err
}

func changeable(ctx context.Context, tx ReadTx, name string) error {
	e, err := tx.Feature(name)
	switch {
	case errors.Is(err, ErrNotFound):
		return notFound("feature in the catalogue")
	case err != nil:
		return fmt.Errorf("read feature: %w", err)
	case e.System:
		return Fail(CodeDenied, "FEATURE_SYSTEM", "a system entry can neither be changed nor deleted")
	}
	return expectTag(ctx, e)
}

func (s *Service) writeFeature(
	ctx context.Context,
	a Actor,
	action Action,
	e FeatureEntry,
	write func(Tx, FeatureEntry) error,
) (FeatureEntry, error) {
	var c checker
	if !ValidScope(e.Name) || secret.ContainsSecret(e.Name) {
		c.add("name", "SCOPE_INVALID", "a feature's name is "+scopeForm)
	}
	e.DisplayName = c.title("display_name", e.DisplayName)
	c.text("description", e.Description, maxDescription, true)
	if e.Consent == 0 {
		e.Consent = ConsentImplicit
	}
	if err := c.err(); err != nil {
		return FeatureEntry{}, err
	}
	_, err := s.changeCatalog(ctx, a, action, e.Name, func(tx Tx) error { return write(tx, e) })
	return e, err
}

// changeCatalog makes one change of the catalogue and writes its event, in one transaction.
func (s *Service) changeCatalog(
	ctx context.Context,
	a Actor,
	action Action,
	what string,
	change func(Tx) error,
) (Event, error) {
	if err := s.manager(a); err != nil {
		return Event{}, s.refused(ctx, a, Refusal{Action: action}, err)
	}
	var e Event
	err := s.ledger.do(ctx, a, func(tx Tx, now time.Time) ([]Event, error) {
		if err := change(tx); err != nil {
			return nil, err
		}
		e = a.event(now, action)
		e.Detail = what
		return []Event{e}, nil
	})
	return e, s.refused(ctx, a, Refusal{Action: action}, err)
}

// Feature returns an entry.
func (s *Service) Feature(ctx context.Context, a Actor, name string) (FeatureEntry, error) {
	if err := s.manager(a); err != nil {
		return FeatureEntry{}, err
	}
	var e FeatureEntry
	err := s.store.View(ctx, func(tx ReadTx) error {
		var err error
		e, err = tx.Feature(name)
		if errors.Is(err, ErrNotFound) {
			return notFound("feature in the catalogue")
		}
		return err
	})
	return e, err
}

// Features lists entries by name, and returns the cursor of the next page.
func (s *Service) Features(ctx context.Context, a Actor, f FeatureFilter, p Page) ([]FeatureEntry, string, error) {
	if err := s.manager(a); err != nil {
		return nil, "", err
	}
	q, err := ParseFeatureFilter(f.Filter)
	if err != nil {
		return nil, "", err
	}
	list := lister{keys: s.keys.Get(), query: framed("features", f.Q, f.Filter)}
	after, limit, err := list.page(p)
	if err != nil {
		return nil, "", err
	}
	q.Has, q.After, q.Limit = f.Q, after, limit+1
	var found []FeatureEntry
	err = s.store.View(ctx, func(tx ReadTx) error {
		found, err = tx.Features(q)
		return err
	})
	if err != nil {
		return nil, "", err
	}
	found, next := cut(list, found, limit, func(e FeatureEntry) string { return e.Name })
	return found, next, nil
}

// PublishedFeatures lists the names of published features, for the metadata document; at most 1000 of them.
func (s *Service) PublishedFeatures(ctx context.Context) ([]string, error) {
	yes, names := true, []string{}
	err := s.store.View(ctx, func(tx ReadTx) error {
		found, err := tx.Features(FeatureQuery{Published: &yes, Limit: 1000})
		for _, e := range found {
			names = append(names, e.Name)
		}
		return err
	})
	return names, err
}

// manyNames is how many names entries reads one by one; more are read with all entries between them.
const manyNames = 64

// entries returns the catalogue's entries of names, which are sorted.
func entries(tx ReadTx, names []string) ([]FeatureEntry, error) {
	if len(names) > manyNames {
		return manyEntries(tx, names)
	}
	out := make([]FeatureEntry, len(names))
	for i, n := range names {
		e, err := tx.Feature(n)
		switch {
		case errors.Is(err, ErrNotFound):
			e = describe(n)
		case err != nil:
			return nil, fmt.Errorf("read feature: %w", err)
		}
		out[i] = e
	}
	return out, nil
}

// manyEntries is entries for names that are too many to be read one by one.
func manyEntries(tx ReadTx, names []string) ([]FeatureEntry, error) {
	out, err := entries(tx, names[:1])
	if err != nil {
		return nil, err
	}
	const page = 1000
	var listed []FeatureEntry // in the order of names
	q := FeatureQuery{After: names[0], Limit: page}
	for more := true; more; {
		if listed, err = tx.Features(q); err != nil {
			return nil, fmt.Errorf("read features: %w", err)
		}
		for _, e := range listed {
			for len(out) < len(names) && names[len(out)] < e.Name {
				out = append(out, describe(names[len(out)]))
			}
			if len(out) < len(names) && names[len(out)] == e.Name {
				out = append(out, e)
			}
			q.After = e.Name
		}
		more = len(listed) == page && len(out) < len(names)
	}
	for len(out) < len(names) {
		out = append(out, describe(names[len(out)]))
	}
	return out, nil
}

// byDefault returns the scopes of a request that names none: the default features that the user holds, except those
// that must be requested by name.
func byDefault(tx ReadTx, held []string) ([]string, error) {
	yes := true
	found, err := tx.Features(FeatureQuery{Default: &yes, Limit: len(held) + 10_000})
	if err != nil {
		return nil, fmt.Errorf("read default features: %w", err)
	}
	names := []string{}
	for _, e := range found {
		if e.Consent != ConsentRequired {
			names = append(names, e.Name)
		}
	}
	scopes, _ := Effective(set(names), held)
	if len(scopes) == 0 {
		return nil, Invalid(
			"SCOPES_REQUIRED",
			"scopes",
			"name at least one scope: the user holds no default feature, and empty never means all",
		)
	}
	return scopes, nil
}

// ParseFeatureFilter reads the filter grammar of ListFeatures:
//
//	filter    = condition *( " and " condition )
//	condition = field " eq " value
//	field     = "name" / "consent" / "default" / "optional" / "metadata_publish" / "system"
//	value     = DQUOTE *( %x21 / %x23-5B / %x5D-7E ) DQUOTE / "true" / "false"
//
// consent takes "IMPLICIT", "REQUIRED" or "FLEXIBLE", metadata_publish "ALL_CLIENTS" or "NO_CLIENTS". An empty filter
// selects all.
func ParseFeatureFilter(text string) (FeatureQuery, error) {
	var q FeatureQuery
	if text == "" {
		return q, nil
	}
	seen := map[string]bool{}
	for part := range strings.SplitSeq(text, " and ") {
		field, value, ok := strings.Cut(part, " eq ")
		if !ok || seen[field] || !q.set(field, value) {
			return FeatureQuery{}, Invalid(
				"FILTER_INVALID",
				"filter",
				`must be conditions such as consent eq "REQUIRED" joined by " and ", each field at most once; `+
					"fields: name, consent, default, optional, metadata_publish, system",
			)
		}
		seen[field] = true
	}
	return q, nil
}

func (q *FeatureQuery) set(field, value string) bool {
	yes, isBool := map[string]bool{"true": true, "false": false}[value]
	text, isText := strings.CutPrefix(value, `"`)
	if isText {
		text, isText = strings.CutSuffix(text, `"`)
	}
	switch field {
	case "name":
		q.Name = text
		return isText && scopeToken(text)
	case "consent":
		q.Consent = map[string]Consent{"IMPLICIT": ConsentImplicit, "REQUIRED": ConsentRequired, "FLEXIBLE": ConsentFlexible}[text]
		return isText && q.Consent != 0
	case "metadata_publish":
		all := text == "ALL_CLIENTS"
		q.Published = &all
		return isText && (all || text == "NO_CLIENTS")
	case "default":
		q.Default = &yes
	case "optional":
		q.Optional = &yes
	case "system":
		q.System = &yes
	default:
		return false
	}
	return isBool
}
