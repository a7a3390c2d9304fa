package client

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
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

func (silent) ReportUses(context.Context, *patdv1.ReportUsesRequest, ...grpc.CallOption) (*patdv1.ReportUsesResponse, error) {
	return nil, errSilent
}

func TestUnreportedUsesAreBounded(t *testing.T) {
	u := newUses(silent{}, 64)
	for i := range 1000 {
		u.note(&entry{usage: &usage{tokenID: fmt.Sprint(i)}}, netip.Addr{}, start)
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
	m.heard(start)
	var made []weak.Pointer[Token]
	for i := range 2000 {
		e := activeEntry(uint64(i), fmt.Sprint(i), "u")
		e.token.Name = strings.Repeat("x", 4096)
		e.usage = &usage{tokenID: e.token.ID}
		m.keep(e, ticket{sent: start}, 1)
		u.note(e, netip.Addr{}, start.Add(time.Second))
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
