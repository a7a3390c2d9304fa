package tokens

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// maxUseAge is the greatest age of a reported use. A reporter that works sends its uses sooner.
const maxUseAge = time.Hour

// MaxReportedScopes is how many scopes one reported use may name.
const MaxReportedScopes = 256

// ReportedUse is one use of a token that the reporter accepted from its own cache.
type ReportedUse struct {
	TokenID ID
	Time    time.Time  // a time in the future counts as now
	IP      netip.Addr // of the client; invalid: not known
	// Scopes are those that this use and those since the last report needed. Unscoped says that there were uses of
	// which that is not known; so does an empty list.
	Scopes   []string
	Unscoped bool
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
	for _, u := range uses {
		if len(u.Scopes) > MaxReportedScopes {
			return Invalid("TOO_MANY_SCOPES", "uses", fmt.Sprintf("at most %d scopes in a use", MaxReportedScopes))
		}
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
		use := Usage{ID: u.TokenID, Use: Use{Time: at, IP: u.IP.Unmap().WithZone("")}, Service: a.Name}
		if len(u.Scopes) == 0 {
			seen = append(seen, use)
			continue
		}
		if u.Unscoped {
			seen = append(seen, use)
		}
		// Of a use of scopes that are not in effect nothing is recorded by scope. While the source of features does not
		// answer, what was granted counts: the reporter had it from patd.
		use.Scopes = c.Token.Scopes
		if held, err := s.features.Features(ctx, c.User, false); err == nil {
			use.Scopes, _ = inEffect(c.Token.Scopes, held)
		}
		if use.Scopes, _ = Effective(sortedUnique(u.Scopes), use.Scopes); len(use.Scopes) == 0 {
			use.Service = ""
		}
		seen = append(seen, use)
	}
	at := s.moment()
	if err := s.callerStands(ctx, &a, &at); err != nil {
		return err
	}
	for _, one := range seen {
		s.store.RecordUse(one)
	}
	return nil
}

// sortedUnique returns a list sorted and without duplicates.
func sortedUnique(list []string) []string { return slices.Compact(slices.Sorted(slices.Values(list))) }
