package client

import (
	"context"
	"time"

	patdv1 "patd/gen/patd/v1"
)

// acknowledgeTimeout bounds one call. It is longer than patd waits for it.
const acknowledgeTimeout = 5 * time.Second

// acknowledger tells patd what was applied, where patd asks for it, so that a call which revokes can return early. A
// failure is ignored: patd then waits until this memory would be closed by its own rule. The watch never waits for it.
type acknowledger struct {
	rpc    patdv1.IntrospectionServiceClient
	newest chan *patdv1.AcknowledgeInvalidationsRequest // has one place; a later position includes an earlier one
}

func newAcknowledger(rpc patdv1.IntrospectionServiceClient) *acknowledger {
	return &acknowledger{rpc: rpc, newest: make(chan *patdv1.AcknowledgeInvalidationsRequest, 1)}
}

// applied records that everything up to a position of a watch has been applied. Only the watcher calls it.
func (a *acknowledger) applied(watch string, sequence uint64) {
	select {
	case <-a.newest:
	default:
	}
	a.newest <- &patdv1.AcknowledgeInvalidationsRequest{WatchId: watch, Sequence: sequence}
}

// run sends what was recorded, until ctx ends.
func (a *acknowledger) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-a.newest:
			call, cancel := context.WithTimeout(ctx, acknowledgeTimeout)
			_, _ = a.rpc.AcknowledgeInvalidations(call, r)
			cancel()
		}
	}
}
