package cache

import (
	"encoding/binary"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"patd/store/cache/internal/reclog"
	"patd/store/usage"
	"patd/tokens"
)

// Details of uses are counted in words of a token's record: a byte for the uses whose service did not say what it
// required, and one for each scope. The first word of counts, which is all of most tokens, stands beside the last use
// and the word of the source, so that a use writes no other line of memory; the others are at the record's end. Counts
// are of the day of the last use that the record knows. What a byte cannot hold is handed on.
//
// The word of the source, from its lowest bits: the number of the service that asked last, 16; hashes of the two
// sources that were handed on last, 16 each; how many were, 8; and, the highest, whether the token is in the list of
// those that have details.
const (
	sourceHash1   = 16
	sourceHash2   = 32
	sourceHanded  = 48
	sourceMost    = 8 // are handed on of a token until its details are written
	detailsListed = 1 << 63
)

// moreCounts is how many bytes the counts of a token with so many scopes take at the end of its record.
func moreCounts(scopes int) int { return scopes / reclog.Align * reclog.Align }

// countAt is the word of the count of the i-th of n scopes, from 1; 0 is the count of uses that named none.
func (r tokenRecord) countAt(i, n int) int {
	if i < reclog.Align {
		return tokenCounts
	}
	return len(r) - moreCounts(n) + i&^(reclog.Align-1) - reclog.Align
}

// hasDetails reports whether details of uses wait in the record.
func (r tokenRecord) hasDetails() bool {
	return reclog.Record(r).Word(tokenSource)&detailsListed != 0
}

// scopes returns the token's scopes: a list that others have too, or the record's own, in room if it fits.
func (r tokenRecord) scopes(lists [][]string, room []string) []string {
	p := parser{b: r[tokenText:]}
	p.take(p.count()) // the name
	scopes, _ := p.scopes(lists, room)
	return scopes
}

// shardDetails are the details of uses of a shard. The lock of the shard guards them.
type shardDetails struct {
	used    []tokens.ID // those with details, as far as pending has not returned them
	waiting int         // how many records have details
	keep    func(tokens.ID, usage.Detail)
	names   *serviceNames
	lists   *textLists // of scopes
}

// note counts a use, before the record knows its time. A use on an earlier day than the last one is handed on.
func (d *shardDetails) note(r tokenRecord, u *usage.Use, of *tokens.Usage) {
	rec := reclog.Record(r)
	day := max(u.Micros, 0) / usage.DayMicros
	last := int64(rec.Marks() >> useBits)
	if last >= (day+1)*usage.DayMicros {
		if one := usage.DetailOf(*of); one != nil {
			d.keep(of.ID, *one)
		}
		return
	}
	source := rec.Word(tokenSource)
	if last < day*usage.DayMicros && source&detailsListed != 0 {
		d.handOn(r)
		source = rec.Word(tokenSource)
	}
	if len(of.Scopes) == 0 && of.Service == "" {
		return
	}
	after := source | detailsListed
	if after != source {
		d.used = append(d.used, of.ID)
		d.waiting++
	}
	if after = d.sourceAfter(r, after, u, last, of); after != source {
		rec.SetWord(tokenSource, after)
	}
	if len(of.Scopes) == 0 {
		d.count(rec, tokenCounts, 0, "", day)
		return
	}
	var room [8]string
	scopes, left := r.scopes(d.lists.all(), room[:0]), len(of.Scopes)
	for i := 0; i < len(scopes) && left > 0; i++ {
		if slices.Contains(of.Scopes, scopes[i]) {
			d.count(rec, r.countAt(i+1, len(scopes)), i+1, scopes[i], day)
			left--
		}
	}
}

// count adds one to the i-th count, which is in the word at a place.
func (d *shardDetails) count(r reclog.Record, at, i int, scope string, day int64) {
	shift := uint(i) % reclog.Align * 8
	w := r.Word(at)
	if w>>shift&0xff == 0xff {
		d.keep(tokens.ID(r.ID()), usage.Detail{Scopes: []usage.ScopeUse{{Scope: scope, Day: day, Count: 0xff}}})
		w &^= 0xff << shift
	}
	r.SetWord(at, w+1<<shift)
}

// sourceAfter returns the word of the source after a use. The source of the use before, if it is another one, is handed
// on, unless that was done lately.
func (d *shardDetails) sourceAfter(r tokenRecord, w uint64, u *usage.Use, lastUse int64, of *tokens.Usage) uint64 {
	known := uint16(w)
	if u.Micros < lastUse || known == 0 && of.Service == "" {
		return w
	}
	names := d.names.all()
	same := known != 0 && names[known] == of.Service
	last := r.use()
	if same && last.IPSize == u.IPSize && last.IP == u.IP { // without the size 1.2.3.4 is 102:304::
		return w
	}
	if known != 0 {
		hash := sourceHash(known, &last)
		if handed := w >> sourceHanded & 0xff; handed < sourceMost && hash != uint16(w>>sourceHash1) &&
			hash != uint16(w>>sourceHash2) {
			d.keep(
				of.ID,
				usage.Detail{Sources: []usage.Source{{IP: last.Addr(), Service: names[known], Micros: last.Micros}}},
			)
			w = w&detailsListed | (handed+1)<<sourceHanded | w>>sourceHash1&0xffff<<sourceHash2 | uint64(
				hash,
			)<<sourceHash1
		}
	}
	if !same {
		known = d.names.number(of.Service)
	}
	return w&^0xffff | uint64(known)
}

