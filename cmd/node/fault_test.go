package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	eventlog "cairn/log"
	"cairn/snapshot"
)

func TestExplain(t *testing.T) {
	c := &Config{Data: "/d"}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{&eventlog.CorruptError{File: "x.seg", Offset: 7, Reason: "crc"}, "cairn repair --data /d --from URL"},
		{&snapshot.CorruptError{File: "MANIFEST", Reason: "hash"}, "move /d away"},
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
