package client

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	patdv1 "patd/gen/patd/v1"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func keyOf(n uint64) key {
	var k key
	for i := range 8 {
		k[i] = byte(n >> (8 * i))
	}
	return k
}

func activeEntry(n uint64, token, user string) *entry {
	return &entry{key: keyOf(n), decision: Allow, token: &Token{ID: token, User: user}, until: time.Hour}
}

func TestGarbageDoesNotPushOutGoodAnswers(t *testing.T) {
	m := newMemory(1000, 64<<20, start)
	m.heard(start, start)
	for n := range uint64(500) {
		m.keep(activeEntry(n, fmt.Sprint(n), "u"), ticket{sent: start}, 1)
	}
	for range 100_000 {
		m.keep(&entry{key: keyOf(rand.Uint64()), decision: NotFound, until: time.Hour}, ticket{sent: start}, 0)
	}
	for n := range uint64(500) {
		if e := m.recall(keyOf(n), start); e == nil && n < 500 {
			t.Fatalf("answer %d was pushed out by garbage", n)
		}
	}
	if n, _ := m.refusals.count(); n > 1000/refusalShare+shards {
		t.Errorf("%d refusals are remembered", n)
	}
}

func TestMemoryIsBoundedByBytes(t *testing.T) {
	t.Parallel()
	const limit = 4 << 20
	m := newMemory(100_000, limit, start)
	m.heard(start, start)
	labels := map[string]string{}
	for n := range 32 {
		labels[fmt.Sprintf("%063d", n)] = fmt.Sprintf("%0255d", n)
	}
	kept := 0
	for range 5000 {
		n := rand.Uint64()
		e := activeEntry(n, "t", "u")
		e.token.Labels = labels
		m.keep(e, ticket{sent: start}, 1)
		if m.recall(keyOf(n), start) != nil {
			kept++
		}
	}
	entries, _ := m.answers.count()
	if held := entries * 32 * (63 + 255); held > limit {
		t.Errorf("%d answers hold %d bytes of labels, want at most %d", entries, held, limit)
	}
	if kept != 5000 || entries < shards {
		t.Errorf("%d of 5000 answers were kept at first, and %d at the end", kept, entries)
	}
	if o := m.byToken["t"]; o == nil || o.entries != entries {
		t.Errorf("the token counts %+v, want %d entries", o, entries)
	}
	huge := activeEntry(1, "huge", "u")
	huge.token.Name = fmt.Sprintf("%0*d", limit/shards, 0)
	m.keep(huge, ticket{sent: start}, 1)
	if m.recall(keyOf(1), start) != nil || m.byToken["huge"] != nil {
		t.Error("an answer larger than its share was kept")
	}
}

func TestWhatIsUsedStaysLonger(t *testing.T) {
	m := newMemory(shards*16, 64<<20, start)
	m.heard(start, start)
	const used = shards * 4
	for n := range uint64(used) {
		m.keep(activeEntry(n, fmt.Sprint(n), "u"), ticket{}, 1)
	}
	for n := uint64(used); n < 20_000; n++ {
		for i := range uint64(used) {
			if e := m.recall(keyOf(i), start); e == nil && n > used {
				t.Fatalf("answer %d, which is used all the time, was pushed out by %d", i, n)
			}
			if n%8 != 0 {
				break
			}
		}
		m.keep(activeEntry(n, fmt.Sprint(n), "u"), ticket{}, 1)
	}
	if n, _ := m.answers.count(); n > shards*16 {
		t.Errorf("%d answers are remembered", n)
	}
	owners := len(m.byToken)
	if entries, _ := m.answers.count(); owners != entries || len(m.byUser) != 1 {
		t.Errorf("%d tokens and %d users for %d answers", owners, len(m.byUser), entries)
	}
}

func TestMemoryClosesByEitherClock(t *testing.T) {
	m := newMemory(10, 64<<20, start)
	if m.trusted(start) {
		t.Error("it is open before anything was heard")
	}
	m.heard(start, start)
	m.heardWall.Store(start.Add(-silence).UnixNano()) // the machine slept: the monotonic clock stood still
	if m.trusted(start) {
		t.Error("it is open after the machine slept")
	}
	m.heard(start, start)
	m.heardMono.Store(-int64(silence)) // the wall clock was set back
	if m.trusted(start) {
		t.Error("it is open after the clock was set back")
	}
	m.heard(start, start)
	if !m.trusted(start.Add(silence-1)) || m.trusted(start.Add(silence)) {
		t.Error("it is not open for 3 seconds exactly")
	}
}

