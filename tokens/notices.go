package tokens

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Notices says of what the audit log has events before it happens.
type Notices struct {
	// Expiry is how long before the end of a token or service there is a token.expiring or service.expiring. Empty:
	// there is none, and no token.expired either.
	Expiry []time.Duration
	// Unused is how long a token is not used before there is a token.unused; 0: there is none.
	Unused time.Duration
	// Idle is how long a token is not used before it is paused; 0: none is. A token.idle announces it, see IdleNotice.
	Idle time.Duration
}

const (
	// MaxExpiryNotices bounds Notices.Expiry.
	MaxExpiryNotices = 16
	// IdleNotice is how long before its pause a token.idle is written; less where Idle is shorter than twice that: half
	// of Idle.
	IdleNotice = 14 * Day

	// maxNoticePeriod is how often what is due is looked for, at least; minNoticePeriod at most.
	maxNoticePeriod, minNoticePeriod = time.Minute, time.Second
	// noticeRetry is how soon that is tried again after a failure.
	noticeRetry = 5 * time.Second
	// noticeBatch is how many notices one transaction writes at most.
	noticeBatch = 100
	// noticeRest is the time between two transactions: so many times what the last one took, from leastNoticeRest to
	// mostNoticeRest. When a million tokens are due at once, as after an upgrade, introspection should hardly notice:
	// the writer takes a tenth of a processor, for about half an hour.
	noticeRest                      = 9
	leastNoticeRest, mostNoticeRest = 10 * time.Millisecond, 250 * time.Millisecond
	// noticeOverlap is how far the index of ends is gone through again, for a change may be committed some time after
	// the instant that it is of, and the clocks of servers differ.
	noticeOverlap = 5 * time.Minute
	// unusedAtOnce is how long a pass goes on looking for tokens that are not used. The rest is left to the next pass,
	// so that the notices of ends are never behind those: after an upgrade there may be millions.
	unusedAtOnce = time.Minute
	// savedAtOnce is of how many tokens the uses are saved at a time, before they are looked at.
	savedAtOnce = 10 * noticeBatch
)

// Check returns what is wrong with the durations, in the words of the command line.
func (n Notices) Check() error {
	if len(n.Expiry) > MaxExpiryNotices {
		return fmt.Errorf("--expiry-notices are %d at most", MaxExpiryNotices)
	}
	for _, d := range n.Expiry {
		if d < time.Second || d > MaxNotice {
			return fmt.Errorf("--expiry-notices must be from 1s to %s each", FormatDuration(MaxNotice))
		}
	}
	for name, d := range map[string]time.Duration{"--unused-notice": n.Unused, "--idle-ttl": n.Idle} {
		if d != 0 && (d < time.Second || d > MaxNotice) {
			return fmt.Errorf("%s must be from 1s to %s, or 0s: never", name, FormatDuration(MaxNotice))
		}
	}
	return nil
}

// MaxNotice is the longest duration in Notices.
const MaxNotice = 3660 * Day

// normal returns the durations before an end, in order and without duplicates.
func (n Notices) normal() Notices {
	n.Expiry = slices.Clone(n.Expiry)
	slices.Sort(n.Expiry)
	n.Expiry = slices.Compact(n.Expiry)
	return n
}

// off reports whether there are no notices at all.
func (n Notices) off() bool { return len(n.Expiry) == 0 && n.Unused == 0 && n.Idle == 0 }

// period is how often what is due is looked for.
func (n Notices) period() time.Duration {
	shortest := time.Duration(math.MaxInt64)
	for _, d := range append([]time.Duration{n.Unused, n.Idle}, n.Expiry...) {
		if d > 0 {
			shortest = min(shortest, d)
		}
	}
	return max(minNoticePeriod, min(maxNoticePeriod, shortest/10))
}

