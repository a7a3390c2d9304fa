package storeadmin

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"patd/tokens"
	"patd/tokens/secret"
)

// liveFile is what worked in a store at a moment, in a file: a store may have more credentials than there is memory
// for.
type liveFile struct {
	path  string
	count int
}

// listLive writes what works in a store into a new file.
func listLive(ctx context.Context, o *Opened, now time.Time, path string) (l liveFile, err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return l, fmt.Errorf("list credentials: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	l.path = path
	text := bufio.NewWriter(file)
	lines := json.NewEncoder(text)
	err = tokens.LiveCredentials(ctx, o.Store, now, func(v tokens.LiveCredential) error {
		l.count++
		return errors.Join(lines.Encode(v), ctx.Err())
	})
	return l, errors.Join(err, text.Flush())
}

// errOrder says that two lists cannot be compared in one pass.
var errOrder = errors.New("the list of credentials is not in its order")

// liveOrder is the order in which tokens.LiveCredentials lists.
func liveOrder(a, b tokens.LiveCredential) (int, error) {
	if by := cmp.Compare(rank(a.Kind), rank(b.Kind)); by != 0 {
		return by, nil
	}
	one, err := secret.ParseID(a.ID)
	other, err2 := secret.ParseID(b.ID)
	by := cmp.Compare(int64(one), int64(other)) // as stores have them
	switch a.Kind {
	case tokens.CredentialToken:
		by = cmp.Or(a.IssueTime.Compare(b.IssueTime), by)
	case tokens.CredentialService:
		by = -by
	}
	return by, errors.Join(err, err2)
}

func rank(k tokens.CredentialKind) int {
	return slices.Index(
		[]tokens.CredentialKind{tokens.CredentialToken, tokens.CredentialService, tokens.CredentialSession},
		k,
	)
}

// ascending returns an error if a credential does not come after the one before it.
type ascending struct {
	last tokens.LiveCredential
	any  bool
}

func (a *ascending) add(v tokens.LiveCredential) error {
	if a.any {
		by, err := liveOrder(a.last, v)
		if err != nil {
			return err
		}
		if by >= 0 {
			return fmt.Errorf("%s %s after %s %s: %w", v.Kind, v.ID, a.last.Kind, a.last.ID, errOrder)
		}
	}
	a.last, a.any = v, true
	return nil
}

// beyond calls each with the name of what works in a store and did not in l, or there not for as long or with less. It
// returns how many work in the store.
func (l liveFile) beyond(ctx context.Context, o *Opened, now time.Time, each func(name string)) (count int, err error) {
	file, err := os.Open(l.path)
	if err != nil {
		return 0, fmt.Errorf("compare credentials: %w", err)
	}
	defer file.Close()
	lines := json.NewDecoder(bufio.NewReader(file))
	var here, there ascending
	over := false // all of the file was read
	next := func() error {
		var v tokens.LiveCredential
		switch err := lines.Decode(&v); {
		case errors.Is(err, io.EOF):
			over = true
			return nil
		case err != nil:
			return fmt.Errorf("read a list of credentials: %w", err)
		}
		return there.add(v)
	}
	if err := next(); err != nil {
		return 0, err
	}
	err = tokens.LiveCredentials(ctx, o.Store, now, func(v tokens.LiveCredential) error {
		count++
		if err := errors.Join(here.add(v), ctx.Err()); err != nil {
			return err
		}
		for !over {
			by, err := liveOrder(there.last, v)
			if err != nil {
				return err
			}
			if by == 0 {
				if more := exceeds(v, there.last); more != "" {
					each(string(v.Kind) + " " + v.ID + more)
				}
				return nil
			}
			if by > 0 {
				break
			}
			if err := next(); err != nil {
				return err
			}
		}
		each(string(v.Kind) + " " + v.ID)
		return nil
	})
	return count, err
}

// exceeds returns in what a credential can do more than it could; empty: in nothing.
func exceeds(v, was tokens.LiveCredential) string {
	switch {
	case !was.ExpireTime.IsZero() && (v.ExpireTime.IsZero() || v.ExpireTime.After(was.ExpireTime)):
		return ", for longer"
	case was.Suspended && !v.Suspended, was.Blocked && !v.Blocked:
		return ", which is suspended or blocked"
	case len(tokens.Missing(v.Scopes, was.Scopes)) > 0:
		return ", with scopes that it has lost"
	}
	return ""
}
