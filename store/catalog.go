package store

import (
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"

	"patd/store/internal/db"
	"patd/tokens"
)

// searched is what a list's q looks in: the parts folded as names are, so that a contained text is found by its bytes.
func searched(parts ...string) string {
	keys := make([]string, len(parts))
	for i, p := range parts {
		keys[i] = tokens.NameKey(p)
	}
	return strings.Join(keys, "\n")
}

// searchKeys are what q is looked for by: its key, and the one that programs before this one wrote, which may go on
// writing to the same database; empty: it is no other.
func searchKeys(q string) (key, former string) {
	key, former = tokens.NameKey(q), tokens.FormerNameKey(q)
	switch key {
	case "":
		return former, ""
	case former:
		return key, ""
	default:
		return key, former
	}
}

const featureColumns = `name, coalesce(display_name, ''), coalesce(description, ''), consent, is_default, optional,
  published, is_system`

// featureDest is where featureColumns go.
func featureDest(e *tokens.FeatureEntry) []any {
	return []any{&e.Name, &e.DisplayName, &e.Description, &e.Consent, &e.Default, &e.Optional, &e.Published, &e.System}
}

const selectFeature = `SELECT ` + featureColumns + ` FROM features WHERE name = ?`

// Feature implements tokens.FeatureReader.
func (t *readTx) Feature(name string) (tokens.FeatureEntry, error) {
	var e tokens.FeatureEntry
	if err := t.one("read a feature", selectFeature, featureDest(&e), name); err != nil {
		return tokens.FeatureEntry{}, err
	}
	return e, nil
}

const (
	featureConditions = ` name > ?1
  AND (?2 = '' OR instr(search, ?2) > 0 OR ?10 <> '' AND instr(search, ?10) > 0) AND (?3 = '' OR name = ?3)
    AND (?4 = 0 OR consent = ?4)
  AND (is_default = ?5 OR ?5 IS NULL) AND (optional = ?6 OR ?6 IS NULL) AND (published = ?7 OR ?7 IS NULL)
  AND (is_system = ?8 OR ?8 IS NULL)
ORDER BY name LIMIT ?9`

	// The three differ in what leads: the index of default features, that of published ones, or the names.
	selectDefaultFeatures = `SELECT ` + featureColumns + `
FROM features INDEXED BY features_default WHERE is_default = 1 AND` + featureConditions

	selectPublishedFeatures = `SELECT ` + featureColumns + `
FROM features INDEXED BY features_published WHERE published = 1 AND` + featureConditions

	selectFeatures = `SELECT ` + featureColumns + ` FROM features WHERE` + featureConditions
)

// Features implements tokens.FeatureReader.
func (t *readTx) Features(q tokens.FeatureQuery) ([]tokens.FeatureEntry, error) {
	query := selectFeatures
	switch {
	case q.Default != nil && *q.Default:
		query = selectDefaultFeatures
	case q.Published != nil && *q.Published:
		query = selectPublishedFeatures
	}
	key, former := searchKeys(q.Has)
	list := []tokens.FeatureEntry{}
	err := t.beside("list features", query, nil, func(row db.Row) error {
		var e tokens.FeatureEntry
		err := row.Scan(featureDest(&e)...)
		list = append(list, e)
		return err
	}, q.After, key, q.Name, int64(q.Consent), db.NullFlag(q.Default), db.NullFlag(q.Optional),
		db.NullFlag(q.Published), db.NullFlag(q.System), q.Limit,
		former)
	if err != nil {
		return nil, err
	}
	return list, nil
}

const (
	insertFeature = `
INSERT INTO features (name, display_name, description, consent, is_default, optional, published, is_system, search)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
ON CONFLICT (name) DO NOTHING`

	updateFeature = `
UPDATE features
SET display_name = ?2, description = ?3, consent = ?4, is_default = ?5, optional = ?6, published = ?7,
  is_system = ?8, search = ?9
WHERE name = ?1`

	deleteFeature = `DELETE FROM features WHERE name = ?`
)

// featureArgs are the columns of an entry as they are written.
func featureArgs(e tokens.FeatureEntry) []any {
	return []any{
		e.Name, db.NullText(e.DisplayName), db.NullText(e.Description), int64(e.Consent), db.Flag(e.Default),
		db.Flag(e.Optional), db.Flag(e.Published), db.Flag(e.System),
		searched(e.Name, e.DisplayName, e.Description),
	}
}

// InsertFeature implements tokens.FeatureWriter.
func (t *tx) InsertFeature(e tokens.FeatureEntry) error {
	return t.mustExec("insert a feature", fmt.Errorf("feature %s: %w", e.Name, tokens.ErrTaken), insertFeature,
		featureArgs(e)...)
}

// UpdateFeature implements tokens.FeatureWriter.
func (t *tx) UpdateFeature(e tokens.FeatureEntry) error {
	return t.mustExec("update a feature", fmt.Errorf("feature %s: %w", e.Name, tokens.ErrNotFound), updateFeature,
		featureArgs(e)...)
}

// DeleteFeature implements tokens.FeatureWriter.
func (t *tx) DeleteFeature(name string) error {
	return t.mustExec("delete a feature", fmt.Errorf("feature %s: %w", name, tokens.ErrNotFound), deleteFeature, name)
}

const audienceColumns = `id, coalesce(display_name, ''), coalesce(resource, ''), coalesce(default_ttl_us, 0),
  coalesce(max_ttl_us, 0),
       allow_never, allow_offline, coalesce(access_ttl_us, 0), access_format, require_named`

// audienceRow holds audienceColumns.
type audienceRow struct {
	e                          tokens.AudienceEntry
	defaultUS, maxUS, accessUS int64
}