// Notice is what the event of a notice says, in its Detail.
type Notice struct {
	// Threshold is how long before the end, or how long unused; 0: it is about the end itself.
	Threshold time.Duration
	// ExpireTime is the end; zero: never.
	ExpireTime time.Time
	// LastUsedTime is the last use of a token that is not used; zero: it never was.
	LastUsedTime time.Time
	// PauseTime is when a token that is not used is paused, or was; zero: the event is not about that.
	PauseTime time.Time
}

// The words of Detail, each before its value.
const (
	noticeThreshold = "threshold "
	noticeExpire    = "expire_time "
	noticeLastUsed  = "last_used_time "
	noticePause     = "pause_time "
)

// detail writes a notice as NoticeOf reads it.
func (n Notice) detail() string {
	var parts []string
	if n.Threshold > 0 {
		parts = append(parts, noticeThreshold+FormatDuration(n.Threshold))
	}
	for _, one := range []struct {
		word string
		at   time.Time
	}{{noticeExpire, n.ExpireTime}, {noticeLastUsed, n.LastUsedTime}, {noticePause, n.PauseTime}} {
		if !one.at.IsZero() {
			parts = append(parts, one.word+one.at.UTC().Format(time.RFC3339Nano))
		}
	}
	return strings.Join(parts, ", ")
}

// NoticeOf reads what the event of a notice says: token.expiring, token.expired, token.unused, token.idle, token.pause
// and service.expiring. False: the event is another one.
func NoticeOf(e Event) (Notice, bool) {
	switch e.Action {
	case ActionTokenExpiring,
		ActionTokenExpired,
		ActionTokenUnused,
		ActionTokenIdle,
		ActionTokenPause,
		ActionServiceExpiring:
	default:
		return Notice{}, false
	}
	var n Notice
	for part := range strings.SplitSeq(e.Detail, ", ") {
		if text, ok := strings.CutPrefix(part, noticeThreshold); ok {
			n.Threshold, _ = ParseDuration(text)
		}
		for word, at := range map[string]*time.Time{noticeExpire: &n.ExpireTime, noticeLastUsed: &n.LastUsedTime, noticePause: &n.PauseTime} {
			if text, ok := strings.CutPrefix(part, word); ok {
				*at, _ = time.Parse(time.RFC3339Nano, text)
			}
		}
	}
	return n, true
}

// notifier is a Service's part in writing notices.
type notifier struct {
	Notices

	holder string // names this Service among those of the store

	// last is the instant of the last pass, and back the earliest instant of a change since that was before it: the
	// clock was set back, and what the pass has gone through may have come anew.
	last, back atomic.Int64

	passes    atomic.Uint64
	sweepEach uint64 // at each so many passes, from the first on, notices of long ago are forgotten

	written  [len(noticeActions)]atomic.Uint64
	failures atomic.Uint64
}

// noticeActions are the actions that are counted.
var noticeActions = [...]Action{
	ActionTokenExpiring,
	ActionTokenExpired,
	ActionServiceExpiring,
	ActionTokenUnused,
	ActionTokenIdle,
	ActionTokenPause,
}

func (n *notifier) begin(c Notices) {
	var id [8]byte
	_, _ = rand.Read(id[:])
	n.Notices, n.holder = c.normal(), hex.EncodeToString(id[:])
	n.last.Store(math.MinInt64)
	n.sweepEach = noticeSweep
	n.back.Store(never)
}

// noteChange notes the instant of a change.
func (n *notifier) noteChange(now time.Time) {
	if us := now.UnixMicro(); us < n.last.Load() {
		n.goBack(us)
	}
}

func (n *notifier) goBack(us int64) {
	for at := n.back.Load(); us < at && !n.back.CompareAndSwap(at, us); at = n.back.Load() {
	}
}

// count counts events that were written.
func (n *notifier) count(events []Event) {
	for _, e := range events {
		if i := slices.Index(noticeActions[:], e.Action); i >= 0 {
			n.written[i].Add(1)
		}
	}
}

