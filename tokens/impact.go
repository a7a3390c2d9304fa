package tokens

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of what FeatureImpact is asked.
const (
	MaxImpactFeatures = 64
	MaxImpactUsers    = 1000

	defaultImpactWithin = 30 * Day
	maxImpactWithin     = 366 * Day
	impactBatch         = 1000 // tokens read at once
	impactTokens        = 10   // tokens named of one user
	impactScans         = 2    // under way at once: each reads many rows
)

// ImpactRequest asks what would happen if users lost features.
type ImpactRequest struct {
	Lose   []string
	Users  []string // who would lose them; empty with All
	All    bool     // every user
	Within time.Duration
	Page   Page
}

// Impact is what the loss of features would do to live tokens. A token counts if it would lose a scope that is in
// effect now. Where another system has the features, a scope counts that was granted: millions of users cannot be asked
// about.
type Impact struct {
	LossCount
	Features []FeatureImpact // in the order of the request
	Largest  []UserImpact    // one page: those with the most tokens first
	Since    time.Time       // uses since then are recent
	// ByScope says that the uses of all tokens were recorded by scope since then. Else those of the tokens from before
	// RecordedSince were not, and each use of them counts.
	ByScope       bool
	RecordedSince time.Time // zero: since before Since
}

// LossCount counts the tokens that would lose something.
type LossCount struct {
	Tokens, Users int64
	Recent        int64 // tokens that were used lately with what they would lose, or may have been
	Unknown       int64 // those of Recent that may have been
}

// FeatureImpact is what the loss of one feature would do.
type FeatureImpact struct {
	Feature string
	LossCount
}

// UserImpact is what the loss would do to one user.
type UserImpact struct {
	User                    string
	Tokens, Recent, Unknown int64
	Features                []string      // sorted
	First                   []TokenImpact // the oldest, up to 10
}

// TokenImpact is what one token would lose.
type TokenImpact struct {
	ID       ID
	Name     string
	Features []string // sorted
	Recent   bool
	Unknown  bool // Recent since it may have been used with what it would lose
	LastUsed Use
}

// GrantedQuery selects the live tokens, neither revoked nor expired at Now, that were granted one of some scopes, in
// the order of their users' keys and of their ids.
type GrantedQuery struct {
	Scopes []string // at most MaxImpactFeatures; none: every live token
	User   int64    // 0: every user's
	Now    time.Time
	// AfterUser and AfterID are the last token of the batch before; 0: from the start.
	AfterUser int64
	AfterID   ID
	Limit     int
}

// FeatureImpact says what would happen if users lost features, and changes nothing. It reads one snapshot, holds little
// of it at once, and ends with ctx. Two of them run at once; others wait.
//
// Reasons: SCOPES_REQUIRED, SCOPE_INVALID, TOO_MANY_FEATURES, USERS_REQUIRED, TOO_MANY_USERS, USER_INVALID,
// DURATION_OUT_OF_RANGE.
func (s *Service) FeatureImpact(ctx context.Context, a Actor, r ImpactRequest) (Impact, string, error) {
	if err := s.manager(a); err != nil {
		return Impact{}, "", err
	}
	lose, err := r.check()
	if err != nil {
		return Impact{}, "", err
	}
	list := lister{
		keys:  s.keys.Get(),
		query: framed("impact", framed(lose...), framed(r.Users...), strconv.FormatBool(r.All), r.Within.String()),
	}
	after, limit, err := list.page(r.Page)
	if err != nil {
		return Impact{}, "", err
	}
	w := impact{Service: s, lose: lose, limit: limit, now: s.Now()}
	w.out.Since = w.now.Add(-r.Within)
	if w.after, err = parseRank(after); err != nil {
		return Impact{}, "", err
	}
	if err := s.saveUses(ctx, nil); err != nil {
		return Impact{}, "", err
	}
	done, err := s.scan(ctx)
	if err != nil {
		return Impact{}, "", err
	}
	defer done()
	err = s.store.View(ctx, func(tx ReadTx) error { return w.read(ctx, tx, r) })
	if err != nil {
		return Impact{}, "", err
	}
	return w.result(list, r.Lose)
}

