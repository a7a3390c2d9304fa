package tokens

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// maxUseAge is the greatest age of a reported use. A reporter that works sends its uses sooner.
const maxUseAge = time.Hour

// ReportedUse is one use of a token that the reporter accepted from its own cache.
type ReportedUse struct {
	TokenID ID
	Time    time.Time  // a time in the future counts as now
	IP      netip.Addr // of the client; invalid: not known
}

// ReportUses records uses of tokens, which are saved in the background like every use. The caller is a service. Entries
// that do not concern it are skipped: unknown ids, tokens that it could not have accepted, and uses that are too old or
// from before the token was minted.
func (s *Service) ReportUses(ctx context.Context, a Actor, uses []ReportedUse) error {
	if err := s.manager(a); err != nil {
		return err
	}
	if len(uses) > MaxBatch {
		return Invalid("BATCH_TOO_LARGE", "uses", fmt.Sprintf("at most %d in a batch", MaxBatch))
	}
	now, seen := s.Now(), make([]Usage, 0, len(uses))
	for _, u := range uses {
		// The store records a use of any id, so unknown ids are dropped here.
		c, err := s.store.Lookup(ctx, u.TokenID)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		at := u.Time.UTC().Truncate(time.Microsecond)
		if at.After(now) {
			at = now
		}
		good, err := s.goodFor(ctx, c.Token.Audiences, c.Token.Audiences, a.Audience)
		if err != nil {
			return err
		}
		if !good || now.Sub(at) > maxUseAge || at.Before(c.Token.IssueTime) || c.Token.Status(at) == StateExpired {
			continue
		}
		if r := c.Token.Revocation; r != nil && at.After(r.Time) {
			at = r.Time // its reporter had not received the revocation yet
		}
		seen = append(seen, Usage{ID: u.TokenID, Use: Use{Time: at, IP: u.IP.Unmap().WithZone("")}})
	}
	if err := s.callerStands(ctx, &a); err != nil {
		return err
	}
	for _, one := range seen {
		s.store.RecordUse(one)
	}
	return nil
}
