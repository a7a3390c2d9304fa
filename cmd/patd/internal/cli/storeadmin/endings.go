package storeadmin

import (
	"context"
	"slices"
	"time"

	"patd/store"
	"patd/tokens"
)

const (
	// ExpiryNotice is how long before the end of a service token or of the TLS certificate an operator is warned.
	ExpiryNotice = 14 * 24 * time.Hour
	// ExpiryInterval is how often a server looks for such ends.
	ExpiryInterval = time.Minute
	// WarnAgain is how often one end is logged.
	WarnAgain = 24 * time.Hour
)

// Endings are the service tokens that end, of those that are not revoked.
type Endings struct {
	Next time.Time // when the first of the live ones ends; zero: there is none
	Soon []tokens.ServiceAccount
	// Ended are those that ended within the last expiryNotice, and whose name no later service has.
	Ended []tokens.ServiceAccount
}

// ReadEndings reads the services of a store, whatever their number.
func ReadEndings(ctx context.Context, st *store.Store, now time.Time) (e Endings, err error) {
	const page = 1000
	err = st.View(ctx, func(tx tokens.ReadTx) error {
		e = Endings{}
		later := map[string]bool{} // names of those that were read, which are newer
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

// Warnings are what `patd check` says of the services' ends, in words.
func (e Endings) Warnings(now time.Time) []string {
	list := []string{}
	for _, v := range slices.Concat(e.Ended, e.Soon) {
		verb := "expires"
		if !now.Before(v.ExpireTime) {
			verb = "expired"
		}
		list = append(list, "the token "+v.ID.String()+" of service "+v.Name+" "+verb+" at "+v.ExpireTime.UTC().Format(time.RFC3339)+
			"; give its program the token of another service")
	}
	return list
}
