package cluster

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
)

// errEnded is what every write and every entry gets after a fatal error.
var errEnded = errors.New("this node has met a fatal error and ends")

// fatal is the one way by which a node gives up. After the first fail nothing
// is stored or applied any more, whether or not the process has ended yet.
type fatal struct {
	onFatal func(error)
	logger  *slog.Logger
	once    sync.Once
	ended   atomic.Bool
}

func newFatal(onFatal func(error), logger *slog.Logger) *fatal {
	return &fatal{onFatal: onFatal, logger: logger}
}

// fail reports an error that this node must not live on with. Only the first
// one is passed on. It returns err.
func (f *fatal) fail(err error) error {
	f.once.Do(func() {
		f.ended.Store(true)
		f.logger.Error("fatal error", "error", err)
		f.onFatal(err)
	})
	return err
}

// check returns errEnded after the first fail.
func (f *fatal) check() error {
	if f.ended.Load() {
		return errEnded
	}
	return nil
}
