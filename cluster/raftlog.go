package cluster

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// raftLogger passes what Raft logs on to a slog.Logger. Raft's levels are kept,
// but for what it calls an error and handles by trying again: nothing that Raft
// survives is worth waking an operator, so errors become warnings.
type raftLogger struct {
	to      *slog.Logger
	name    string
	implied []any
}

var _ hclog.Logger = (*raftLogger)(nil)

func newRaftLogger(to *slog.Logger, name string) *raftLogger {
	return &raftLogger{to: to.With("component", name), name: name}
}

func (l *raftLogger) log(level slog.Level, msg string, args []any) {
	if !l.to.Enabled(context.Background(), level) {
		return
	}
	for i, a := range args {
		if f, ok := a.(hclog.Format); ok && len(f) > 0 {
			if format, ok := f[0].(string); ok {
				args[i] = lazyFormat{format, f[1:]}
			}
		}
	}
	l.to.Log(context.Background(), level, msg, args...)
}

// Log logs at one of hclog's levels.
func (l *raftLogger) Log(level hclog.Level, msg string, args ...any) {
	l.log(slogLevel(level), msg, args)
}

// Trace is dropped to below debug.
func (l *raftLogger) Trace(msg string, args ...any) { l.log(slog.LevelDebug-4, msg, args) }

// Debug logs at debug.
func (l *raftLogger) Debug(msg string, args ...any) { l.log(slog.LevelDebug, msg, args) }

// Info logs at info.
func (l *raftLogger) Info(msg string, args ...any) { l.log(slog.LevelInfo, msg, args) }

// Warn logs at warn.
func (l *raftLogger) Warn(msg string, args ...any) { l.log(slog.LevelWarn, msg, args) }

// Error logs at warn: see raftLogger.
func (l *raftLogger) Error(msg string, args ...any) { l.log(slog.LevelWarn, msg, args) }

// IsTrace reports whether trace is logged; likewise the next four.
func (l *raftLogger) IsTrace() bool { return l.enabled(slog.LevelDebug - 4) }

// IsDebug reports whether debug is logged.
func (l *raftLogger) IsDebug() bool { return l.enabled(slog.LevelDebug) }

// IsInfo reports whether info is logged.
func (l *raftLogger) IsInfo() bool { return l.enabled(slog.LevelInfo) }

// IsWarn reports whether warn is logged.
func (l *raftLogger) IsWarn() bool { return l.enabled(slog.LevelWarn) }

// IsError reports whether errors are logged.
func (l *raftLogger) IsError() bool { return l.enabled(slog.LevelWarn) }

func (l *raftLogger) enabled(level slog.Level) bool { return l.to.Enabled(context.Background(), level) }

// ImpliedArgs returns what With added.
func (l *raftLogger) ImpliedArgs() []any { return l.implied }

// With returns a logger that adds the same to every line.
func (l *raftLogger) With(args ...any) hclog.Logger {
	return &raftLogger{to: l.to.With(args...), name: l.name, implied: append(l.implied[:len(l.implied):len(l.implied)], args...)}
}

// Name returns the logger's name.
func (l *raftLogger) Name() string { return l.name }

// Named returns l: slog has no names, and the component is on every line.
func (l *raftLogger) Named(string) hclog.Logger { return l }

// ResetNamed returns l.
func (l *raftLogger) ResetNamed(string) hclog.Logger { return l }

// SetLevel does nothing: the handler of the slog.Logger decides.
func (l *raftLogger) SetLevel(hclog.Level) {}

// GetLevel returns the lowest level that is logged.
func (l *raftLogger) GetLevel() hclog.Level {
	for _, level := range []hclog.Level{hclog.Trace, hclog.Debug, hclog.Info, hclog.Warn} {
		if l.enabled(slogLevel(level)) {
			return level
		}
	}
	return hclog.Off
}

// StandardLogger returns a logger that goes nowhere; nothing here uses it.
func (l *raftLogger) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return log.New(io.Discard, "", 0)
}

// StandardWriter returns a writer that goes nowhere; nothing here uses it.
func (l *raftLogger) StandardWriter(*hclog.StandardLoggerOptions) io.Writer { return io.Discard }

func slogLevel(level hclog.Level) slog.Level {
	switch level {
	case hclog.Trace:
		return slog.LevelDebug - 4
	case hclog.Debug:
		return slog.LevelDebug
	case hclog.Warn, hclog.Error:
		return slog.LevelWarn
	default:
		return slog.LevelInfo
	}
}

// lazyFormat formats a value of hclog.Fmt when it is written.
type lazyFormat struct {
	format string
	args   []any
}

// LogValue implements slog.LogValuer.
func (f lazyFormat) LogValue() slog.Value { return slog.StringValue(fmt.Sprintf(f.format, f.args...)) }
