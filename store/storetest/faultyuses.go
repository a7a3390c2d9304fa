package storetest

import (
	"time"

	"patd/tokens"
)

func (t *faultyRead) ScopeUses(ids []tokens.ID) (map[tokens.ID]tokens.ScopeUses, error) {
	return read(t, "ScopeUses", func() (map[tokens.ID]tokens.ScopeUses, error) { return t.r.ScopeUses(ids) })
}

func (t *faultyRead) UsesSince() (time.Time, error) {
	return read(t, "UsesSince", func() (time.Time, error) { return t.r.UsesSince() })
}

func (t *faultyRead) EndedPauses(before time.Time, limit int) ([]tokens.ID, error) {
	return read(t, "EndedPauses", func() ([]tokens.ID, error) { return t.r.EndedPauses(before, limit) })
}

func (t *faultyRead) Narrowing(key tokens.PlanKey) (tokens.Narrowing, error) {
	return read(t, "Narrowing", func() (tokens.Narrowing, error) { return t.r.Narrowing(key) })
}

func (t *faultyRead) AbandonedNarrowing(before time.Time) (tokens.Narrowing, error) {
	return read(t, "AbandonedNarrowing", func() (tokens.Narrowing, error) { return t.r.AbandonedNarrowing(before) })
}

func (t *faultyRead) NextNarrowingPart(key tokens.PlanKey) (tokens.BulkPart, error) {
	return read(t, "NextNarrowingPart", func() (tokens.BulkPart, error) { return t.r.NextNarrowingPart(key) })
}

func (t *faultyTx) InsertNarrowing(n tokens.Narrowing, parts []tokens.BulkPart) error {
	return t.write("InsertNarrowing", func() error { return t.w.InsertNarrowing(n, parts) })
}

func (t *faultyTx) UpdateNarrowing(n tokens.Narrowing, part int) error {
	return t.write("UpdateNarrowing", func() error { return t.w.UpdateNarrowing(n, part) })
}
