package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"patd/internal/durable"
)

// lock is the lock of one token file, which stands beside it. The kernel frees it when the process ends, however it
// ends. Its content says which process holds it, and for which secret the hook has run.
type lock struct {
	file *os.File
	note note
}

type note struct {
	PID    int    `json:"pid"`
	Hooked string `json:"hook_has_run_for,omitempty"` // a digest of the secret; empty: none yet
}

// acquire locks a token file, which is the same one by whatever link it is named. shared reports that the file system
// cannot lock.
func acquire(tokenFile string) (l *lock, shared bool, err error) {
	target, err := filepath.EvalSymlinks(tokenFile)
	if err != nil {
		return nil, false, fmt.Errorf("find the token's file: %w", err)
	}
	path := target + ".lock"
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, false, fmt.Errorf(
			"lock the token's file, whose directory must be writable so that a new secret can replace it: %w",
			err,
		)
	}
	l = &lock{file: f}
	switch err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
	case errors.Is(err, syscall.EWOULDBLOCK):
		l.read()
		return nil, false, errors.Join(
			fmt.Errorf("another patd agent, process %d, looks after this file", l.note.PID),
			f.Close(),
		)
	case errors.Is(err, syscall.ENOLCK), errors.Is(err, syscall.ENOTSUP), errors.Is(err, syscall.ENOSYS):
		shared = true
	case err != nil:
		return nil, false, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	l.read()
	l.note.PID = os.Getpid()
	if err := errors.Join(durable.InheritDir(path, filepath.Dir(path)), l.write()); err != nil {
		return nil, false, errors.Join(err, f.Close())
	}
	return l, shared, nil
}

// release frees the lock. The file stays: to remove it could let two processes in.
func (l *lock) release() error { return l.file.Close() }

// read reads the note. One that a killed process left half written counts as none: the hook runs once more then.
func (l *lock) read() {
	text, err := io.ReadAll(io.NewSectionReader(l.file, 0, 4096))
	if err != nil || json.Unmarshal(text, &l.note) != nil {
		l.note = note{Hooked: "unknown"}
	}
	if len(text) == 0 {
		l.note = note{}
	}
}

func (l *lock) write() error {
	text, err := json.Marshal(l.note)
	if err == nil {
		err = l.file.Truncate(0)
	}
	if err == nil {
		_, err = l.file.WriteAt(append(text, '\n'), 0)
	}
	if err == nil {
		err = l.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("write the lock's file: %w", err)
	}
	return nil
}

// fingerprint returns a digest that tells secrets apart and tells nothing about them.
func fingerprint(secret string) string {
	sum := sha256.Sum256([]byte("patd agent\n" + secret))
	return hex.EncodeToString(sum[:16])
}
