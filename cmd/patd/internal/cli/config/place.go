package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"patd/cmd/patd/internal/cli"
	"patd/internal/secretfile"
	"patd/store"
	"patd/tokens"
	"patd/tokens/secret"
)

// Place is where a store and its keys are.
type Place struct {
	Database string        // the store's file; empty: it is in PostgreSQL
	server   tokens.Secret // the URL of a database in PostgreSQL
	Keys     KeyFile       // empty: the keys are in the environment, or no place was given
	Given    string        // text of the keys, from the environment
}

// String names the store, without a password.
func (p Place) String() string {
	if p.Database != "" {
		return p.Database
	}
	return withoutPassword(p.server.Reveal())
}

// URL returns the store's URL in the form of package store.
func (p Place) URL() string {
	if p.Database != "" {
		return "sqlite:" + p.Database
	}
	return p.server.Reveal()
}

// Remote reports whether the store is in a database that other processes may use too.
func (p Place) Remote() bool { return p.Database == "" }

// withoutPassword returns a database's URL for people: its host and its name.
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

// HashKeyVariable holds the text of a key file. It has no flag: everybody on the machine can read arguments.
const HashKeyVariable = "PATD_HASH_KEY"

// PlaceOf reads the settings for the place of the store and its keys.
func PlaceOf(c *cli.Command, s *Settings) (Place, error) {
	p, err := KeylessPlace(c, s)
	if err == nil && p.Keys == "" && p.Given == "" {
		err = errors.New("say where the hash key is: --data-dir DIR, --hash-key-file FILE or " + HashKeyVariable)
	}
	return p, err
}

// KeylessPlace is PlaceOf for commands that can work without keys.
func KeylessPlace(c *cli.Command, s *Settings) (Place, error) {
	var p Place
	switch text := s.DatabaseURL.Reveal(); {
	case text == "" && s.DataDir == "":
		return p, errors.New("say where the store is: --data-dir DIR, or --database-url postgres://…")
	case text == "":
		p.Database = filepath.Join(s.DataDir, "patd.db")
	default:
		var err error
		if p, err = DatabasePlace(
			text,
			"database-url",
			"database-password-file",
			c.Arguments["database-url"],
		); err != nil {
			return p, err
		}
	}
	if s.DatabasePasswordFile != "" && !p.Remote() {
		return p, errors.New("--database-password-file is a setting of --database-url postgres://…")
	}
	return p, KeyPlace(c, &p, s)
}

// DatabasePlace reads a database's URL from the flag of that name; another flag gives its password.
func DatabasePlace(text, flag, passwordFlag string, argument bool) (Place, error) {
	var p Place
	path, sqlite := strings.CutPrefix(text, "sqlite:")
	switch {
	case sqlite && path != "":
		p.Database = path
	case store.IsPostgres(text) && argument && holdsPassword(text):
		return p, errors.New(
			"the password in --" + flag + " can be read by everybody on this machine; give the URL by " + Variable(
				flag,
			) + " or --config, or the password by --" + passwordFlag,
		)
	case store.IsPostgres(text) && mangled(text):
		return p, errors.New(
			"--" + flag + " cannot be read; characters such as @ / : # % in a password are written percent-encoded",
		)
	case store.IsPostgres(text):
		p.server = secret.NewSecret(text)
	default:
		return p, errors.New("--" + flag + " must be sqlite:PATH or postgres://USER@HOST/DATABASE")
	}
	return p, nil
}

// KeyPlace adds the place of the keys, if it was given.
func KeyPlace(c *cli.Command, p *Place, s *Settings) error {
	text, given := c.Getenv(HashKeyVariable)
	switch {
	case given && s.HashKeyFile != "":
		return errors.New("give the hash key by --hash-key-file or by " + HashKeyVariable + ", not by both")
	case given && strings.TrimSpace(text) == "":
		return errors.New(HashKeyVariable + " is set, but empty")
	case given:
		p.Given = text
	case s.HashKeyFile != "":
		p.Keys = KeyFile(s.HashKeyFile)
	case s.DataDir != "":
		p.Keys = KeyFile(filepath.Join(s.DataDir, "hash.key"))
	}
	return nil
}

// Password returns a function that reads the file with the database's password; nil: there is none.
func (s *Settings) Password() func() (string, error) {
	if s.DatabasePasswordFile == "" {
		return nil
	}
	return func() (string, error) {
		return secretfile.ReadLine(s.DatabasePasswordFile)
	}
}

// WritableByOthers returns the directories of the store and its key that more than their owner can write to.
func (p Place) WritableByOthers() []string {
	var dirs []string
	for _, file := range []string{p.Database, string(p.Keys)} {
		dir := filepath.Dir(file)
		if info, err := os.Stat(
			dir,
		); file != "" && err == nil && info.Mode().Perm()&0o022 != 0 &&
			!slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// KeysOfFile reads the keys of a store in a file, and makes the first key of a new store.
func (p Place) KeysOfFile(s *Settings) (ks *tokens.Keys, fresh bool, err error) {
	if err := MakeDir(s.DataDir); err != nil {
		return nil, false, err
	}
	if fresh, err = absent(p.Database); err != nil {
		return nil, false, err
	}
	ks, err = p.ReadKeys()
	return ks, fresh, err
}

// ReadKeys reads the keys, and makes the first key of a new store. The key is made before the store, so a store without
// its key has lost it, and a new key would make every secret in it void.
func (p Place) ReadKeys() (*tokens.Keys, error) {
	if p.Keys == "" {
		ks, err := secret.ParseKeys(p.Given)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", HashKeyVariable, err)
		}
		return ks, nil
	}
	ks, err := p.Keys.Read()
	if !errors.Is(err, fs.ErrNotExist) || p.Remote() {
		return ks, err
	}
	fresh, err := absent(p.Database)
	if err != nil {
		return nil, err
	}
	if fresh {
		if err := p.Keys.Create(); err != nil {
			return nil, err
		}
	}
	// Not fresh: another process may have made both since the lookup of the key.
	ks, err = p.Keys.Read()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf(
			"the hash key %s is missing, but its store %s exists; put the key back from your backup (a new one would make every token in the store void)",
			p.Keys,
			p.Database,
		)
	}
	return ks, err
}

// Kept refuses a file that does not exist, or that is empty and so not a store.
func (p Place) Kept(s *Settings) error {
	switch info, err := os.Stat(p.Database); {
	case errors.Is(err, fs.ErrNotExist) && s.DatabaseURL.IsEmpty():
		return fmt.Errorf(
			"there is no store in %s (no %s); patd serve or patd service create makes one",
			s.DataDir,
			filepath.Base(p.Database),
		)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no store %s; patd serve or patd service create makes one", p.Database)
	case err != nil:
		return fmt.Errorf("look for the store: %w", err)
	case info.Size() == 0:
		return fmt.Errorf("there is no store in %s: the file is empty", p.Database)
	}
	return nil
}
