package tokens

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A record of a notice keeps it from being written twice. It is needed while its end may be looked at again: that is
// ahead, or short ago, or before an instant to which a clock was set back. Records of ends of long ago are forgotten,
// and those ends looked at no more: a mark says up to which. It moves by little at a time, so that a clock that was set
// far ahead by mistake, for an hour, forgets nothing that is still needed.

const (
	// noticesKept is how long after an end the records of its notices are kept, at least.
	noticesKept = 90 * Day
	// noticeSweep is at how many passes records are forgotten: about once an hour. sweepStep is how far the mark moves
	// then, at most.
	noticeSweep = 60
	sweepStep   = Day
	// sweepBatch is how many records one transaction forgets.
	sweepBatch = 1000
)

// sweep forgets records of notices of ends of long ago, now and then.
func (p *noticePass) sweep(ctx context.Context) error {
	if (p.notices.passes.Add(1)-1)%p.notices.sweepEach != 0 {
		return nil
	}
	for _, kind := range []NoticeKind{NoticeOfToken, NoticeOfService} {
		var earliest time.Time
		err := p.store.View(ctx, func(tx ReadTx) (err error) {
			earliest, err = tx.EarliestNotice(kind)
			return err
		})
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read the earliest notice: %w", err)
		}
		upTo := earliest.Add(sweepStep)
		if latest := p.now.Add(-noticesKept); p.behind || upTo.After(latest) {
			continue // a part of a step is made with the next
		}
		_, err = inBatches(
			ctx,
			p,
			p.Now().Add(unusedAtOnce),
			func(tx Tx, _ struct{}) (_ struct{}, _ []Event, more bool, err error) {
				m, err := noticeMark(tx, sweepMark)
				if err == nil && m.Time.Before(upTo) {
					err = tx.PutNoticeMark(NoticeMark{Name: sweepMark, Time: upTo})
				}
				if err != nil {
					return struct{}{}, nil, false, err
				}
				n, err := tx.ForgetNotices(kind, upTo, sweepBatch)
				return struct{}{}, nil, n == sweepBatch, err
			},
		)
		if err != nil {
			return fmt.Errorf("forget notices of long ago: %w", err)
		}
	}
	return nil
}