// NoticesWritten calls each with the actions of notices, and how many events of each this Service has written.
func (s *Service) NoticesWritten(each func(a Action, total uint64)) {
	for i, a := range noticeActions {
		each(a, s.notices.written[i].Load())
	}
}

// NoticesFailed counts the passes of RunNotices that failed. What they did not write is tried again.
func (s *Service) NoticesFailed() uint64 { return s.notices.failures.Load() }

// RunNotices writes notices until ctx ends, at least once a minute. Of several servers on one store one does. report,
// which may be nil, gets failures, after which it is tried again within seconds.
func (s *Service) RunNotices(ctx context.Context, report func(error)) {
	if s.notices.off() {
		return
	}
	period := s.notices.period()
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			s.leaveNotices(ctx)
			return
		case <-next.C:
		}
		wait := period
		left, err := s.WriteNotices(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			s.notices.failures.Add(1)
			if wait = min(period, noticeRetry); report != nil {
				report(err)
			}
		case left:
			wait = mostNoticeRest
		}
		next.Reset(wait)
	}
}

// WriteNotices writes the notices that are due, unless another server is at it. It reports whether some of tokens that
// are not used were left to the next call, since they took a minute; those of ends never are.
func (s *Service) WriteNotices(ctx context.Context) (left bool, err error) {
	if s.notices.off() {
		return false, nil
	}
	now := s.Now()
	p := &noticePass{Service: s, now: now, rested: now}
	mine, err := s.leaseNotices(ctx, p.now)
	if err != nil {
		return false, err
	}
	if err = p.begin(ctx, mine); err == nil && mine {
		var late error
		err = p.ends(ctx)
		left, late = p.unused(ctx)
		err = errors.Join(err, late)
	}
	if err == nil && mine && p.back != never {
		err = p.wentBack(ctx) // what was left is known by its marks
	}
	if err == nil && mine && !left {
		err = p.sweep(ctx)
	}
	if err != nil {
		s.notices.goBack(p.back) // what was to be gone through again
	}
	return left, err
}

// noticePass is one search for what is due.
type noticePass struct {
	*Service

	now  time.Time
	back int64 // the earliest instant to which a clock was set back, as notifier.back; never: none was
	told int64 // that of backMark

	behind bool      // the clock is before the pass that last moved a mark
	floor  time.Time // of ends before it nothing is known any more; zero: of all is
	rested time.Time // when the last rest ended, or the pass began
	saved  []ID      // in their order: tokens whose check is due, and whose uses are saved
}

// never is no instant.
const never = math.MaxInt64

// begin finds out whether a clock was set back, which a server that has not the lease only tells the others.
func (p *noticePass) begin(ctx context.Context, mine bool) error {
	var last time.Time
	p.back, p.told = never, never
	err := p.store.View(ctx, func(tx ReadTx) error {
		m, err := noticeMark(tx, lastPass)
		if err != nil {
			return err
		}
		last = m.Time
		if m, err = noticeMark(tx, backMark); err != nil {
			return err
		}
		if p.told = never; m.Note != "" {
			p.told = m.Time.UnixMicro()
		}
		m, err = noticeMark(tx, sweepMark)
		p.floor = m.Time
		return err
	})
	if err != nil {
		return err
	}
	us := p.now.UnixMicro()
	before := p.notices.last.Swap(us) // before back is taken: a change from here on compares with it
	if p.back = p.notices.back.Swap(never); p.now.Before(last) || us < before {
		p.back = min(p.back, us)
	}
	p.behind = p.now.Before(last)
	if mine || p.back == never {
		p.back = min(p.back, p.told)
		return nil
	}
	return p.ledger.carryOn(ctx, func(tx Tx, _ time.Time) ([]Event, error) {
		m, err := noticeMark(tx, backMark)
		if err != nil || m.Note != "" && m.Time.UnixMicro() <= p.back {
			return nil, err
		}
		return nil, tx.PutNoticeMark(NoticeMark{Name: backMark, Time: time.UnixMicro(p.back), Note: "back"})
	})
}