func TestForgottenChangesRaiseTheFloor(t *testing.T) {
	m := newMemory(10, 64<<20, start)
	m.heard(start, start)
	m.apply(&patdv1.WatchInvalidationsResponse{Sequence: 10, TokenIds: []string{"old"}}, false)
	for i := range 3 * rememberedChanges {
		m.apply(&patdv1.WatchInvalidationsResponse{Sequence: uint64(11 + i), Users: []string{fmt.Sprint(i)}}, false)
	}
	if n := len(m.changes.young) + len(m.changes.old); n > 2*rememberedChanges {
		t.Errorf("%d changes are remembered", n)
	}
	m.keep(activeEntry(1, "old", "u"), ticket{}, 9)
	if m.recall(keyOf(1), start) != nil {
		t.Error("an answer from before a change that was forgotten is remembered")
	}
	m.keep(activeEntry(2, "old", "u"), ticket{}, m.changes.floor)
	if m.recall(keyOf(2), start) == nil {
		t.Error("an answer that is new enough is not remembered")
	}
}

// News of a change that the answer already rests on, such as of the mint itself, void nothing.
func TestOldNewsVoidNothing(t *testing.T) {
	m := newMemory(10, 64<<20, start)
	m.heard(start, start)
	m.keep(activeEntry(1, "t", "u"), ticket{}, 60)
	m.apply(&patdv1.WatchInvalidationsResponse{Sequence: 60, TokenIds: []string{"t"}, Users: []string{"u"}}, false)
	if m.recall(keyOf(1), start) == nil {
		t.Error("the news of position 60 voids the answer of position 60")
	}
	m.apply(&patdv1.WatchInvalidationsResponse{Sequence: 61, TokenIds: []string{"t"}}, false)
	if m.recall(keyOf(1), start) != nil {
		t.Error("the news of position 61 leaves the answer of position 60")
	}
}

// Who waits for an answer may hold it while everything is forgotten.
func TestForgottenAnswerIsUsedByNobody(t *testing.T) {
	m := newMemory(10, 64<<20, start)
	m.heard(start, start)
	e := activeEntry(1, "t", "u")
	m.keep(e, ticket{}, 60)
	if !m.usable(e, start) {
		t.Error("it is not used before")
	}
	m.apply(&patdv1.WatchInvalidationsResponse{Sequence: 5}, true)
	if m.usable(e, start) {
		t.Error("it is used after")
	}
}

// A model of one server with replicas of any age, whose every step is told sooner or later, and of a memory between
// them. What memory answers is never from before what it was told.
func TestMemoryNeverAnswersFromBeforeWhatItWasTold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const names = 4
		m := newMemory(64, 64<<20, start)
		m.heard(start, start)
		type flight struct {
			token int
			at    uint64 // position that the answer is from
			t     ticket
		}
		var feed []int // the token or, beyond names, the user that changed at each position
		var flights []flight
		told, number := 0, uint64(0)
		users := []string{"a", "b"}
		userOf := func(token int) int { return token % len(users) }
		changed := func(token int, from uint64, to int) bool {
			for _, c := range feed[min(int(from), to):to] {
				if c == token || c == names+userOf(token) {
					return true
				}
			}
			return false
		}
		kept := map[key]flight{}
		t.Repeat(map[string]func(*rapid.T){
			"change": func(t *rapid.T) { feed = append(feed, rapid.IntRange(0, names+len(users)-1).Draw(t, "what")) },
			"ask": func(t *rapid.T) {
				at := rapid.IntRange(0, len(feed)).Draw(t, "at") // a replica as old as you like
				flights = append(
					flights,
					flight{rapid.IntRange(0, names-1).Draw(t, "token"), uint64(at), m.ticket(start)},
				)
			},
			"answer": func(t *rapid.T) {
				if len(flights) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(0, len(flights)-1).Draw(t, "which")
				f := flights[i]
				flights = append(flights[:i], flights[i+1:]...)
				number++
				m.keep(activeEntry(number, fmt.Sprint(f.token), users[userOf(f.token)]), f.t, f.at)
				kept[keyOf(number)] = f
			},
			"tell": func(t *rapid.T) {
				to := rapid.IntRange(told, len(feed)).Draw(t, "to")
				news := &patdv1.WatchInvalidationsResponse{Sequence: uint64(to)}
				for _, c := range feed[told:to] {
					if c < names {
						news.TokenIds = append(news.TokenIds, fmt.Sprint(c))
					} else {
						news.Users = append(news.Users, users[c-names])
					}
				}
				told = to
				m.apply(news, false)
			},
			"start over": func(*rapid.T) {
				told = len(feed)
				m.apply(&patdv1.WatchInvalidationsResponse{Sequence: uint64(told)}, true)
			},
			"": func(t *rapid.T) {
				for k, f := range kept {
					if m.recall(k, start) != nil && changed(f.token, f.at, told) {
						t.Fatalf(
							"token %d is answered as of %d, though its change was told, up to %d, of %v",
							f.token,
							f.at,
							told,
							feed,
						)
					}
				}
			},
		})
	})
}

