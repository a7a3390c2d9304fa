package features

import (
	"context"
	"crypto/tls"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"syscall"

	"patd/tokens"
)

// defaultMaxFeatures is how many features one user may hold, unless configured. It is far more than a token carries.
const defaultMaxFeatures = 4096

// answered checks the names of a source's answer and returns them sorted, without duplicates. One bad name makes the
// whole answer bad; the error contains its position, not its text.
func answered(names []string) (tokens.Held, error) {
	for i, n := range names {
		if !tokens.ValidScope(n) {
			return tokens.Held{}, fmt.Errorf(
				"feature %d of the answer is not a feature name (RFC 6749 section 3.3, 1 to 128 bytes, not `.` or `..`)",
				i+1,
			)
		}
	}
	out := slices.Clone(names)
	slices.Sort(out)
	return tokens.Held{Features: slices.Compact(out)}, nil
}

// tooMany is the outage of a source that returned more than limit features: truncated, they would look like a whole
// answer.
func tooMany(limit int) error {
	return fmt.Errorf("the answer holds more than %d features for one user", limit)
}

// outage returns the error of a request without a whole answer. If the caller gave up, it is the context's error.
func outage(ctx context.Context, op string, cause error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return tokens.FeaturesUnavailable(op, cause)
}

// loggable returns an error of the network or the file system that can be logged. Others may quote the answer or the
// URL, so only their type is kept.
func loggable(err error) error {
	for _, known := range []error{
		driver.ErrBadConn, sql.ErrConnDone, sql.ErrTxDone, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, context.Canceled,
		context.DeadlineExceeded,
	} {
		if errors.Is(err, known) {
			return fmt.Errorf("the connection broke: %w", known)
		}
	}
	var network *net.OpError
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var file *os.PathError
	var system syscall.Errno
	switch {
	case errors.As(err, &network):
		return network
	case errors.As(err, &certificate):
		return certificate
	case errors.As(err, &record):
		return errors.New("the other side does not speak TLS")
	case errors.As(err, &file):
		return file
	case errors.As(err, &system):
		return system
	}
	return fmt.Errorf("failed with %T, whose text is withheld because it may quote data", err)
}
