package cache

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"patd/store/cache/internal/reclog"
	"patd/store/usage"
	"patd/tokens"
)

// detailsModel checks that no count of uses is lost: each is in its record, was handed on, or was taken to be written.
type detailsModel struct {
	counted map[string]int64 // uses by token and scope that were noted
	got     map[string]int64 // those that left the shard
	days    map[string]int64 // of the last use
	gotDays map[string]int64 // as far as it left the shard
	askers  serviceNames     // of the shard
	scopes  textLists        // likewise
	listed  []tokens.ID      // to be asked for
}

func useKey(id tokens.ID, scope string) string { return fmt.Sprint(id, " ", scope) }

// scopesOf are the scopes of a token: of some one word of counts, of some more.
func scopesOf(id tokens.ID) []string {
	list := make([]string, 0, 40)
	for i := range []int{1, 4, 7, 8, 15, 33}[id%6] {
		list = append(list, fmt.Sprintf("scope%02d", i))
	}
	return list
}

func (m *usesModel) record(id tokens.ID) reclog.Record {
	c := tokens.Credential{
		Token:   tokens.Token{ID: id, Name: "n", Scopes: scopesOf(id)},
		Secrets: make([]tokens.StoredSecret, 1),
	}
	var list uint32
	if m.rnd.IntN(2) == 0 { // else it has its own
		list = m.scopes.number(c.Token.Scopes)
	}
	r, _ := packToken(&c, func(string) (uint16, bool) { return 0, true }, list)
	return r
}

// needs makes up what a use needed.
func (m *usesModel) needs(u *tokens.Usage) {
	if m.counted == nil {
		m.counted, m.got, m.days, m.gotDays = map[string]int64{}, map[string]int64{}, map[string]int64{}, map[string]int64{}
	}
	u.Service = []string{"", "gateway", "api"}[m.rnd.IntN(3)]
	for _, s := range scopesOf(u.ID) {
		if m.rnd.IntN(4) == 0 {
			u.Scopes = append(u.Scopes, s)
		}
	}
}

func (m *usesModel) count(u tokens.Usage) {
	times := int64(1)
	if m.rnd.IntN(500) == 0 { // often, so that a byte does not hold it
		for range 300 {
			if m.note(u.ID, usage.Of(u.Use), &u) {
				times++
			}
		}
	}
	d := usage.DetailOf(u)
	if d == nil {
		return
	}
	for _, s := range d.Scopes {
		key := useKey(u.ID, s.Scope)
		m.counted[key] += times
		m.days[key] = max(m.days[key], s.Day)
	}
}

// handed takes in what left the shard.
func (m *usesModel) handed(id tokens.ID, d usage.Detail) {
	for _, s := range d.Scopes {
		key := useKey(id, s.Scope)
		m.got[key] += s.Count
		m.gotDays[key] = max(m.gotDays[key], s.Day)
	}
}

func (m *usesModel) writeDetails() {
	if m.rnd.IntN(2) == 0 {
		m.listed = m.pendingDetails(m.listed)
		return
	}
	for len(m.listed) > 0 && m.rnd.IntN(4) > 0 {
		var d usage.Detail
		if m.takeDetails(m.listed[0], &d) {
			m.handed(m.listed[0], d)
		}
		m.listed = m.listed[1:]
	}
}

func (m *usesModel) detailsWrong() string {
	if m.rnd.IntN(20) > 0 {
		return "" // it takes long
	}
	waiting := 0
	total, days := map[string]int64{}, map[string]int64{}
	for id := range tokens.ID(31) {
		r := tokenRecord(m.log.Find(uint64(id)))
		if r == nil || !r.hasDetails() {
			continue
		}
		waiting++
		if !slices.Contains(m.shard.details.used, id) && !slices.Contains(m.listed, id) {
			return "details wait, and will not be asked for"
		}
		var d usage.Detail
		m.shard.details.read(r, &d)
		for _, s := range d.Scopes {
			total[useKey(id, s.Scope)] += s.Count
			days[useKey(id, s.Scope)] = s.Day
		}
		if service := uint16(reclog.Record(r).Word(tokenSource)); int(service) >= max(1, len(m.askers.all())) {
			return "the number of no service"
		}
	}
	for key, want := range m.counted {
		if have := total[key] + m.got[key]; have != want {
			return fmt.Sprintf("%s was used %d times, counted %d", key, want, have)
		}
		if have := max(days[key], m.gotDays[key]); have != m.days[key] {
			return fmt.Sprintf("%s was used last on day %d, known is %d", key, m.days[key], have)
		}
	}
	if waiting != m.shard.details.waiting {
		return "it does not know how many details wait"
	}
	return ""
}

// TestAddressesOfTheSameBytesAreDifferentSources: an address of version 4 is not one of version 6 that begins with the
// same bytes, and neither is one that is not known that of zeros.
func TestAddressesOfTheSameBytesAreDifferentSources(t *testing.T) {
	t.Parallel()
	for _, pair := range [][2]string{{"1.2.3.4", "102:304::"}, {"0.0.0.0", "::"}, {"", "0.0.0.0"}, {"", "::"}} {
		var got usage.Detail
		var s shard
		names := &serviceNames{}
		s.init(
			4<<10,
			func(tokens.ID, usage.Use) {},
			func(_ tokens.ID, d usage.Detail) { got.Add(d) },
			names,
			&textLists{},
		)
		c := tokens.Credential{
			Token:   tokens.Token{ID: 1, Name: "n", Scopes: []string{"a"}},
			Secrets: make([]tokens.StoredSecret, 1),
		}
		r, _ := packToken(&c, func(string) (uint16, bool) { return 0, true }, 0)
		s.mu.Lock()
		s.put(r)
		s.mu.Unlock()
		for i, text := range pair {
			ip, _ := netip.ParseAddr(text) // "" is not known
			u := tokens.Usage{ID: 1, Service: "gateway", Use: tokens.Use{Time: time.Unix(int64(1e9+i), 0), IP: ip}}
			if !s.note(1, usage.Of(u.Use), &u) {
				t.Fatal("the use was not noted")
			}
		}
		s.takeDetails(1, &got)
		if len(got.Sources) != 2 || got.Sources[0].IP == got.Sources[1].IP {
			t.Errorf("%q and %q are the sources %v", pair[0], pair[1], got.Sources)
		}
	}
}