// check completes a request, and returns its features, sorted.
func (r *ImpactRequest) check() ([]string, error) {
	var c checker
	lose := c.storedScopes("lose", "TOO_MANY_FEATURES", r.Lose, MaxImpactFeatures)
	if len(lose) == 0 {
		c.add("lose", "SCOPES_REQUIRED", "name the features that would be lost")
	}
	switch {
	case r.All == (len(r.Users) > 0):
		c.add("users", "USERS_REQUIRED", "name the users, or say all; not both")
	case len(r.Users) > MaxImpactUsers:
		c.add("users", "TOO_MANY_USERS", fmt.Sprintf("at most %d; or say all", MaxImpactUsers))
	default:
		for _, u := range r.Users {
			if c.user(u); len(c.found) > 0 {
				break
			}
		}
	}
	if r.Within == 0 {
		r.Within = defaultImpactWithin
	}
	if r.Within < time.Second || r.Within > maxImpactWithin {
		c.add("used_within", "DURATION_OUT_OF_RANGE", "must be from 1s to "+FormatDuration(maxImpactWithin))
	}
	return lose, c.err()
}

// impact is an impact in the making.
type impact struct {
	*Service
	lose  []string // sorted
	limit int
	now   time.Time
	after rank

	out      Impact
	features map[string]*FeatureImpact
	user     UserImpact // whose tokens are being read
	key      int64      // its key; 0: none
	held     Held       // what it holds
	largest  largest
	more     bool // there are users beyond those in largest

	began time.Time // since when uses are recorded by scope; zero: since ever
	uses  map[ID]ScopeUses
}

// read reads all tokens that would lose something.
func (w *impact) read(ctx context.Context, tx ReadTx, r ImpactRequest) error {
	since := w.out.Since
	*w = impact{
		Service:  w.Service,
		lose:     w.lose,
		limit:    w.limit,
		now:      w.now,
		after:    w.after,
		features: map[string]*FeatureImpact{},
	} // View may run it again
	w.out.Since, w.out.ByScope = since, true
	var err error
	if w.began, err = tx.UsesSince(); err != nil {
		return fmt.Errorf("read since when uses are recorded: %w", err)
	}
	if w.began.After(since) {
		w.out.RecordedSince = w.began
	}
	for _, name := range w.lose {
		w.features[name] = &FeatureImpact{Feature: name}
	}
	q := GrantedQuery{Scopes: w.lose, Now: w.now, Limit: impactBatch}
	if r.All {
		return w.readAll(ctx, tx, q)
	}
	for _, user := range set(r.Users) {
		u, err := tx.User(user)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if toEnd(err) != nil {
			return fmt.Errorf("read user: %w", err)
		}
		q.User = u.Key
		if err := w.readAll(ctx, tx, q); err != nil {
			return err
		}
	}
	return nil
}

// readAll reads the tokens of a query, batch after batch.
func (w *impact) readAll(ctx context.Context, tx ReadTx, q GrantedQuery) error {
	for {
		batch, err := tx.Granted(q)
		if err != nil {
			return fmt.Errorf("read the tokens that were granted a feature: %w", err)
		}
		if err := w.readUses(tx, batch); err != nil {
			return err
		}
		for i := range batch {
			if err := w.count(ctx, tx, &batch[i]); err != nil {
				return err
			}
		}
		if len(batch) < q.Limit {
			w.finish()
			return nil
		}
		last := batch[len(batch)-1]
		q.AfterUser, q.AfterID = last.UserKey, last.ID
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("count what would be lost: %w", err)
		}
	}
}

