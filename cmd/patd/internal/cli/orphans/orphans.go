// Package orphans collects processes that have ended and whose parent is gone. In a container patd may be process 1,
// which inherits them; uncollected they would stay as zombies until the container ends.
package orphans

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
)

// Inherited reports whether orphans come to this process.
func Inherited() bool { return os.Getpid() == 1 }

// Watch collects orphans as they end, until ctx does. It is only for a process that starts no others: it would take the
// results of these too. Where this is not process 1 it returns at once.
func Watch(ctx context.Context) {
	if !Inherited() {
		return
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	defer signal.Stop(ended)
	for {
		Collect()
		select {
		case <-ctx.Done():
			return
		case <-ended:
		}
	}
}

// Collect collects what has ended. A process that starts others calls it when none of them runs.
func Collect() {
	if !Inherited() {
		return
	}
	for {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
	}
}
