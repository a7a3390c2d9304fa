package store_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"patd/internal/dbtest"
	"patd/internal/longtest"
	"patd/store"
	"patd/tokens"
)

// TestMintsOfAGroupAreAsIfOneCameAfterAnother has mints of few users, with few names and idempotent requests, share
// transactions with changes of other kinds, and with those that fail in all ways.
func TestMintsOfAGroupAreAsIfOneCameAfterAnother(t *testing.T) {
	t.Parallel()
	st := openURL(t, newSchema(t, dbtest.SharedPostgres(t)), store.Options{Connections: 2, FlushInterval: time.Hour})
	fill(t, st, 2)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 16))
	groups := 12
	if longtest.Enabled() {
		groups = 60
	}
	var all []*minting
	for g := range groups {
		var group []*minting
		for range 1 + random.IntN(60) {
			c := &minting{
				n:      len(all) + len(group) + 1,
				how:    waysToMint[random.IntN(len(waysToMint))],
				borrow: random.IntN(8) == 0,
				user:   fmt.Sprintf("g%03du%d", g, random.IntN(6)),
				name:   fmt.Sprintf("name%d", random.IntN(6)),
			}
			if random.IntN(3) == 0 {
				c.key = byte(1 + random.IntN(3))
			}
			if random.IntN(15) == 0 {
				c.how, c.key = suspendsUser, 0
			}
			group = append(group, c)
		}
		mintTogether(t, st, group)
		all = append(all, group...)
		for _, c := range group {
			if wrong := c.wrong(); wrong != "" {
				t.Error(wrong)
			}
		}
		if t.Failed() {
			return
		}
	}
	checkMinted(t, st, all)
	if found, err := st.Check(t.Context()); err != nil || len(found) != 0 {
		t.Errorf("check: %v, %v", found, err)
	}
}

