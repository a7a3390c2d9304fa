// Package logpipe writes log lines in the background, so that a log that is not read can neither block nor end its
// program.
//
// A line that finds the buffer full, or that cannot be written, is dropped and counted. Once writing works again, one
// line says how many were dropped.
package logpipe

import (
	"bytes"
	"io"
	"sync"
	"time"
)

const (
	// maxPending is how many bytes wait to be written, at most; a chunk that is being written comes on top.
	maxPending = 1 << 20
	// closePatience is how long Close waits for an output that takes nothing.
	closePatience = time.Second
	// noticeGap is the least time between two notices of dropped lines.
	noticeGap = time.Second
)

// Writer is an io.Writer that never blocks and never fails. Each Write is one or more whole lines.
type Writer struct {
	out    io.Writer
	notice func(dropped uint64) []byte
	wake   chan struct{} // level trigger: there is something to write, or the end
	done   chan struct{} // closed when all is written

	mu      sync.Mutex
	pending []byte
	total   uint64 // lines dropped since the start
	unsaid  uint64 // of those, those not yet reported by a notice
	closed  bool
}

// New returns a Writer to out. Notice, which may be nil, makes the line that tells of dropped ones.
func New(out io.Writer, notice func(dropped uint64) []byte) *Writer {
	w := &Writer{out: out, notice: notice, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go w.run()
	return w
}

// Write takes p, or drops it if too much is waiting, or after Close.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	if w.closed || len(w.pending)+len(p) > maxPending {
		w.drop(p)
		w.mu.Unlock()
		return len(p), nil
	}
	w.pending = append(w.pending, p...)
	w.mu.Unlock()
	w.signal()
	return len(p), nil
}

// Dropped returns how many lines were dropped since the start.
func (w *Writer) Dropped() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.total
}

// Close writes what waits, and gives up on an output that takes nothing for a second; the goroutine that hangs in its
// write then ends with the process. Later lines are dropped.
func (w *Writer) Close() error {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.signal()
	late := time.NewTimer(closePatience)
	defer late.Stop()
	select {
	case <-w.done:
	case <-late.C:
	}
	return nil
}

func (w *Writer) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// drop counts the lines of p. The caller holds mu.
func (w *Writer) drop(p []byte) {
	n := uint64(max(bytes.Count(p, []byte{'\n'}), 1))
	w.total += n
	w.unsaid += n
}

// run writes until Close. A notice is due before the first chunk after a drop, but not more often than noticeGap: while
// the output is slow, lines are dropped all the time.
func (w *Writer) run() {
	defer close(w.done)
	var chunk []byte
	var noticed time.Time
	broken := false // the output ended within a line
	for range w.wake {
		for {
			w.mu.Lock()
			chunk, w.pending = w.pending, chunk[:0]
			unsaid, closed := w.unsaid, w.closed
			w.mu.Unlock()
			if len(chunk) == 0 && (!closed || unsaid == 0) {
				if closed {
					return
				}
				break
			}
			if unsaid > 0 && w.notice != nil &&
				(closed || time.Since(noticed) >= noticeGap) { //nolint:forbidigo // real time: a log that is not read is nobody's clock
				if line := w.notice(unsaid); w.write(line, &broken) {
					noticed = time.Now() //nolint:forbidigo // as above
					w.mu.Lock()
					w.unsaid -= unsaid
					w.mu.Unlock()
				}
			}
			if len(chunk) == 0 {
				return // closed, and the last notice is written or cannot be
			}
			if !w.write(chunk, &broken) {
				w.mu.Lock()
				w.drop(chunk)
				w.mu.Unlock()
			}
		}
	}
}

// write writes whole lines and reports whether all of p was written. A line that was cut before is ended first.
func (w *Writer) write(p []byte, broken *bool) bool {
	if *broken {
		if _, err := w.out.Write([]byte{'\n'}); err != nil {
			return false
		}
		*broken = false
	}
	n, err := w.out.Write(p)
	*broken = err != nil && n > 0 && p[n-1] != '\n'
	return err == nil
}
