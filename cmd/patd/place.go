package main

import (
	"errors"
	"net/url"
	"path/filepath"
	"strings"

	"patd/internal/secretfile"
	"patd/store"
	"patd/tokens"
)

// place is where a store and its keys are.
type place struct {
	database string        // the store's file; empty: it is in PostgreSQL
	server   tokens.Secret // the URL of a database in PostgreSQL
	keys     keyFile       // empty: the keys are in the environment, or nobody said where
	given    string        // text of the keys, from the environment
}

// String names the store, without a password.
func (p place) String() string {
	if p.database != "" {
		return p.database
	}
	return withoutPassword(p.server.Reveal())
}

// url is the store's, as package store reads it.
func (p place) url() string {
	if p.database != "" {
		return "sqlite:" + p.database
	}
	return p.server.Reveal()
}

// remote tells whether the store is in a database that others may use too.
func (p place) remote() bool { return p.database == "" }

// withoutPassword is a database's URL for people: its host and its name.
func withoutPassword(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "the database"
	}
	name := strings.TrimPrefix(u.Path, "/")
	if schema := u.Query().Get("search_path"); schema != "" {
		name += ", schema " + schema
	}
	return "PostgreSQL at " + u.Host + ", database " + name
}

// hashKeyVariable holds the text of a key file. There is no flag for it: arguments are for all to see.
const hashKeyVariable = "PATD_HASH_KEY"

// place reads the settings that say where the store and its keys are.
func (c *command) place(s *settings) (place, error) {
	p, err := c.keylessPlace(s)
	if err == nil && p.keys == "" && p.given == "" {
		err = errors.New("say where the hash key is: --data-dir DIR, --hash-key-file FILE or " + hashKeyVariable)
	}
	return p, err
}

// keylessPlace is place for what may do without keys.
func (c *command) keylessPlace(s *settings) (place, error) {
	var p place
	switch text := s.databaseURL.Reveal(); {
	case text == "" && s.dataDir == "":
		return p, errors.New("say where the store is: --data-dir DIR, or --database-url postgres://…")
	case text == "":
		p.database = filepath.Join(s.dataDir, "patd.db")
	default:
		var err error
		if p, err = databasePlace(text, "database-url", "database-password-file", c.arguments["database-url"]); err != nil {
			return p, err
		}
	}
	if s.databasePasswordFile != "" && !p.remote() {
		return p, errors.New("--database-password-file is a setting of --database-url postgres://…")
	}
	return p, c.keyPlace(&p, s)
}

// databasePlace reads a database's URL, which a flag of that name gave; another flag gives its password.
func databasePlace(text, flag, passwordFlag string, argument bool) (place, error) {
	var p place
	path, sqlite := strings.CutPrefix(text, "sqlite:")
	switch {
	case sqlite && path != "":
		p.database = path
	case store.IsPostgres(text) && argument && holdsPassword(text):
		return p, errors.New("the password in --" + flag + " can be read by everybody on this machine; give the URL by " + variable(flag) + " or --config, or the password by --" + passwordFlag)
	case store.IsPostgres(text) && mangled(text):
		return p, errors.New("--" + flag + " cannot be read; characters such as @ / : # % in a password are written percent-encoded")
	case store.IsPostgres(text):
		p.server = tokens.NewSecret(text)
	default:
		return p, errors.New("--" + flag + " must be sqlite:PATH or postgres://USER@HOST/DATABASE")
	}
	return p, nil
}

// keyPlace says where the keys are, if anybody did.
func (c *command) keyPlace(p *place, s *settings) error {
	text, given := c.Getenv(hashKeyVariable)
	switch {
	case given && s.hashKeyFile != "":
		return errors.New("give the hash key by --hash-key-file or by " + hashKeyVariable + ", not by both")
	case given && strings.TrimSpace(text) == "":
		return errors.New(hashKeyVariable + " is set, but empty")
	case given:
		p.given = text
	case s.hashKeyFile != "":
		p.keys = keyFile(s.hashKeyFile)
	case s.dataDir != "":
		p.keys = keyFile(filepath.Join(s.dataDir, "hash.key"))
	}
	return nil
}

// password reads the file with the database's password; nil: there is none.
func (s *settings) password() func() (string, error) {
	if s.databasePasswordFile == "" {
		return nil
	}
	return func() (string, error) {
		return secretfile.ReadLine(s.databasePasswordFile)
	}
}