// checkMinted compares the store with the changes that succeeded, and the refusals with what the store holds.
func checkMinted(t *testing.T, st *store.Store, all []*minting) {
	t.Helper()
	var events, ids, prefixes []string
	made := map[tokens.ID]bool{}
	type request struct {
		user string
		key  byte
	}
	requests := map[request]tokens.ID{}
	for _, c := range all {
		if !c.made() {
			continue
		}
		events = append(events, strconv.Itoa(c.n))
		if c.how != suspendsUser {
			made[c.id] = true
			ids = append(ids, strconv.FormatUint(uint64(c.id), 10))
		}
		if c.how == addsPrefix {
			prefixes = append(prefixes, fmt.Sprintf("p%06d", c.n))
		}
		if r := (request{c.user, c.key}); c.key != 0 {
			if requests[r] != 0 {
				t.Errorf("request %v made %d and %d", r, requests[r], c.id)
			}
			requests[r] = c.id
		}
	}
	for _, c := range all {
		if c.replayed && requests[request{c.user, c.key}] != c.id {
			t.Errorf(
				"change %d was given %d again, where the request made %d",
				c.n,
				c.id,
				requests[request{c.user, c.key}],
			)
		}
		if errors.Is(c.err, errNameTaken) && !made[c.holder] {
			t.Errorf("change %d: the name is taken by %d, which was not made", c.n, c.holder)
		}
		if got := count(
			t,
			st,
			`tokens t JOIN users u ON u.key = t."user" WHERE u."user" = '`+c.user+`'`,
		); errors.Is(
			c.err,
			errMany,
		) &&
			got != strconv.Itoa(mostOfUser) {
			t.Errorf("change %d: the user may have no more, and has %s", c.n, got)
		}
	}
	texts := func(query string) []string {
		list, err := st.Texts(t.Context(), 0, query)
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	sorted := func(list []string) []string { list = slices.Clone(list); slices.Sort(list); return list }
	for what, check := range map[string][2][]string{
		"events":   {sorted(events), sorted(texts(`SELECT reason FROM events WHERE actor = 'group'`))},
		"tokens":   {sorted(ids), sorted(texts(`SELECT id FROM tokens WHERE id >= 1000000 AND id < 35184372088832 AND (name LIKE 'name%' OR name LIKE 'of%')`))},
		"prefixes": {sorted(prefixes), sorted(texts(`SELECT prefix FROM prefixes WHERE prefix LIKE 'p0%'`))},
		"the feed, in the order of the events": {texts(`SELECT coalesce(token_id, 0) FROM events WHERE actor = 'group' ORDER BY seq`),
			texts(`SELECT coalesce(token_id, 0) FROM changes WHERE "user" LIKE 'g0%' OR token_id >= 1000000 AND token_id < 35184372088832 ORDER BY seq`)},
		"names twice":         {nil, texts(`SELECT name_key FROM tokens GROUP BY "user", name_key HAVING count(*) > 1 AND min(name_key) LIKE 'name%'`)},
		"users with too many": {nil, texts(fmt.Sprintf(`SELECT "user" FROM tokens WHERE name LIKE 'name%%' GROUP BY "user" HAVING count(*) > %d`, mostOfUser))},
		"mints of a user who was suspended before": {nil, texts(`SELECT e.reason FROM events e JOIN events s ON s."user" = e."user"
AND s.token_id IS NULL AND s.seq < e.seq WHERE e.actor = 'group' AND s.actor = 'group'`)},
	} {
		if diff := cmp.Diff(check[0], check[1]); diff != "" && len(check[0])+len(check[1]) > 0 {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
}

// TestAGroupOfMintsIsOneStatementATable counts the statements that write, by triggers.
func TestAGroupOfMintsIsOneStatementATable(t *testing.T) {
	t.Parallel()
	st := openURL(t, newSchema(t, dbtest.SharedPostgres(t)), store.Options{Connections: 2, FlushInterval: time.Hour})
	fill(t, st, 2)
	group := manyMints(50, 1)
	withUsers(t, st, group)
	tables := []string{"tokens", "requests", "events", "changes"}
	for _, table := range tables {
		exec1(t, st, `CREATE SEQUENCE statements_`+table)
		exec1(
			t,
			st,
			`CREATE FUNCTION count_`+table+`() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM nextval(''statements_`+table+`''); RETURN NULL; END'`,
		)
		exec1(
			t,
			st,
			`CREATE TRIGGER count_it AFTER INSERT ON `+table+` FOR EACH STATEMENT EXECUTE FUNCTION count_`+table+`()`,
		)
	}
	mintTogether(t, st, group)
	for _, c := range group {
		if !c.made() {
			t.Errorf("change %d: %v", c.n, c.err)
		}
	}
	for _, table := range tables {
		got, err := st.Texts(
			t.Context(),
			0,
			`SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM statements_`+table,
		)
		if err != nil || got[0] != "1" {
			t.Errorf("%s: %s statements, %v; want 1", table, got, err)
		}
	}
	checkMinted(t, st, group)
}

// TestWhatAChangeReadsBesideOthersIsWhatIsThere compares reads that go in a pipeline with those of a view.
func TestWhatAChangeReadsBesideOthersIsWhatIsThere(t *testing.T) {
	t.Parallel()
	st := openURL(t, newSchema(t, dbtest.SharedPostgres(t)), store.Options{Connections: 2})
	now := time.Now().UTC().Truncate(time.Microsecond)
	key, session := tokens.RequestKey{1}, tokens.SessionKey{2}
	must(t, st.Update(t.Context(), func(tx tokens.Tx) ([]tokens.Event, error) {
		hash := tokens.Hash{Key: "k1", Sum: [32]byte{1}}
		err := tx.PutKey(tokens.KeyRecord{Name: "k1", Check: [32]byte{1}, CreateTime: now})
		user, userErr := tx.InsertUser(
			tokens.User{ID: "u", State: tokens.UserActive, Features: []string{"a", "b"}, CreateTime: now},
		)
		return []tokens.Event{
				{Time: now, Actor: "operator", Action: "test", Outcome: tokens.OutcomeSuccess},
			}, errors.Join(
				err,
				userErr,
				tx.InsertToken(
					tokens.Token{ID: 7, UserKey: user, User: "u", Name: "One", Scopes: []string{"a"}, IssueTime: now,
						ExpireTime: now.Add(time.Hour)},
					hash,
				),
				tx.InsertService(
					tokens.ServiceAccount{ID: 8, Name: "portal", Permissions: tokens.PermIntrospect, IssueTime: now,
						ExpireTime: now.Add(time.Hour)},
					hash,
				),
				tx.PutRequest(
					tokens.Request{
						Key:         key,
						Fingerprint: [32]byte{3},
						TokenID:     7,
						Sealed:      []byte("sealed"),
						ExpireTime:  now.Add(time.Hour),
					},
					now,
				),
				tx.InsertFeature(
					tokens.FeatureEntry{
						Name:        "a",
						DisplayName: "A",
						Consent:     tokens.ConsentImplicit,
						Default:     true,
						Published:   true,
					},
				),
				tx.InsertFeature(tokens.FeatureEntry{Name: "b", Consent: tokens.ConsentRequired, Optional: true}),
				tx.InsertAudience(
					tokens.AudienceEntry{ID: "aud", DisplayName: "Aud", AllowNever: true, RequireNamed: true,
						AccessFormat: tokens.AccessOpaque, MaxTTL: time.Hour},
				),
				tx.InsertPageSession(
					session,
					tokens.PageSession{ID: 9, User: "u", Features: []string{"a"}, IssueTime: now, SeenTime: now,
						ExpireTime: now.Add(time.Hour), Hint: []byte("hint")},
				),
			)
	}))
	read := func(tx tokens.ReadTx) (list []any) {
		add := func(v any, err error) { list = append(list, v, fmt.Sprint(err)) }
		u, err := tx.User("u")
		add(u, err)
		live, err := tx.LiveTokens(u.Key, now)
		add(live, err)
		_, err = tx.User("nobody")
		add(nil, err)
		service, err := tx.Service("portal")
		add(service, err)
		request, err := tx.Request(key, now)
		add(request, err)
		features, err := tx.Features(tokens.FeatureQuery{Limit: 10})
		add(features, err)
		audience, err := tx.Audience("aud")
		add(audience, err)
		page, err := tx.PageSession(session)
		add(page, err)
		_, err = tx.PageSession(tokens.SessionKey{99})
		add(nil, err)
		return list
	}
	var viewed, beside, alone []any
	must(t, st.View(t.Context(), func(tx tokens.ReadTx) error { viewed = read(tx); return nil }))
	must(t, st.Update(t.Context(), func(tx tokens.Tx) ([]tokens.Event, error) { beside = read(tx); return nil, nil }))
	must(t, st.Update(t.Context(), func(tx tokens.Tx) ([]tokens.Event, error) {
		_, err := tx.Prefixes() // from here on it is alone
		alone = read(tx)
		return nil, err
	}))
	addresses := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	if diff := cmp.Diff(
		viewed,
		beside,
		addresses,
	); diff != "" ||
		strings.Count(fmt.Sprint(viewed...), "not found") != 2 {
		t.Errorf("beside others (-viewed +read): %s\n%v", diff, viewed)
	}
	if diff := cmp.Diff(viewed, alone, addresses); diff != "" {
		t.Errorf("alone (-viewed +read): %s", diff)
	}
}