func sourceHash(service uint16, u *usage.Use) uint16 {
	h := binary.LittleEndian.Uint64(
		u.IP[:],
	) ^ binary.LittleEndian.Uint64(
		u.IP[8:],
	)*0x9e3779b97f4a7c15 ^ uint64(
		service,
	)<<32 ^ uint64(
		u.IPSize,
	)<<48
	return uint16(h*0x9e3779b97f4a7c15>>48) | 1
}

// read adds what waits in a record to an empty detail. Its texts may be parts of the record.
func (d *shardDetails) read(r tokenRecord, out *usage.Detail) {
	rec, last := reclog.Record(r), r.use()
	scopes := r.scopes(d.lists.all(), nil)
	for i := range len(scopes) + 1 {
		scope := ""
		if i > 0 {
			scope = scopes[i-1]
		}
		if c := rec.Word(r.countAt(i, len(scopes))) >> (i % reclog.Align * 8) & 0xff; c > 0 {
			out.AddScope(usage.ScopeUse{Scope: scope, Day: last.Micros / usage.DayMicros, Count: int64(c)})
		}
	}
	if service := uint16(rec.Word(tokenSource)); service != 0 {
		out.AddSource(usage.Source{IP: last.Addr(), Service: d.names.all()[service], Micros: last.Micros})
	}
}

// clear empties the words of a record; the source keeps the bits of keep.
func (d *shardDetails) clear(r tokenRecord, keep uint64) {
	rec := reclog.Record(r)
	for w := len(r) - moreCounts(len(r.scopes(d.lists.all(), nil))); w < len(r); w += reclog.Align {
		rec.SetWord(w, 0)
	}
	rec.SetWord(tokenCounts, 0)
	rec.SetWord(tokenSource, rec.Word(tokenSource)&keep)
}

// handOn hands on what waits in a record, which stays in the list.
func (d *shardDetails) handOn(r tokenRecord) {
	var one usage.Detail
	d.read(r, &one)
	d.keep(tokens.ID(reclog.Record(r).ID()), one)
	d.clear(r, detailsListed)
}

// gone hands on what waits in a record that leaves.
func (d *shardDetails) gone(r tokenRecord) {
	if r.hasDetails() {
		d.handOn(r)
		d.clear(r, 0)
		d.waiting--
	}
}

// takeDetails takes what waits of a token, to be written.
func (s *shard) takeDetails(id tokens.ID, to *usage.Detail) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := tokenRecord(s.log.Find(uint64(id)))
	if r == nil || !r.hasDetails() {
		return false
	}
	var one usage.Detail
	s.details.read(r, &one)
	for i := range one.Scopes {
		one.Scopes[i].Scope = strings.Clone(one.Scopes[i].Scope) // not a part of the record
	}
	to.Add(one)
	s.details.clear(r, 0)
	s.details.waiting--
	return true
}

func (s *shard) detailsWaiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.details.waiting
}

func (s *shard) pendingDetails(ids []tokens.ID) []tokens.ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids = append(ids, s.details.used...)
	s.details.used = s.details.used[:0]
	return ids
}

var _ usage.DetailKeeper = keeper{}

// DetailsWaiting implements usage.DetailKeeper.
func (c keeper) DetailsWaiting() int {
	n := 0
	for i := range c.shards {
		n += c.shards[i].detailsWaiting()
	}
	return n
}

// PendingDetails implements usage.DetailKeeper.
func (c keeper) PendingDetails(ids []tokens.ID) []tokens.ID {
	for i := range c.shards {
		ids = c.shards[i].pendingDetails(ids)
	}
	return ids
}

// TakeDetails implements usage.DetailKeeper.
func (c keeper) TakeDetails(id tokens.ID, d *usage.Detail) bool {
	return c.shard(id).takeDetails(id, d)
}

// serviceNames numbers the names of services that ask, from 1, so that a record can name one by two bytes. None is ever
// dropped; those that there is no number for get 0, which is none.
type serviceNames struct {
	mu     sync.Mutex
	list   atomic.Pointer[[]string] // the first is empty
	byName atomic.Pointer[map[string]uint16]
}

func (n *serviceNames) all() []string {
	if list := n.list.Load(); list != nil {
		return *list
	}
	return nil
}

// number returns the number of a name.
func (n *serviceNames) number(name string) uint16 {
	if name == "" {
		return 0
	}
	if known := n.byName.Load(); known != nil {
		if i, ok := (*known)[name]; ok {
			return i
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	list, known := n.all(), map[string]uint16{}
	if list == nil {
		list = []string{""}
	}
	if m := n.byName.Load(); m != nil {
		if i, ok := (*m)[name]; ok {
			return i
		}
		known = maps.Clone(*m)
	}
	const most = 1 << 16
	if len(list) == most {
		return 0
	}
	name = strings.Clone(name)
	more := append(list[:len(list):len(list)], name)
	known[name] = uint16(len(list))
	n.list.Store(&more)
	n.byName.Store(&known)
	return known[name]
}
