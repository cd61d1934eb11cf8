package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

// serve runs a node until the first SIGTERM or SIGINT, or the end of ctx, and
// stops it cleanly. A second signal ends the process at once.
func serve(ctx context.Context, c *Config, stderr io.Writer) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	logger := newLogger(c, stderr)
	defer onSignal(logger, stop)()
	n, err := start(ctx, c, logger, fatal(stderr, c))
	switch {
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		logger.Info("stopped before it was up")
		return nil
	case err != nil:
		return explain(err, c)
	}
	logger.Info("node is up", "id", n.ID(), "http", c.HTTPURL(),
		"raft", cmp.Or(c.AdvertiseRaft, c.Raft), "gossip", cmp.Or(c.AdvertiseGossip, c.Gossip))
	<-ctx.Done()
	logger.Info("stopping", "hint", "a second signal ends the process at once")
	if err := n.Stop(); err != nil {
		return explain(fmt.Errorf("stop: %w", err), c)
	}
	logger.Info("stopped")
	return nil
}

// onSignal calls stop at the first signal and ends the process at the second.
// The function it returns gives the signals back.
func onSignal(logger *slog.Logger, stop func()) (release func()) {
	signals, done := make(chan os.Signal, 2), make(chan struct{})
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		defer close(done)
		for first := true; ; first = false {
			s, more := <-signals
			switch {
			case !more:
				return
			case first:
				stop()
			default:
				logger.Warn("ended by a second signal", "signal", s.String())
				os.Exit(1)
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(signals)
		<-done
	}
}

func newLogger(c *Config, w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
