package main

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"patd/store"
	"patd/store/storefill"
	"patd/tokens"
	"patd/tokens/secret"
)

// tokensOfUser is how many tokens a user has, on average.
const tokensOfUser = 10

// mintedWithin is how old tokens are at most: not so old that they end or are unused for long, of which a server writes
// notices. It would write hundreds of thousands of them while the bench runs.
const mintedWithin = 60 * tokens.Day

// idsFile lists the ids of a generated store, eight bytes each, in the order of their numbers.
const idsFile = "ids"

// runGenerate is the command generate.
func runGenerate(ctx context.Context, args []string, out io.Writer) error {
	f := flag.NewFlagSet("patbench generate", flag.ContinueOnError)
	n := f.Int("tokens", 1_000_000, "tokens to make; of each user ten")
	dir := f.String("dir", "", "directory to keep the store in, under the number of its tokens")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *dir == "" || *n < 100 || f.NArg() > 0 {
		return errors.New("generate: -dir is needed, -tokens must be from 100")
	}
	_, err := generated(ctx, *dir, *n, out)
	return err
}

// dataset is a generated store.
type dataset struct {
	dir string // a data directory of patd
	ids []tokens.ID
}

// secret is the secret of the nth token: it follows from the number, so it need not be kept.
func (d dataset) secret(n int) (tokens.Secret, error) { return secretOf(n, d.ids[n]) }

func secretOf(n int, id tokens.ID) (tokens.Secret, error) {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], uint64(n))
	return secret.Mint(secret.PrefixPersonal, id, rand.NewChaCha8(seed))
}

// generated opens the store of n tokens under dir, and makes it when it is not there.
func generated(ctx context.Context, dir string, n int, out io.Writer) (dataset, error) {
	d := dataset{dir: filepath.Join(dir, fmt.Sprintf("tokens-%d", n))}
	text, err := os.ReadFile(filepath.Join(d.dir, idsFile))
	if errors.Is(err, os.ErrNotExist) {
		if err := d.generate(ctx, n, out); err != nil {
			return dataset{}, errors.Join(fmt.Errorf("generate %d tokens: %w", n, err), os.RemoveAll(d.dir))
		}
		return d, nil
	}
	if err != nil || len(text) != 8*n {
		return dataset{}, errors.Join(fmt.Errorf("read the ids of %s: remove the directory and try again", d.dir), err)
	}
	d.ids = make([]tokens.ID, n)
	for i := range d.ids {
		d.ids[i] = tokens.ID(binary.LittleEndian.Uint64(text[8*i:]))
	}
	return d, nil
}

func (d *dataset) generate(ctx context.Context, n int, out io.Writer) error {
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return err
	}
	keys, err := d.keys()
	if err != nil {
		return err
	}
	st, err := store.Open(ctx, "sqlite:"+filepath.Join(d.dir, "patd.db"), store.Options{})
	if err != nil {
		return err
	}
	start := time.Now()
	d.ids, err = load(ctx, st, keys, n)
	if err = errors.Join(err, st.Close()); err != nil {
		return err
	}
	fmt.Fprintf(out, "generated %d tokens in %s\n", n, time.Since(start).Round(time.Second))
	text := make([]byte, 0, 8*n)
	for _, id := range d.ids {
		text = binary.LittleEndian.AppendUint64(text, uint64(id))
	}
	return os.WriteFile(filepath.Join(d.dir, idsFile), text, 0o600)
}

// keys makes the key file of the store, whose key is named as patd names the first.
func (d *dataset) keys() (*tokens.Keys, error) {
	line, err := secret.NewKeyLine("k1", rand.NewChaCha8([32]byte{1}))
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(d.dir, "hash.key"), []byte(line.Reveal()+"\n"), 0o600); err != nil {
		return nil, err
	}
	return secret.ParseKeys(line.Reveal())
}

func load(ctx context.Context, st tokens.Store, keys *tokens.Keys, n int) ([]tokens.ID, error) {
	if _, err := tokens.BindKeys(ctx, st, keys, "", time.Now()); err != nil {
		return nil, err
	}
	var failed error
	ids, err := storefill.Load(
		ctx,
		st,
		storefill.Config{
			Tokens: n, Users: max(n/tokensOfUser, 1), Span: mintedWithin,
			Hash: func(i int, id tokens.ID) tokens.Hash {
				secret, err := secretOf(i, id)
				if err != nil {
					failed = err
				}
				return keys.Digest(secret)
			},
		},
	)
	return ids, errors.Join(err, failed)
}

// presentable makes the texts of about n tokens: all of a part of the users, who have ten each. Some 70 bytes each.
func (d dataset) presentable(ctx context.Context, n int) ([]string, error) {
	ids := d.ids
	if n < len(ids) {
		var err error
		if ids, err = d.idsOfUsers(ctx, n/tokensOfUser); err != nil {
			return nil, err
		}
	}
	texts := make([]string, len(ids))
	for i, id := range ids {
		number, ok := slices.BinarySearch(d.ids, id) // they are in the order of their age, as ids are
		if !ok {
			return nil, fmt.Errorf("token %s of %s is not among those that were generated", id, d.dir)
		}
		secret, err := d.secret(number)
		if err != nil {
			return nil, err
		}
		texts[i] = strings.Clone(secret.Reveal())
	}
	return texts, nil
}

// idsOfUsers reads the ids of the tokens of the first users.
func (d dataset) idsOfUsers(ctx context.Context, users int) (ids []tokens.ID, err error) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(d.dir, "patd.db")+"?mode=ro")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	rows, err := db.QueryContext(
		ctx,
		`SELECT id FROM tokens WHERE user <= (SELECT max(key) FROM (SELECT key FROM users ORDER BY key LIMIT ?))`,
		users,
	)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, tokens.ID(id))
	}
	return ids, rows.Err()
}
