package cluster

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
)

// errEnded is what every write and every entry gets after a fatal error.
var errEnded = errors.New("this node has met a fatal error and ends")

// fatal is the one way by which a node gives up. After a fail nothing is stored
// or applied any more, whether or not the process has ended yet.
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
	f.ended.Store(true) // also after expel
	f.once.Do(func() { f.report(err) })
	return err
}

// expel is fail for a node that is sound but has no place in the cluster. What
// it stores until its process ends harms nobody, and Raft panics when it can't.
func (f *fatal) expel(err error) {
	f.once.Do(func() { f.report(err) })
}

func (f *fatal) report(err error) {
	f.logger.Error("fatal error", "error", err)
	f.onFatal(err)
}

// check returns errEnded after a fail.
func (f *fatal) check() error {
	if f.ended.Load() {
		return errEnded
	}
	return nil
}