func TestKeysTellAllPartsApart(t *testing.T) {
	d, err := newDigester()
	if err != nil {
		t.Fatal(err)
	}
	at := func(token, audience, ip string) key {
		a, _ := netip.ParseAddr(ip)
		return d.at(d.key(token, audience), a)
	}
	keys := map[key]int{}
	for i, k := range []key{
		d.key("ab", ""), d.key("a", "b"), d.key("", "ab"), d.key("ab\x00", ""), d.key("ab", "x"),
		d.key("ab", "\x00\x00"), d.key("ab\x00\x00", ""),
		at("ab", "", ""), at("ab", "", "::"), at("ab", "", "::1"), at("ab", "", "192.0.2.1"), at("ab", "x", "192.0.2.1"), at("abx", "", "192.0.2.1"),
	} {
		if other, taken := keys[k]; taken {
			t.Errorf("questions %d and %d share a key", other, i)
		}
		keys[k] = i
	}
	other, err := newDigester()
	if err != nil {
		t.Fatal(err)
	}
	if other.key("ab", "") == d.key("ab", "") {
		t.Error("two processes make the same key")
	}
}

func TestDecisionsAreThoseOfTheWire(t *testing.T) {
	for n, name := range patdv1.IntrospectResponse_Decision_name {
		if n != 0 && Decision(n).String() != name {
			t.Errorf("decision %d is %s, on the wire %s", n, Decision(n), name)
		}
	}
	if Decision(0).Active() || Decision(99).Active() || Decision(99).String() != "DECISION_99" || (Result{}).Allowed() {
		t.Error("a decision that is not known passes")
	}
}

func TestNonsenseIsAFault(t *testing.T) {
	v := &Verifier{config: Config{}.withDefaults(), memory: newMemory(1, 64<<20, start)}
	for name, r := range map[string]*patdv1.IntrospectResponse{
		"nothing":               {},
		"active, but refused":   {Active: true, Decision: patdv1.IntrospectResponse_REVOKED, TokenId: "t", User: "u"},
		"allowed, but inactive": {Decision: patdv1.IntrospectResponse_ALLOW, TokenId: "t", User: "u"},
		"nobody's":              {Active: true, Decision: patdv1.IntrospectResponse_ALLOW, TokenId: "t"},
		"no token's":            {Active: true, Decision: patdv1.IntrospectResponse_ALLOW, User: "u"},
	} {
		if _, err := v.read(keys{}, ticket{sent: start}, r); err == nil {
			t.Errorf("%s: it is taken for an answer", name)
		}
	}
}

// TestARefusalTakesThePlaceOfWhatWasKept: the watch may have opened memory with an event from before the change, so
// that what the answers of before rest on is not known to be over.
func TestARefusalTakesThePlaceOfWhatWasKept(t *testing.T) {
	k := keys{everywhere: keyOf(1), here: keyOf(2)}
	for _, under := range []key{k.everywhere, k.here} {
		m := newMemory(10, 64<<20, start)
		m.heard(start, start)
		kept := activeEntry(1, "t", "u")
		kept.key = under
		m.keep(kept, m.ticket(start), 50)
		if m.recall(under, start) == nil {
			t.Fatal("it is not kept")
		}
		refusal := &entry{key: k.everywhere, decision: Revoked}
		m.keep(refusal, m.ticket(start), 0)
		m.replaced(k, refusal)
		if e := m.recall(under, start); e != nil && e.token != nil {
			t.Error("a token that patd refused passes by memory")
		}
		if len(m.byToken)+len(m.byUser) != 0 {
			t.Error("its owners are kept")
		}
		once := activeEntry(1, "t", "u")
		again := activeEntry(1, "t", "u")
		again.key = under
		m.keep(again, m.ticket(start), 60)
		m.replaced(k, once) // an answer that was not kept says nothing against those that are
		if e := m.recall(under, start); e != again {
			t.Error("an answer for one check only drops what is kept")
		}
	}
}