func (r *audienceRow) dest() []any {
	return []any{
		&r.e.ID, &r.e.DisplayName, &r.e.Resource, &r.defaultUS, &r.maxUS, &r.e.AllowNever, &r.e.AllowOffline,
		&r.accessUS, &r.e.AccessFormat,
		&r.e.RequireNamed,
	}
}

func (r *audienceRow) audience() tokens.AudienceEntry {
	e := r.e
	e.DefaultTTL, e.MaxTTL, e.AccessTTL = lifetime(r.defaultUS), lifetime(r.maxUS), lifetime(r.accessUS)
	return e
}

const selectAudience = `SELECT ` + audienceColumns + ` FROM audiences WHERE id = ?`

// Audience implements tokens.AudienceReader.
func (t *readTx) Audience(id string) (tokens.AudienceEntry, error) {
	var r audienceRow
	if err := t.oneBeside("read an audience", selectAudience, nil, r.dest(), id); err != nil {
		return tokens.AudienceEntry{}, err
	}
	return r.audience(), nil
}

const selectAudiences = `SELECT ` + audienceColumns + ` FROM audiences
WHERE id > ?1 AND (?2 = '' OR instr(search, ?2) > 0 OR ?4 <> '' AND instr(search, ?4) > 0)
ORDER BY id LIMIT ?3`

// selectResources reads the index alone. Resources are compared normalized, which SQL cannot do, and a column for it
// would be wrong where an earlier program on the same database writes.
const selectResources = `SELECT resource, id FROM audiences INDEXED BY audiences_resource WHERE resource IS NOT NULL
  ORDER BY resource, id`

const selectRequireNamed = `SELECT id FROM audiences WHERE require_named = 1 ORDER BY id`

// Audiences implements tokens.AudienceReader.
func (t *readTx) Audiences(q tokens.AudienceQuery) ([]tokens.AudienceEntry, error) {
	if q.Resource != "" {
		return t.audiencesOfResource(q)
	}
	key, former := searchKeys(q.Has)
	list := []tokens.AudienceEntry{}
	err := t.each("list audiences", selectAudiences, func(rows *sql.Rows) error {
		var r audienceRow
		err := rows.Scan(r.dest()...)
		list = append(list, r.audience())
		return err
	}, q.After, key, q.Limit, former)
	if err != nil {
		return nil, err
	}
	return list, nil
}

// audiencesOfResource lists the audiences whose resource is the query's, in whatever spelling.
func (t *readTx) audiencesOfResource(q tokens.AudienceQuery) ([]tokens.AudienceEntry, error) {
	want, ids := tokens.NormalResource(q.Resource), []string{}
	err := t.each("list resources", selectResources, func(rows *sql.Rows) error {
		var resource, id string
		err := rows.Scan(&resource, &id)
		if id > q.After && tokens.NormalResource(resource) == want {
			ids = append(ids, id)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(ids)
	list := []tokens.AudienceEntry{}
	for _, id := range ids[:min(len(ids), q.Limit)] {
		e, err := t.Audience(id)
		if err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	return list, nil
}

// NamedAudiences implements tokens.AudienceReader.
func (t *readTx) NamedAudiences() ([]string, error) {
	ids := []string{}
	err := t.each("list audiences that must be named", selectRequireNamed, func(rows *sql.Rows) error {
		var id string
		err := rows.Scan(&id)
		ids = append(ids, id)
		return err
	})
	return ids, err
}

const (
	insertAudience = `
INSERT INTO audiences (id, display_name, resource, default_ttl_us, max_ttl_us, allow_never, allow_offline,
  access_ttl_us, access_format, search,
  require_named)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
ON CONFLICT (id) DO NOTHING`

	updateAudience = `
UPDATE audiences
SET display_name = ?2, resource = ?3, default_ttl_us = ?4, max_ttl_us = ?5, allow_never = ?6, allow_offline = ?7,
  access_ttl_us = ?8,
    access_format = ?9, search = ?10, require_named = ?11
WHERE id = ?1`

	deleteAudience = `DELETE FROM audiences WHERE id = ?`
)

// audienceArgs are the columns of an audience as they are written.
func audienceArgs(e tokens.AudienceEntry) []any {
	return []any{
		e.ID, db.NullText(e.DisplayName), db.NullText(e.Resource), nullLifetime(e.DefaultTTL), nullLifetime(e.MaxTTL),
		db.Flag(e.AllowNever),
		db.Flag(e.AllowOffline), nullLifetime(e.AccessTTL), int64(e.AccessFormat), searched(e.ID, e.DisplayName),
		db.Flag(e.RequireNamed),
	}
}

// InsertAudience implements tokens.AudienceWriter.
func (t *tx) InsertAudience(e tokens.AudienceEntry) error {
	return t.mustExec("insert an audience", fmt.Errorf("audience %s: %w", e.ID, tokens.ErrTaken), insertAudience,
		audienceArgs(e)...)
}

// UpdateAudience implements tokens.AudienceWriter.
func (t *tx) UpdateAudience(e tokens.AudienceEntry) error {
	return t.mustExec("update an audience", fmt.Errorf("audience %s: %w", e.ID, tokens.ErrNotFound), updateAudience,
		audienceArgs(e)...)
}

// DeleteAudience implements tokens.AudienceWriter.
func (t *tx) DeleteAudience(id string) error {
	return t.mustExec("delete an audience", fmt.Errorf("audience %s: %w", id, tokens.ErrNotFound), deleteAudience, id)
}

// nullLifetime rounds up to microseconds: a limit however short does not become none.
func nullLifetime(d time.Duration) any {
	if d == 0 {
		return nil
	}
	us := int64(d / time.Microsecond)
	if d%time.Microsecond > 0 {
		us++
	}
	return us
}

func lifetime(us int64) time.Duration { return time.Duration(us) * time.Microsecond }
