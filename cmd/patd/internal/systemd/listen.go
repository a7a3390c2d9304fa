package systemd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// firstDescriptor is SD_LISTEN_FDS_START.
const firstDescriptor = 3

// maxSockets bounds how many descriptors a supervisor may pass.
const maxSockets = 64

// Listeners returns the listening sockets that the supervisor opened for this process, by the names that it gave them
// (FileDescriptorName= of a socket unit). Each name of the wanted ones may stand once; another name, or a socket that
// does not listen for TCP, is an error. Without such sockets the map is empty. It is called once: the descriptors
// belong to the listeners.
func Listeners(getenv Getenv, wanted ...string) (map[string]net.Listener, error) {
	if getenv == nil {
		return nil, nil //nolint:nilnil // an empty map
	}
	if pid, _ := getenv("LISTEN_PID"); pid != strconv.Itoa(os.Getpid()) {
		return nil, nil //nolint:nilnil // the sockets are for another process, such as our parent
	}
	text, _ := getenv("LISTEN_FDS")
	count, err := strconv.Atoi(text)
	if err != nil || count < 0 || count > maxSockets {
		return nil, errors.New("take the supervisor's sockets: LISTEN_FDS is not a number of sockets")
	}
	list, _ := getenv("LISTEN_FDNAMES")
	names := strings.Split(list, ":")
	taken := map[string]net.Listener{}
	for i := range count {
		name := ""
		if i < len(names) {
			name = names[i]
		}
		lis, err := listener(firstDescriptor+i, name)
		if err == nil && (!slices.Contains(wanted, name) || taken[name] != nil) {
			err = errors.Join(
				fmt.Errorf(
					"take the supervisor's sockets: one is named %q; name each one differently with FileDescriptorName=: %s",
					name,
					strings.Join(wanted, ", "),
				),
				lis.Close(),
			)
		}
		if err != nil {
			for _, other := range taken {
				_ = other.Close() // nothing was accepted
			}
			return nil, err
		}
		taken[name] = lis
	}
	return taken, nil
}

// listener makes a listener of a descriptor, which it takes.
func listener(fd int, name string) (net.Listener, error) {
	unix.CloseOnExec(fd)
	file := os.NewFile(uintptr(fd), name)
	defer file.Close() // FileListener has its own copy
	lis, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("take the supervisor's socket %q: %w", name, err)
	}
	if _, ok := lis.(*net.TCPListener); !ok {
		return nil, errors.Join(
			fmt.Errorf("take the supervisor's socket %q: it is not a stream socket of TCP", name),
			lis.Close(),
		)
	}
	return lis, nil
}
