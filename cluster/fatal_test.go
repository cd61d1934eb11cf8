package cluster

import (
	"errors"
	"log/slog"
	"testing"
)

// Only the first error is passed on, but nothing is stored after a failure, were
// it the second.
func TestFatal(t *testing.T) {
	var told []error
	f := newFatal(func(err error) { told = append(told, err) }, slog.New(slog.DiscardHandler))
	f.expel(ErrRemoved)
	if err := f.check(); err != nil {
		t.Errorf("a node that was removed stores until it ends: %v", err)
	}
	broken := errors.New("fsync failed")
	if err := f.fail(broken); err != broken {
		t.Errorf("fail returned %v", err)
	}
	if err := f.check(); !errors.Is(err, errEnded) {
		t.Errorf("stores after a failure: %v", err)
	}
	if len(told) != 1 || told[0] != ErrRemoved {
		t.Errorf("told of %v", told)
	}
}
