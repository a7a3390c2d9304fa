package replicatest

import (
	"context"
	"strings"
	"sync"
	"testing"
)

// shift is clients that change a cluster's store and keep ledgers of what they were answered.
type shift struct {
	counts
	cluster *cluster
	ledgers []*ledger
	stop    context.CancelFunc
	clients sync.WaitGroup
}

// startShift has clients work until end.
func startShift(t *testing.T, c *cluster, clients int) *shift {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	s := &shift{cluster: c, stop: stop}
	for i := range clients {
		l := &ledger{client: i, features: map[string]string{}, counts: &s.counts}
		s.ledgers = append(s.ledgers, l)
		s.clients.Go(func() {
			if err := l.work(ctx, c); err != nil && ctx.Err() == nil {
				t.Errorf("client %d: %v", i, err)
			}
		})
	}
	return s
}

// end ends the work, once what is under way was answered, and returns how many tokens there are.
func (s *shift) end() (tokens int) {
	s.stop()
	s.clients.Wait()
	for _, l := range s.ledgers {
		tokens += len(l.entries)
	}
	return tokens
}

// verify makes sure that all that was answered stands, on every replica and in the tables, and that nothing else does.
func (s *shift) verify(t *testing.T) {
	t.Helper()
	for _, l := range s.ledgers {
		l.verifyUsers(t, s.cluster.replicas[0])
		for _, r := range s.cluster.replicas {
			l.verify(t, r)
		}
	}
	wholeChanges(t, s.cluster)
	if got := s.cluster.run("check", "--hash-key-file", s.cluster.key); !strings.HasPrefix(got, "ok: ") {
		t.Errorf("check: %s", got)
	}
}
