//go:build faults

package main

import (
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// clockFile is the variable that names a file with the nanoseconds by which this
// node's clock is off. Failure tests write it: there is no other way to turn the
// clock of one process that reads the time without a system call.
const clockFile = "CAIRN_FAULT_CLOCK"

// clockOffset returns what says how far the clock is off, nil without clockFile.
// It reads the file every tenth of a second, until the process ends.
func clockOffset(logger *slog.Logger) func() time.Duration {
	file := os.Getenv(clockFile)
	if file == "" {
		return nil
	}
	var offset atomic.Int64
	read := func() {
		text, err := os.ReadFile(file)
		if err != nil {
			return // it is not there before the first jump
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if err == nil && offset.Swap(n) != n { // a file that is being written has no number yet
			logger.Warn("the clock was turned", "by", time.Duration(n))
		}
	}
	read()
	go func() {
		for range time.Tick(100 * time.Millisecond) {
			read()
		}
	}()
	return func() time.Duration { return time.Duration(offset.Load()) }
}
