package storetest

import (
	"context"
	"errors"
	"maps"
	"sync"

	"patd/tokens"
)

// Op names an operation of a store: a method of tokens.Store or, inside View and Update, one of the transaction.
type Op string

// The operations of a store. Those inside a transaction are named as their methods: "Token", "InsertToken" and so on.
const (
	OpLookup        Op = "Lookup"
	OpLookupService Op = "LookupService"
	OpLookupAccess  Op = "LookupAccess"
	OpView          Op = "View"
	OpUpdate        Op = "Update"
	OpCommit        Op = "Commit" // after the closure of an Update, before its effect
	OpReady         Op = "Ready"
	OpRecordVisit   Op = "RecordVisit"
)

// Faulty is a store that fails on demand. Without faults it behaves as the store it wraps.
type Faulty struct {
	st tokens.Store

	mu    sync.Mutex
	all   error
	ops   map[Op]error
	hang  map[Op]bool
	hold  map[Op]*Held
	calls map[Op]int
}

var _ tokens.Store = (*Faulty)(nil)

// NewFaulty wraps a store, without faults.
func NewFaulty(st tokens.Store) *Faulty {
	return &Faulty{st: st, ops: map[Op]error{}, hang: map[Op]bool{}, hold: map[Op]*Held{}, calls: map[Op]int{}}
}

// Outage is the error of a store that does not answer: what a real one returns.
func Outage() error {
	return tokens.StoreUnavailable("injected fault", errors.New("injected outage"))
}

// Full is the error of a store whose disk is full.
func Full() error {
	return tokens.DiskFull("injected fault", errors.New("injected: no space left"))
}

// Fail makes every operation fail with err from now on; nil ends all faults and waits.
func (f *Faulty) Fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = err
	if err == nil {
		clear(f.ops)
		clear(f.hang)
	}
}

// FailOp makes one operation fail with err from now on; nil ends that.
func (f *Faulty) FailOp(op Op, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		delete(f.ops, op)
		return
	}
	f.ops[op] = err
}

// Hang makes one operation wait until its context ends, and answer that. Fail(nil) ends it for later calls.
func (f *Faulty) Hang(op Op) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hang[op] = true
}

// Held is an operation that was stopped between its reading and its return.
type Held struct {
	// Reached is closed when it is there.
	Reached <-chan struct{}

	reached, released chan struct{}
	once              sync.Once
}

// Release lets it return.
func (h *Held) Release() { h.once.Do(func() { close(h.released) }) }

// Hold makes the next call of an operation that looks up stop after it has read, until it is released: what it answers
// then may no longer be so.
func (f *Faulty) Hold(op Op) *Held {
	h := &Held{reached: make(chan struct{}), released: make(chan struct{})}
	h.Reached = h.reached
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hold[op] = h
	return h
}

// held stops an operation that is to be held.
func (f *Faulty) held(op Op) {
	f.mu.Lock()
	h := f.hold[op]
	delete(f.hold, op)
	f.mu.Unlock()
	if h != nil {
		close(h.reached)
		<-h.released
	}
}

// Calls counts the calls of each operation so far, failed ones too.
func (f *Faulty) Calls() map[Op]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.calls)
}

// at is the fault of an operation, if it has one now.
func (f *Faulty) at(ctx context.Context, op Op) error {
	f.mu.Lock()
	f.calls[op]++
	err, hang := f.ops[op], f.hang[op]
	if err == nil {
		err = f.all
	}
	f.mu.Unlock()
	if hang {
		<-ctx.Done()
		return ctx.Err()
	}
	return err
}

// Lookup implements tokens.Store.
func (f *Faulty) Lookup(ctx context.Context, id tokens.ID) (tokens.Credential, error) {
	if err := f.at(ctx, OpLookup); err != nil {
		return tokens.Credential{}, err
	}
	defer f.held(OpLookup)
	return f.st.Lookup(ctx, id)
}

// LookupService implements tokens.Store.
func (f *Faulty) LookupService(ctx context.Context, id tokens.ID) (tokens.ServiceCredential, error) {
	if err := f.at(ctx, OpLookupService); err != nil {
		return tokens.ServiceCredential{}, err
	}
	defer f.held(OpLookupService)
	return f.st.LookupService(ctx, id)
}

// LookupAccess implements tokens.Store.
func (f *Faulty) LookupAccess(ctx context.Context, id tokens.ID) (tokens.AccessCredential, error) {
	if err := f.at(ctx, OpLookupAccess); err != nil {
		return tokens.AccessCredential{}, err
	}
	defer f.held(OpLookupAccess)
	return f.st.LookupAccess(ctx, id)
}

// View implements tokens.Store.
func (f *Faulty) View(ctx context.Context, fn func(tokens.ReadTx) error) error {
	if err := f.at(ctx, OpView); err != nil {
		return err
	}
	return f.st.View(ctx, func(tx tokens.ReadTx) error {
		var injected error
		if err := fn(&faultyRead{ctx: ctx, f: f, r: tx, injected: &injected}); err != nil {
			return err
		}
		return injected // not nil when the closure did not answer what a method did
	})
}

// Update implements tokens.Store.
func (f *Faulty) Update(ctx context.Context, fn func(tokens.Tx) ([]tokens.Event, error)) error {
	if err := f.at(ctx, OpUpdate); err != nil {
		return err
	}
	return f.st.Update(ctx, func(tx tokens.Tx) ([]tokens.Event, error) {
		var injected error
		events, err := fn(&faultyTx{faultyRead: faultyRead{ctx: ctx, f: f, r: tx, injected: &injected}, w: tx})
		if err != nil {
			return nil, err
		}
		if injected != nil {
			return nil, injected // as a store does: a transaction with a failed statement does not commit
		}
		if err := f.at(ctx, OpCommit); err != nil {
			return nil, err
		}
		return events, nil
	})
}

// RecordUse implements tokens.Store. It cannot fail.
func (f *Faulty) RecordUse(s tokens.Usage) { f.st.RecordUse(s) }

// FlushUses implements tokens.UseFlusher, where the store does.
func (f *Faulty) FlushUses(ctx context.Context, of []tokens.ID) error {
	if st, ok := f.st.(tokens.UseFlusher); ok {
		return st.FlushUses(ctx, of)
	}
	return nil
}

// RecordVisit implements tokens.Store.
func (f *Faulty) RecordVisit(ctx context.Context, key tokens.SessionKey, v tokens.Visit) error {
	if err := f.at(ctx, OpRecordVisit); err != nil {
		return err
	}
	return f.st.RecordVisit(ctx, key, v)
}

// Flush writes recorded uses, when the wrapped store can.
func (f *Faulty) Flush(ctx context.Context) error {
	if s, ok := f.st.(Flusher); ok {
		return s.Flush(ctx)
	}
	return nil
}

// Ready asks the wrapped store, when it can tell.
func (f *Faulty) Ready(ctx context.Context) error {
	if err := f.at(ctx, OpReady); err != nil {
		return err
	}
	if s, ok := f.st.(interface{ Ready(context.Context) error }); ok {
		return s.Ready(ctx)
	}
	return nil
}
