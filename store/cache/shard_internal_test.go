package cache

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"patd/internal/longtest"
	"patd/store/cache/internal/reclog"
	"patd/store/usage"
	"patd/tokens"
)

// TestNoUseIsLostWhateverBecomesOfItsToken has tokens come, go, be used, be evicted and be written at random: each use
// is in its record, was handed on, or was taken to be written, and the shard knows how many wait.
func TestNoUseIsLostWhateverBecomesOfItsToken(t *testing.T) {
	t.Parallel()
	longtest.Slow(t)
	for seed := range uint64(1000) {
		u := newUsesModel(seed)
		for range 400 {
			u.step()
			if why := u.wrong(); why != "" {
				t.Fatalf("seed %d: %s", seed, why)
			}
		}
	}
}

type usesModel struct {
	shard
	rnd                 *rand.Rand
	now                 int64
	kept, written, want map[tokens.ID]int64
	left                []tokens.ID // to be written

	detailsModel
}

func newUsesModel(seed uint64) *usesModel {
	m := &usesModel{
		rnd: rand.New(
			rand.NewPCG(seed, 1),
		),
		kept:    map[tokens.ID]int64{},
		written: map[tokens.ID]int64{},
		want:    map[tokens.ID]int64{},
	}
	m.init(4<<10, func(id tokens.ID, u usage.Use) { m.kept[id] = max(m.kept[id], u.Micros) },
		func(id tokens.ID, d usage.Detail) { m.handed(id, d) }, &m.askers, &m.scopes)
	return m
}

func (m *usesModel) step() {
	id := tokens.ID(m.rnd.IntN(30) + 1)
	switch op := m.rnd.IntN(100); {
	case op < 35:
		m.mu.Lock()
		defer m.mu.Unlock()
		m.put(m.record(id))
	case op < 70:
		m.now++
		if m.rnd.IntN(50) == 0 {
			m.now += usage.DayMicros
		}
		u := tokens.Usage{ID: id, Use: tokens.Use{Time: time.UnixMicro(m.now - int64(m.rnd.IntN(3)))}}
		m.needs(&u)
		if m.note(id, usage.Of(u.Use), &u) {
			m.want[id] = max(m.want[id], m.noted(id))
			m.count(u)
		}
	case op < 80:
		m.drop(id)
	case op < 81:
		m.clear()
	case op < 85:
		m.log.Look(&m.mu, uint64(id))
	case op < 90:
		m.left = m.pending(m.left)
	default:
		if len(m.left) == 0 {
			return
		}
		id, m.left = m.left[0], m.left[1:]
		if u, ok := m.take(id); ok {
			m.written[id] = max(m.written[id], u.Micros)
		}
		m.writeDetails()
	}
}

// noted is when the token in memory was last used.
func (m *usesModel) noted(id tokens.ID) int64 {
	return tokenRecord(m.log.Find(uint64(id))).use().Micros
}

func (m *usesModel) wrong() string {
	flagged := 0
	for id := range tokens.ID(31) {
		r := m.log.Find(uint64(id))
		wanted := []reclog.Wanted{m.log.Want(uint64(id))} // of so few ids each has a tag of its own
		reclog.Prefetch(wanted)
		if v := wanted[0].Record(); (v == nil) != (r == nil) || r != nil && &v[0] != &r[0] {
			return "view and index differ"
		}
		have := max(m.kept[id], m.written[id])
		if r != nil && r.Marks()&useWaits != 0 {
			flagged++
			have = max(have, m.noted(id))
			if !slices.Contains(m.used, id) && !slices.Contains(m.left, id) {
				return "a use is noted, and will not be asked for"
			}
		}
		if have < m.want[id] {
			return "a use is lost"
		}
	}
	if text := m.detailsWrong(); text != "" {
		return text
	}
	if flagged != m.waiting {
		return "it does not know how many uses wait"
	}
	return ""
}
