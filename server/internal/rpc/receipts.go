package rpc

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	patdv1 "patd/gen/patd/v1"
	"patd/server/internal/call"
	"patd/server/internal/receipt"
	"patd/server/internal/wire"
	"patd/tokens"
)

// waiter is a call that waits, after its change, until that is in effect everywhere.
type waiter struct {
	board *receipt.Board
	wait  *time.Duration // nil: it does not wait
}

// waiterOf reads how long a call is to wait, before it changes anything. A wait has every verifier send a message, so
// users may not ask for it.
func waiterOf(
	ctx context.Context,
	board *receipt.Board,
	r interface{ GetWait() *durationpb.Duration },
) (waiter, error) {
	wait, err := wire.FromDuration("wait", r.GetWait())
	switch {
	case err != nil || wait == nil:
		return waiter{}, err
	case *wait < 0 || *wait > receipt.MaxWait:
		return waiter{}, tokens.Invalid("WAIT_INVALID", "wait", `must be from "0s" to "`+receipt.MaxWait.String()+`"`)
	}
	if k := call.ActorOf(ctx).Kind; k != tokens.ServiceActor && k != tokens.OperatorActor {
		return waiter{}, tokens.Fail(
			tokens.CodeDenied,
			"WAIT_NOT_ALLOWED",
			"only services and operators may wait for a receipt; leave wait out",
		)
	}
	return waiter{board: board, wait: wait}, nil
}

// receipt waits for the receipt of the change that was just made; nil if none was asked for.
func (w waiter) receipt(ctx context.Context) *patdv1.Receipt {
	if w.wait == nil {
		return nil
	}
	r := w.board.Wait(ctx, call.ActorOf(ctx), *w.wait)
	return &patdv1.Receipt{RefusedEverywhere: r.Everywhere, Since: wire.ToTime(r.Since), Silent: r.Silent}
}
