package tokens

import (
	"context"
	"fmt"
	"slices"
)

// KeyLeft is a digest key, and what is left under it.
type KeyLeft struct {
	KeyRecord

	Current bool
	Loaded  bool  // this server has it in its key file
	Secrets int64 // live digests of secrets
	Rows    int64 // checksums of rows
}

// KeysLeft lists the digest keys that the store knows, oldest first, and what is left under each. It reads every row.
func (s *Service) KeysLeft(ctx context.Context, a Actor) ([]KeyLeft, error) {
	if err := s.manager(a); err != nil {
		return nil, err
	}
	keys := s.keys.Get()
	var out []KeyLeft
	err := s.store.View(ctx, func(tx ReadTx) error {
		known, err := tx.Keys()
		if err != nil {
			return fmt.Errorf("read keys: %w", err)
		}
		use, err := tx.KeyUse(s.Now())
		if err != nil {
			return fmt.Errorf("count digests: %w", err)
		}
		out = make([]KeyLeft, len(known))
		for i, k := range known {
			out[i] = KeyLeft{
				KeyRecord: k,
				Current:   k.Name == keys.Current(),
				Loaded:    slices.Contains(keys.Names(), k.Name),
				Secrets:   use[k.Name],
			}
			if !k.RetireTime.IsZero() { // nothing is left, or it would not be retired
				continue
			}
			if out[i].Rows, err = tx.RowsUnder(k.Name); err != nil {
				return fmt.Errorf("count checksums: %w", err)
			}
		}
		return ctx.Err()
	})
	return out, err
}
