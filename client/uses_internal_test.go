package client

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"weak"

	"google.golang.org/grpc"

	patdv1 "patd/gen/patd/v1"
)

// silent is a server that takes no reports.
type silent struct {
	patdv1.IntrospectionServiceClient
}

var errSilent = errors.New("no reports are taken")

func (silent) ReportUses(
	context.Context,
	*patdv1.ReportUsesRequest,
	...grpc.CallOption,
) (*patdv1.ReportUsesResponse, error) {
	return nil, errSilent
}

func TestUnreportedUsesAreBounded(t *testing.T) {
	u := newUses(silent{}, 64)
	for i := range 1000 {
		u.note(&entry{usage: &usage{tokenID: fmt.Sprint(i)}}, netip.Addr{}, nil, start)
		if i == 500 {
			if err := u.report(t.Context()); !errors.Is(err, errSilent) {
				t.Fatal(err)
			}
		}
	}
	if got := u.dropped.Load(); got != 1000-64-64 {
		t.Errorf("%d uses are dropped, want %d: 64 wait in the queue, and 64 for another report", got, 1000-64-64)
	}
	_ = u.report(t.Context())
	if len(u.pending) != 64 || len(u.queue) != 0 || u.dropped.Load() != 1000-64 {
		t.Errorf("%d uses are pending, %d queued, %d dropped", len(u.pending), len(u.queue), u.dropped.Load())
	}
}

// What waits to be reported does not keep an answer in memory that was evicted.
func TestAnUnreportedUseHoldsNoAnswer(t *testing.T) {
	const limit = 1 << 20
	m, u := newMemory(100_000, limit, start), newUses(silent{}, 100_000)
	m.heard(start, start)
	var made []weak.Pointer[Token]
	for i := range 2000 {
		e := activeEntry(uint64(i), fmt.Sprint(i), "u")
		e.token.Name = strings.Repeat("x", 4096)
		e.usage = &usage{tokenID: e.token.ID}
		m.keep(e, ticket{sent: start}, 1)
		u.note(e, netip.Addr{}, e.token.Scopes, start.Add(time.Second))
		made = append(made, weak.Make(e.token))
	}
	runtime.GC()
	held := 0
	for _, p := range made {
		if p.Value() != nil {
			held++
		}
	}
	if entries, _ := m.answers.count(); held > entries || len(u.queue) != len(made) {
		t.Errorf("%d answers are in memory, of which %d are remembered; %d uses wait", held, entries, len(u.queue))
	}
	runtime.KeepAlive(m)
	runtime.KeepAlive(u)
}

// What uses needed is reported together, also after a report that failed, and whatever was too much as of any scope.
func TestReportsSayWhichScopesUsesNeeded(t *testing.T) {
	took := &taking{fail: true}
	u := newUses(took, 64)
	e := &entry{usage: &usage{tokenID: "t"}}
	use := func(scopes ...string) { u.note(e, netip.Addr{}, scopes, start) } // all at once: within the grain
	use("a")
	use("b", "a")
	if err := u.report(t.Context()); err == nil {
		t.Fatal("a report that fails is none")
	}
	use("c")
	took.fail = false
	if err := u.report(t.Context()); err != nil {
		t.Fatal(err)
	}
	use()
	_ = u.report(t.Context())
	use("a", "b", "c", "d", "e")
	_ = u.report(t.Context())
	_ = u.report(t.Context())
	want := []string{"[a b c] false", "[] true", "[a b c d] true"}
	if !slices.Equal(took.got, want) {
		t.Errorf("reported %q, want %q", took.got, want)
	}
}

// taking is a server that takes reports, unless it fails.
type taking struct {
	patdv1.IntrospectionServiceClient
	fail bool
	got  []string
}

func (s *taking) ReportUses(
	_ context.Context,
	r *patdv1.ReportUsesRequest,
	_ ...grpc.CallOption,
) (*patdv1.ReportUsesResponse, error) {
	if s.fail {
		return nil, errSilent
	}
	for _, use := range r.GetUses() {
		list := slices.Sorted(slices.Values(use.GetScopes()))
		s.got = append(s.got, fmt.Sprint(list, " ", use.GetUnscoped()))
	}
	return &patdv1.ReportUsesResponse{}, nil
}