// count adds a token.
func (w *impact) count(ctx context.Context, tx ReadTx, t *Token) error {
	if t.UserKey != w.key {
		w.finish()
		w.key, w.user = t.UserKey, UserImpact{User: t.User}
		w.held = Held{AsGranted: true}
		if w.Service.features.Local() {
			u, err := tx.User(t.User)
			if toEnd(err) != nil {
				return fmt.Errorf("read user: %w", err)
			}
			if w.held, err = w.Service.features.Features(ctx, u, false); err != nil {
				return err
			}
		}
	}
	effective, _ := inEffect(t.Scopes, w.held)
	lost, _ := Effective(w.lose, effective)
	if len(lost) == 0 {
		return nil
	}
	uses := w.usesOf(t)
	w.out.Tokens++
	w.user.Tokens++
	recent, known := false, false
	for _, name := range lost {
		f := w.features[name]
		f.Tokens++
		was, may := uses.with(name)
		if recent, known = recent || may, known || was; may {
			f.Recent++
		}
		if may && !was {
			f.Unknown++
		}
		if at, known := slices.BinarySearch(w.user.Features, name); !known {
			w.user.Features = slices.Insert(w.user.Features, at, name)
			f.Users++
		}
	}
	if recent {
		w.out.Recent++
		w.user.Recent++
	}
	if recent && !known {
		w.out.Unknown++
		w.user.Unknown++
	}
	if len(w.user.First) < impactTokens {
		w.user.First = append(w.user.First, TokenImpact{
			ID: t.ID, Name: t.Name, Features: lost, Recent: recent, Unknown: recent && !known, LastUsed: t.LastUsed,
		})
	}
	return nil
}

// finish keeps the user whose tokens were read, if it is one of the largest of the page.
func (w *impact) finish() {
	u := w.user
	w.user, w.key = UserImpact{}, 0
	if u.Tokens == 0 {
		return
	}
	w.out.Users++
	if w.after.tokens != 0 && !rankOf(u).follows(w.after) {
		return
	}
	heap.Push(&w.largest, u)
	if len(w.largest) > w.limit {
		heap.Pop(&w.largest)
		w.more = true
	}
}

// result returns the impact, and the token of the next page.
func (w *impact) result(list lister, order []string) (Impact, string, error) {
	w.out.Features = []FeatureImpact{}
	for _, name := range order {
		if f := w.features[name]; f != nil {
			w.out.Features = append(w.out.Features, *f)
			delete(w.features, name) // it was named twice
		}
	}
	w.out.Largest = slices.SortedFunc(slices.Values(w.largest), func(a, b UserImpact) int {
		if rankOf(b).follows(rankOf(a)) {
			return -1
		}
		return 1
	})
	next := ""
	if w.more {
		next = list.next(rankOf(w.out.Largest[len(w.out.Largest)-1]).String())
	}
	return w.out, next, nil
}

// rank is the place of a user among the largest: those with more tokens come first, and then those with a lower id.
type rank struct {
	tokens int64 // 0: before all
	user   string
}

func rankOf(u UserImpact) rank { return rank{u.Tokens, u.User} }

// follows reports whether r comes after another place.
func (r rank) follows(other rank) bool {
	if r.tokens != other.tokens {
		return r.tokens < other.tokens
	}
	return r.user > other.user
}

func (r rank) String() string { return strconv.FormatInt(r.tokens, 10) + "." + r.user }

func parseRank(text string) (rank, error) {
	if text == "" {
		return rank{}, nil
	}
	n, user, _ := strings.Cut(text, ".")
	tokens, err := strconv.ParseInt(n, 10, 64)
	if err != nil || tokens < 1 {
		return rank{}, errPageToken
	}
	return rank{tokens, user}, nil
}

// largest is a heap whose first user is the one that a larger one displaces.
type largest []UserImpact

// Len implements heap.Interface.
func (l largest) Len() int { return len(l) }

// Less implements heap.Interface.
func (l largest) Less(i, j int) bool { return rankOf(l[i]).follows(rankOf(l[j])) }

// Swap implements heap.Interface.
func (l largest) Swap(i, j int) { l[i], l[j] = l[j], l[i] }

// Push implements heap.Interface.
func (l *largest) Push(u any) {
	if of, ok := u.(UserImpact); ok {
		*l = append(*l, of)
	}
}

// Pop implements heap.Interface.
func (l *largest) Pop() any {
	last := (*l)[len(*l)-1]
	*l = (*l)[:len(*l)-1]
	return last
}
