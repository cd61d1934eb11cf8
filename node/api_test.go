package node

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"cairn/cluster"
	"cairn/event"
	"cairn/fsm"
	"cairn/httpapi"
	eventlog "cairn/log"
	"cairn/projection"
)

// What promises that nothing was written must be exactly that: an error that
// leaves it open may never be called no-leader, overloaded or timeout.
func TestClassify(t *testing.T) {
	damaged := &eventlog.CorruptError{File: "x.seg", Offset: 7, Reason: "crc"}
	for _, tt := range []struct {
		err  error
		code httpapi.Code // "" = not known
	}{
		{eventlog.ErrNotFound, httpapi.NotFound},
		{fmt.Errorf("remove: %w", cluster.ErrUnknownMember), httpapi.NotFound},
		{fmt.Errorf("remove: %w", cluster.ErrLastVoter), httpapi.InvalidRequest},
		{fmt.Errorf("remove: %w", cluster.ErrNoQuorum), httpapi.NoLeader},
		{cluster.ErrNoLeader, httpapi.NoLeader},
		{cluster.ErrOverloaded, httpapi.Overloaded},
		{cluster.ErrTimeout, httpapi.Timeout},
		{cluster.ErrClosed, httpapi.Overloaded},
		{fsm.ErrClosed, httpapi.Overloaded},
		{fmt.Errorf("read: %w", damaged), httpapi.Corrupt},
		{refusal(&event.Outcome{Code: event.Refused, Reason: event.TryAgain + "busy"}), httpapi.Overloaded},
		{refusal(&event.Outcome{Code: event.Refused, Reason: "there are too many"}), httpapi.InvalidRequest},
		{refusal(&event.Outcome{Code: event.Accepted}), ""},
		{fsm.ErrStateTooLarge, httpapi.TooLarge},
		{fmt.Errorf("row: %w", projection.ErrRow), httpapi.Corrupt},
		{&cluster.UnknownError{Cause: cluster.ErrNoLeader}, ""},
		{&cluster.UnknownError{Cause: fsm.ErrClosed}, ""},
		{&cluster.UnknownError{Cause: damaged}, ""},
		{context.DeadlineExceeded, ""},
		{errors.New("anything"), ""},
	} {
		fault, ok := classify(tt.err)
		if fault.Code != tt.code || ok != (tt.code != "") {
			t.Errorf("classify(%v) = %q, %t, want %q", tt.err, fault.Code, ok, tt.code)
		}
	}
	if got := refusal(&event.Outcome{Code: event.Refused, Reason: event.TryAgain + "busy"}).Error(); got != "busy; try again" {
		t.Errorf("a refusal that does not last reads %q", got)
	}
	if f, _ := classify(damaged); f.File != "x.seg" || f.Offset != 7 {
		t.Errorf("damage is %+v", f)
	}
}
