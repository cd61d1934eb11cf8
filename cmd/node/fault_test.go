package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"cairn/cluster"
	"cairn/fsm"
	"cairn/httpapi"
	eventlog "cairn/log"
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
		{cluster.ErrNoLeader, httpapi.NoLeader},
		{cluster.ErrOverloaded, httpapi.Overloaded},
		{cluster.ErrTimeout, httpapi.Timeout},
		{cluster.ErrClosed, httpapi.Overloaded},
		{fsm.ErrClosed, httpapi.Overloaded},
		{fmt.Errorf("read: %w", damaged), httpapi.Corrupt},
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
	if f, _ := classify(damaged); f.File != "x.seg" || f.Offset != 7 {
		t.Errorf("damage is %+v", f)
	}
}

func TestExplain(t *testing.T) {
	c := &Config{Data: "/d"}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{&eventlog.CorruptError{File: "x.seg", Offset: 7, Reason: "crc"}, "move /d away"},
		{fmt.Errorf("write: %w", syscall.ENOSPC), "disk of /d is full: make space"},
		{fmt.Errorf("open: %w", fs.ErrPermission), "must own /d"},
		{eventlog.ErrFormat, "newer cairn-node"},
	} {
		err := explain(tt.err, c)
		if !strings.Contains(err.Error(), tt.want) || !errors.Is(err, tt.err) {
			t.Errorf("explain(%v) = %v, want %q in it", tt.err, err, tt.want)
		}
	}
	if plain := errors.New("plain"); explain(plain, c) != plain {
		t.Error("an error without advice is changed")
	}
	if got := oneLine(errors.Join(errors.New("a"), errors.New("b"))); got != "a; b" {
		t.Errorf("oneLine = %q", got)
	}
}
