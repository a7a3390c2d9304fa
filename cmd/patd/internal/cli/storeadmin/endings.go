package storeadmin

import (
	"context"
	"slices"
	"time"

	"patd/store"
	"patd/tokens"
)

const (
	// ExpiryNotice is how long before the expiry of a service token or of the TLS certificate the operator is warned.
	ExpiryNotice = 14 * 24 * time.Hour
	// ExpiryInterval is how often a server checks for expiry.
	ExpiryInterval = time.Minute
	// WarnAgain is how often one expiry is logged.
	WarnAgain = 24 * time.Hour
)

// Endings are the service tokens that expire, of those that are not revoked.
type Endings struct {
	Next time.Time // when the first of the live ones expires; zero: there is none
	Soon []tokens.ServiceAccount
	// Ended are those that expired within the last ExpiryNotice, and whose name no later service has.
	Ended []tokens.ServiceAccount
}

// ReadEndings reads all services of a store, of any number.
func ReadEndings(ctx context.Context, st *store.Store, now time.Time) (e Endings, err error) {
	const page = 1000
	err = st.View(ctx, func(tx tokens.ReadTx) error {
		e = Endings{}
		later := map[string]bool{} // names of the services read so far, which are newer
		for before := tokens.ID(0); ; {
			found, err := tx.Services(before, page)
			if err != nil {
				return err
			}
			for _, v := range found {
				e.add(v, later[v.Name], now)
				later[v.Name] = true
				before = v.ID
			}
			if len(found) < page {
				return nil
			}
		}
	})
	first := func(a, b tokens.ServiceAccount) int { return a.ExpireTime.Compare(b.ExpireTime) }
	slices.SortFunc(e.Soon, first)
	slices.SortFunc(e.Ended, first)
	return e, err
}

func (e *Endings) add(v tokens.ServiceAccount, replaced bool, now time.Time) {
	switch left := v.ExpireTime.Sub(now); {
	case v.Revocation != nil || v.ExpireTime.IsZero():
		return
	case v.Status(now) != tokens.StateActive:
		if !replaced && left > -ExpiryNotice {
			e.Ended = append(e.Ended, v)
		}
		return
	case left <= ExpiryNotice:
		e.Soon = append(e.Soon, v)
	}
	if e.Next.IsZero() || v.ExpireTime.Before(e.Next) {
		e.Next = v.ExpireTime
	}
}

// Warnings returns the lines of `patd check` about the services' expiry.
func (e Endings) Warnings(now time.Time) []string {
	list := []string{}
	for _, v := range slices.Concat(e.Ended, e.Soon) {
		verb, advice := "expires", "rotate it: patd service rotate "+v.Name
		if !now.Before(v.ExpireTime) {
			verb, advice = "expired", "create the service again, under the same name"
		}
		list = append(
			list,
			"the token "+v.ID.String()+" of service "+v.Name+" "+verb+" at "+v.ExpireTime.UTC().Format(time.RFC3339)+
				"; "+advice,
		)
	}
	return list
}
