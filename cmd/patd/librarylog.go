package main

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"google.golang.org/grpc/grpclog"

	"patd/cmd/patd/internal/cli"
)

// libraryLog receives the lines that libraries log by themselves: gRPC and all that use the package log. Otherwise they
// would write to stderr, between the log's lines and in another form. Without a log it drops them.
type libraryLog struct{ log atomic.Pointer[slog.Logger] }

var _ grpclog.LoggerV2 = (*libraryLog)(nil)

// install makes it the log of the libraries. It must be called before anything else runs.
func (l *libraryLog) install() {
	grpclog.SetLoggerV2(l)
	log.SetFlags(0)
	log.SetOutput(l)
	otel.SetErrorHandler(&telemetryFaults{log: l})
	otel.SetLogger(logr.Discard()) // it repeats values of variables that it cannot read
}

func (l *libraryLog) to(log *slog.Logger) { l.log.Store(log) }

// say logs a line. It redacts secrets, which libraries do not know of.
func (l *libraryLog) say(level slog.Level, text string) {
	if log := l.log.Load(); log != nil {
		log.LogAttrs(context.Background(), level, "library", slog.String("text", cli.Redact(strings.TrimSpace(text))))
	}
}

// Write logs a line of the package log.
func (l *libraryLog) Write(p []byte) (int, error) {
	l.say(slog.LevelDebug, string(p))
	return len(p), nil
}

// Info, Warning and the like are for debugging.
func (l *libraryLog) Info(args ...any)   { l.say(slog.LevelDebug, fmt.Sprint(args...)) }
func (l *libraryLog) Infoln(args ...any) { l.say(slog.LevelDebug, fmt.Sprintln(args...)) }
func (l *libraryLog) Infof(format string, args ...any) {
	l.say(slog.LevelDebug, fmt.Sprintf(format, args...))
}
func (l *libraryLog) Warning(args ...any)   { l.say(slog.LevelDebug, fmt.Sprint(args...)) }
func (l *libraryLog) Warningln(args ...any) { l.say(slog.LevelDebug, fmt.Sprintln(args...)) }
func (l *libraryLog) Warningf(format string, args ...any) {
	l.say(slog.LevelDebug, fmt.Sprintf(format, args...))
}

// Error and the like are warnings: the failed call returns its error too.
func (l *libraryLog) Error(args ...any)   { l.say(slog.LevelWarn, fmt.Sprint(args...)) }
func (l *libraryLog) Errorln(args ...any) { l.say(slog.LevelWarn, fmt.Sprintln(args...)) }
func (l *libraryLog) Errorf(format string, args ...any) {
	l.say(slog.LevelWarn, fmt.Sprintf(format, args...))
}

// Fatal and the like end the process, as gRPC requires.
func (l *libraryLog) Fatal(args ...any)                 { l.fatal(fmt.Sprint(args...)) }
func (l *libraryLog) Fatalln(args ...any)               { l.fatal(fmt.Sprintln(args...)) }
func (l *libraryLog) Fatalf(format string, args ...any) { l.fatal(fmt.Sprintf(format, args...)) }

func (l *libraryLog) fatal(text string) {
	l.say(slog.LevelError, text)
	os.Exit(cli.ExitFault) //nolint:forbidigo // it is for the one who calls it, a library, to decide that
}

// V reports whether details are wanted: only the first level, and only while debugging.
func (l *libraryLog) V(level int) bool {
	log := l.log.Load()
	return level <= 0 && log != nil && log.Enabled(context.Background(), slog.LevelDebug)
}