// wentBack forgets what begin was told, once it was gone through again.
func (p *noticePass) wentBack(ctx context.Context) error {
	return p.ledger.carryOn(ctx, func(tx Tx, _ time.Time) ([]Event, error) {
		m, err := noticeMark(tx, backMark)
		if err != nil || m.Note == "" || m.Time.UnixMicro() != p.told {
			return nil, err
		}
		return nil, tx.PutNoticeMark(NoticeMark{Name: backMark, Time: m.Time})
	})
}

// inBatches makes a change in as many transactions as it takes, with a rest after each but the last. write makes one of
// them, from where the one before got to, at first the zero C; it may run again. more is whether another one follows.
// What would take longer than until is left, unless that is zero.
func inBatches[C any](ctx context.Context, p *noticePass, until time.Time,
	write func(tx Tx, from C) (to C, events []Event, more bool, err error),
) (left bool, err error) {
	var from C
	for {
		var to C
		var events []Event
		more := false
		err := p.ledger.carryOn(ctx, func(tx Tx, _ time.Time) (_ []Event, err error) {
			to, events, more, err = write(tx, from)
			return events, err
		})
		if err != nil {
			return false, err
		}
		p.notices.count(events)
		if from = to; !more {
			return false, nil
		}
		if !until.IsZero() && !p.Now().Before(until) {
			return true, nil
		}
		p.rest(ctx)
	}
}

// rest lets others write before the next of many transactions, and keeps the lease. Where ctx has ended the next fails.
func (p *noticePass) rest(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(min(max(noticeRest*p.Now().Sub(p.rested), leastNoticeRest), mostNoticeRest)):
		p.rested = p.Now()
		_, _ = p.leaseNotices(ctx, p.Now())
	}
}

// Names of marks.
const (
	leaseMark = "lease"
	lastPass  = "pass"
	idleWalk  = "idle"
	backMark  = "back"  // with a note: how far back a clock was set
	sweepMark = "sweep" // the records of notices of ends before it were forgotten
)

// noticeMark reads a mark; the zero NoticeMark: there is none.
func noticeMark(tx ReadTx, name string) (NoticeMark, error) {
	m, err := tx.NoticeMark(name)
	if errors.Is(err, ErrNotFound) {
		return NoticeMark{}, nil
	}
	if err != nil {
		return NoticeMark{}, fmt.Errorf("read the mark of notices %s: %w", name, err)
	}
	return m, nil
}

// leaseNotices takes or keeps the lease, which lasts for three periods. It only saves work: that each notice is written
// once does not rest on it. One that ends absurdly late is from before the clock was set back.
func (s *Service) leaseNotices(ctx context.Context, now time.Time) (mine bool, err error) {
	long := 3 * s.notices.period()
	err = s.ledger.carryOn(ctx, func(tx Tx, _ time.Time) ([]Event, error) {
		m, err := noticeMark(tx, leaseMark)
		if err != nil {
			return nil, err
		}
		mine = m.Note == s.notices.holder || !m.Time.After(now) || m.Time.After(now.Add(2*long))
		if !mine || m.Note == s.notices.holder && m.Time.After(now.Add(2*long/3)) && !m.Time.After(now.Add(long)) {
			return nil, nil
		}
		return nil, tx.PutNoticeMark(NoticeMark{Name: leaseMark, Time: now.Add(long), Note: s.notices.holder})
	})
	return mine, err
}

// leaveNotices gives up the lease, if this Service has it, so that another server need not wait for its end.
func (s *Service) leaveNotices(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), noticeRetry)
	defer cancel()
	_ = s.ledger.carryOn(ctx, func(tx Tx, now time.Time) ([]Event, error) {
		m, err := noticeMark(tx, leaseMark)
		if err != nil || m.Note != s.notices.holder {
			return nil, err
		}
		return nil, tx.PutNoticeMark(NoticeMark{Name: leaseMark, Time: now, Note: m.Note})
	})
}
