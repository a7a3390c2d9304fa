package tokens_test

import (
	"context"
	"slices"
	"testing"

	"patd/tokens"
)

// savings is a store that lists of which tokens it is to save uses, at once.
type savings struct {
	tokens.Store
	saved *[][]tokens.ID
}

func (s *savings) FlushUses(ctx context.Context, of []tokens.ID) error {
	*s.saved = append(*s.saved, slices.Clone(of))
	if f, ok := s.Store.(tokens.UseFlusher); ok {
		return f.FlushUses(ctx, of)
	}
	return nil
}

// TestAPassSavesTheLastUsesOfWhatIsDue: to save all, each minute, would be a burst of writes.
func TestAPassSavesTheLastUsesOfWhatIsDue(t *testing.T) {
	t.Parallel()
	var saved [][]tokens.ID
	h := newHouse(t, func(c *tokens.Config) {
		c.Notices = tokens.Notices{Unused: 90 * tokens.Day}
		c.Store = &savings{Store: c.Store, saved: &saved}
	})
	first := h.made("first", 360*tokens.Day)
	h.wantPass("after its issue")
	h.wait(50 * tokens.Day)
	second := h.made("second", 360*tokens.Day)
	h.wants(first.Secret, tokens.Allow, "it is used")
	h.wants(second.Secret, tokens.Allow, "it is used")
	h.wantPass("while nothing is due")
	if len(saved) != 0 {
		t.Errorf("passes that had nothing to look at saved the uses of %v", saved)
	}
	h.wait(46 * tokens.Day)
	h.wantPass("after the first check of the first")
	if len(saved) != 1 || !slices.Equal(saved[0], []tokens.ID{first.Token.ID}) {
		t.Errorf("the pass in which %s is due saved the uses of %v", first.Token.ID, saved)
	}
}

// TestToNarrowATokenSavesItsUsesOnly: any user may ask for it, at any time.
func TestToNarrowATokenSavesItsUsesOnly(t *testing.T) {
	t.Parallel()
	var saved [][]tokens.ID
	h := newHouse(t, func(c *tokens.Config) { c.Store = &savings{Store: c.Store, saved: &saved} })
	m, other := h.made("a", 360*tokens.Day), h.made("b", 360*tokens.Day)
	h.wants(other.Secret, tokens.Allow, "it is used")
	owner := tokens.Actor{Kind: tokens.UserActor, User: m.Token.User}
	_, err := h.Narrow(ctx, owner, tokens.NarrowRequest{
		User: m.Token.User, TokenID: m.Token.ID.String(), DryRun: true,
	})
	if err != nil || len(saved) != 1 || !slices.Equal(saved[0], []tokens.ID{m.Token.ID}) {
		t.Errorf("to narrow %s saved the uses of %v, %v", m.Token.ID, saved, err)
	}
}
