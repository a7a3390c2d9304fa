package remote

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"
	"google.golang.org/protobuf/proto"

	"patd/cmd/patd/internal/cli"
)

// bulk are the flags of commands that change many tokens once their number is confirmed.
type bulk struct {
	confirm int64 // negative: not given
	asJSON  bool
}

func (b *bulk) addTo(flags *pflag.FlagSet, confirm string) {
	flags.Int64Var(&b.confirm, "confirm", -1, confirm)
	flags.BoolVar(&b.asJSON, "json", false, "print JSON")
}

// bulkAnswer is an answer to a request to change many tokens.
type bulkAnswer interface {
	proto.Message

	GetCount() int64
	GetPlan() string
	GetDone() bool
}

// bulkChange is such a change.
type bulkChange[A bulkAnswer] struct {
	dryRun  func(context.Context) (A, error)
	step    func(ctx context.Context, plan string) (A, error)
	would   func(A) error  // prints what confirmation would do
	changed string         // of how many there are now, and how many were confirmed
	did     func(A) string // how far a step came, of the number confirmed
	done    func(A) string
}

// runBulk counts the tokens, and changes them if their number is the confirmed one. A server changes some in each step.
func runBulk[A bulkAnswer](ctx context.Context, c *cli.Command, b bulk, change bulkChange[A]) error {
	answer, err := change.dryRun(ctx)
	if err != nil {
		return err
	}
	n := answer.GetCount()
	switch {
	case b.confirm < 0 && b.asJSON:
		return c.Message(answer)
	case b.confirm < 0:
		return change.would(answer)
	case b.confirm != n:
		return fmt.Errorf(change.changed+"; nothing was changed", n, b.confirm)
	}
	for plan := answer.GetPlan(); !answer.GetDone(); {
		if answer, err = change.step(ctx, plan); err != nil {
			return err
		}
		if !answer.GetDone() {
			fmt.Fprintln(c.Stderr, "patd: "+change.did(answer))
		}
	}
	if b.asJSON {
		return c.Message(answer)
	}
	_, err = fmt.Fprintln(c.Stdout, change.done(answer))
	return err
}
