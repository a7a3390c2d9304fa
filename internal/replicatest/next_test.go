package replicatest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"patd/internal/proctest"
)

// A migration as the next version may bring one: it only adds. Where the connection says so, it tells older programs to
// stay away, as one would that takes something away.
const (
	nextPostgres = `-- +goose Up
ALTER TABLE tokens ADD COLUMN next text;
CREATE INDEX tokens_next ON tokens (next, id) WHERE next IS NOT NULL;
UPDATE compatibility SET oldest = coalesce(CAST(nullif(current_setting('` + oldestSetting + `', true), '') AS bigint), oldest);
`

	nextSQLite = `-- +goose Up
ALTER TABLE tokens ADD COLUMN next TEXT;
CREATE INDEX tokens_next ON tokens (next) WHERE next IS NOT NULL;
`

	oldestSetting = "patd_test.oldest"
)

const (
	migrateSource    = "../../store/migrate.go"
	migrationsSource = "../../store/migrations"
)

// What store/migrate.go says of the last migration, and of the first on whose schema it can work.
var (
	newestSchema = regexp.MustCompile(`(newestSchema = )(\d+)`)
	oldestSchema = regexp.MustCompile(`(oldestSchema = )(\d+)`)
)

// lastMigration is the number of the last migration of this source.
func lastMigration() (last int, err error) {
	files, err := filepath.Glob(filepath.Join(migrationsSource, "postgres", "*.sql"))
	if err != nil {
		return 0, err
	}
	for _, file := range files {
		number, _, _ := strings.Cut(filepath.Base(file), "_")
		n, err := strconv.Atoi(number)
		if err != nil {
			return 0, fmt.Errorf("%s has no number", file)
		}
		last = max(last, n)
	}
	if last == 0 {
		return 0, fmt.Errorf("%s holds no migrations", migrationsSource)
	}
	return last, nil
}

// oldestUsable is the first migration on whose schema this program serves.
func oldestUsable() (int, error) {
	source, err := os.ReadFile(migrateSource)
	if err != nil {
		return 0, err
	}
	said := oldestSchema.FindString(string(source))
	return strconv.Atoi(said[strings.LastIndexByte(said, ' ')+1:])
}

// knowing returns store/migrate.go of a program that says that it knows the migrations up to one.
func knowing(newest int, of ...*regexp.Regexp) ([]byte, error) {
	source, err := os.ReadFile(migrateSource)
	if err != nil {
		return nil, err
	}
	for _, number := range of {
		if !number.Match(source) {
			return nil, fmt.Errorf("%s does not say %s", migrateSource, number)
		}
		source = number.ReplaceAll(source, fmt.Appendf(nil, "${1}%d", newest))
	}
	return source, nil
}

// nextProgram builds a patd of this source and one migration more, once. It returns the last migration of this one,
// too.
var nextProgram = sync.OnceValues(func() (next struct {
	path  string
	since int // the last migration that this version knows
}, err error,
) {
	if next.since, err = lastMigration(); err != nil {
		return next, err
	}
	raised, err := knowing(next.since+1, newestSchema)
	if err != nil {
		return next, err
	}
	name := fmt.Sprintf("%05d_next.sql", next.since+1)
	overlay, err := laidOver(map[string][]byte{
		migrateSource: raised,
		filepath.Join(migrationsSource, "postgres", name): []byte(nextPostgres),
		filepath.Join(migrationsSource, "sqlite", name):   []byte(nextSQLite),
	})
	if err != nil {
		return next, err
	}
	next.path, err = build("patd-next", "-overlay", overlay)
	return next, err
})

// laidOver writes files that the go command is to see in the place of others, or beside them.
func laidOver(files map[string][]byte) (overlay string, err error) {
	dir, err := proctest.TempDir()
	if err != nil {
		return "", err
	}
	replace := map[string]string{}
	for path, text := range files {
		from, err := filepath.Abs(path)
		if err != nil {
			return "", err
		}
		to := filepath.Join(dir, strconv.Itoa(len(replace))+filepath.Base(path))
		if err := os.WriteFile(to, text, 0o600); err != nil {
			return "", err
		}
		replace[from] = to
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay = filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, text, 0o600)
}

// beforeChecksums is the last migration before the rows got checksums.
const beforeChecksums = 13

// programBefore builds a patd of this source that makes and compares no checksums of rows, and knows the migration
// before theirs as the newest, once: so did the version that came before them. It knows no pauses either.
var programBefore = sync.OnceValues(func() (path string, err error) {
	edits := map[string][]string{
		"../../store/events.go": {"db.NullText(e.Detail), int64(newestSchema), ", "db.NullText(e.Detail), nil, "},
		"../../store/seal.go":   {"s.rows.keys.Store(ks)", "_ = ks"},
		"../../store/rowmac.go": {
			"return g.sealedTo() >= since",
			"return false && g.sealedTo() >= since",
			"return errNoKeys",
			"return nil",
		},
		"../../store/paused.go": {"if text == noScopes {", "if false {", `if text == "" {`, "if true {"},
		"../../store/tokens.go": {
			"paused = ?17, paused_mac = ?18, paused_end_us = ?19,",
			"paused = coalesce(?17, paused), paused_mac = coalesce(?18, paused_mac), paused_end_us = coalesce(?19, paused_end_us),",
		},
		"../../tokens/idle.go": {"if strings.HasPrefix(line, idleMark) {", "if false && line != idleMark {"},
	}
	migrate, err := knowing(beforeChecksums, newestSchema, oldestSchema)
	if err != nil {
		return "", err
	}
	files := map[string][]byte{migrateSource: migrate}
	for path, replace := range edits {
		source, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		text := string(source)
		for i := 0; i < len(replace); i += 2 {
			if !strings.Contains(text, replace[i]) {
				return "", fmt.Errorf("%s does not say %s", path, replace[i])
			}
			text = strings.Replace(text, replace[i], replace[i+1], 1)
		}
		files[path] = []byte(text)
	}
	overlay, err := laidOver(files)
	if err != nil {
		return "", err
	}
	return build("patd-before", "-overlay", overlay)
})
