package store_test

import (
	"testing"
	"time"

	"patd/internal/dbtest"
	"patd/store"
	"patd/tokens"
)

// TestEndedBulkRevocationsArePruned keeps the records for 30 days, and those of revocations under way, with their
// tokens, for ever.
func TestEndedBulkRevocationsArePruned(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{"sqlite", "postgres"} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			url := "sqlite:" + newPath(t)
			if engine == "postgres" {
				url = newSchema(t, dbtest.SharedPostgres(t))
			}
			c := newClock()
			st := openURL(t, url, store.Options{Now: c.now, FlushInterval: time.Hour})
			begin := c.now()
			err := st.Update(t.Context(), func(tx tokens.Tx) ([]tokens.Event, error) {
				for i, end := range []time.Time{begin, begin.Add(24 * time.Hour), {}} {
					b := tokens.BulkRevocation{
						Work: tokens.Work{
							Key:       tokens.PlanKey{byte(i)},
							Actor:     "service:ops",
							Count:     1,
							BeginTime: begin,
							WorkTime:  begin,
							EndTime:   end,
						},
					}
					var parts []tokens.BulkPart
					if end.IsZero() {
						parts = append(parts, tokens.BulkPart{IDs: []tokens.ID{1}})
					}
					if err := tx.InsertBulkRevocation(b, parts); err != nil {
						return nil, err
					}
				}
				return []tokens.Event{
					{
						Time:    begin,
						Actor:   "service:ops",
						Action:  tokens.ActionTokenRevokeMatching,
						Outcome: tokens.OutcomeSuccess,
					},
				}, nil
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, after := range []struct {
				wait time.Duration
				left string
			}{{30*tokens.Day - time.Second, "3"}, {time.Second, "2"}, {time.Hour, "2"}, {23 * time.Hour, "1"}, {365 * tokens.Day, "1"}} {
				c.move(after.wait)
				if err := st.Prune(t.Context()); err != nil {
					t.Fatal(err)
				}
				if got := count(t, st, "bulk_revocations"); got != after.left {
					t.Errorf("%s records after %s more, want %s", got, after.wait, after.left)
				}
			}
			if got := count(t, st, "bulk_parts"); got != "1" {
				t.Errorf("%s parts are left, want that of the revocation under way", got)
			}
		})
	}
}
