// Package systemd is what a service has to do with its supervisor: it says that it is ready, reloads, stops and is
// alive (sd_notify(3)), and takes the sockets that were opened for it (sd_listen_fds(3)). Without a supervisor it does
// nothing. Podman, and other supervisors that speak this protocol, work as well.
package systemd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Getenv reads an environment variable, and reports whether it is set.
type Getenv func(string) (string, bool)

// Notifier tells the supervisor the state of the service. A nil Notifier tells nobody.
type Notifier struct {
	to   *net.UnixAddr
	beat time.Duration
}

// NewNotifier returns the notifier for the supervisor that the environment names; nil: there is none.
func NewNotifier(getenv Getenv) *Notifier {
	if getenv == nil {
		return nil
	}
	name, _ := getenv("NOTIFY_SOCKET")
	if !strings.HasPrefix(name, "/") && !strings.HasPrefix(name, "@") {
		return nil
	}
	// Package net writes an abstract name, which begins with @, as the kernel wants it.
	n := &Notifier{to: &net.UnixAddr{Name: name, Net: "unixgram"}}
	if pid, ok := getenv("WATCHDOG_PID"); ok && pid != strconv.Itoa(os.Getpid()) {
		return n // the watchdog is for another process
	}
	if text, ok := getenv("WATCHDOG_USEC"); ok {
		if usec, err := strconv.ParseInt(
			text,
			10,
			63,
		); err == nil && usec > 0 &&
			usec < int64(24*time.Hour/time.Microsecond) {
			n.beat = time.Duration(usec) * time.Microsecond / 2
		}
	}
	return n
}

// Beat returns how often Alive has to be called: half of what the supervisor waits. 0: it need not be.
func (n *Notifier) Beat() time.Duration {
	if n == nil {
		return 0
	}
	return n.beat
}

// Ready says that the service serves, at the end of a start or a reload.
func (n *Notifier) Ready(status string) error { return n.send("READY=1\nSTATUS=" + oneLine(status)) }

// Reloading says that the service reads its files again. Ready ends it.
func (n *Notifier) Reloading() error {
	if n == nil {
		return nil
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("read the monotonic clock: %w", err)
	}
	// Type=notify-reload wants this time.
	return n.send("RELOADING=1\nMONOTONIC_USEC=" + strconv.FormatInt(now.Nano()/1000, 10) + "\nSTATUS=reloading")
}

// Stopping says that the service ends, and how far it is.
func (n *Notifier) Stopping() error { return n.send("STOPPING=1\nSTATUS=draining") }

// Alive keeps the watchdog from ending the service.
func (n *Notifier) Alive() error { return n.send("WATCHDOG=1") }

// send writes one datagram. It waits at most a second for a supervisor that does not read.
func (n *Notifier) send(state string) error {
	if n == nil {
		return nil
	}
	conn, err := net.DialUnix(n.to.Net, nil, n.to)
	if err == nil {
		err = conn.SetWriteDeadline(time.Now().Add(time.Second))
		if err == nil {
			_, err = conn.Write([]byte(state))
		}
		err = errors.Join(err, conn.Close())
	}
	if err != nil {
		return fmt.Errorf("notify the supervisor: %w", err)
	}
	return nil
}

func oneLine(s string) string { return strings.ReplaceAll(s, "\n", " ") }
