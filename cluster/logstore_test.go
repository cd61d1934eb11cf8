package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// faultyStore is a log store in memory that can fail, stall and lie.
type faultyStore struct {
	*raft.InmemStore
	storeErr, deleteErr error
	stores              int
	stall               chan struct{} // StoreLogs waits for it to be closed
	damage              func(l *raft.Log)
	monotonic           bool
	missing             error // of GetLog, instead of the store's own
}

func (s *faultyStore) IsMonotonic() bool { return s.monotonic }

func (s *faultyStore) StoreLogs(logs []*raft.Log) error {
	s.stores++
	if s.stall != nil {
		<-s.stall
	}
	if s.storeErr != nil {
		return s.storeErr
	}
	return s.InmemStore.StoreLogs(logs)
}

func (s *faultyStore) DeleteRange(first, last uint64) error {
	if s.deleteErr != nil {
		return s.deleteErr
	}
	return s.InmemStore.DeleteRange(first, last)
}

func (s *faultyStore) GetLog(index uint64, l *raft.Log) error {
	err := s.InmemStore.GetLog(index, l)
	if err != nil && s.missing != nil {
		return s.missing
	}
	if err == nil && s.damage != nil {
		l.Data, l.Extensions = bytes.Clone(l.Data), bytes.Clone(l.Extensions)
		s.damage(l)
	}
	return err
}

// recorded is a fatal that keeps what it was told.
type recorded struct {
	*fatal
	mu   sync.Mutex
	list []error
}

func newRecorded() *recorded {
	r := &recorded{}
	r.fatal = newFatal(func(err error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.list = append(r.list, err)
	}, slog.New(slog.DiscardHandler))
	return r
}

func (r *recorded) errs() []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.list
}

func newTestLogStore(under *faultyStore) (*logStore, *recorded) {
	f := newRecorded()
	return newLogStore(under, f.fatal, 15*time.Second, newMetrics()), f
}

func TestLogStore_CheckIsBoundToTheEntry(t *testing.T) {
	under := &faultyStore{InmemStore: raft.NewInmemStore()}
	s, f := newTestLogStore(under)
	want := raft.Log{Index: 7, Term: 3, Type: raft.LogCommand, Data: []byte("some data")}
	stored := want
	if err := s.StoreLog(&stored); err != nil {
		t.Fatal(err)
	}
	var got raft.Log
	if err := s.GetLog(7, &got); err != nil || !bytes.Equal(got.Data, want.Data) {
		t.Fatalf("read back %v, %v", got, err)
	}
	damages := map[string]func(l *raft.Log){
		"index":        func(l *raft.Log) { l.Index++ },
		"term":         func(l *raft.Log) { l.Term++ },
		"type":         func(l *raft.Log) { l.Type = raft.LogNoop },
		"cut":          func(l *raft.Log) { l.Data = l.Data[:4] },
		"longer":       func(l *raft.Log) { l.Data = append(l.Data, 0) },
		"no check":     func(l *raft.Log) { l.Extensions = nil },
		"short check":  func(l *raft.Log) { l.Extensions = l.Extensions[:3] },
		"other format": func(l *raft.Log) { l.Extensions[0]++ },
	}
	for bit := range 8 * len(want.Data) {
		damages[fmt.Sprintf("data bit %d", bit)] = func(l *raft.Log) { l.Data[bit/8] ^= 1 << (bit % 8) }
	}
	for bit := range 8 * checkSize {
		damages[fmt.Sprintf("check bit %d", bit)] = func(l *raft.Log) { l.Extensions[bit/8] ^= 1 << (bit % 8) }
	}
	for name, damage := range damages {
		under.damage = damage
		if err := s.GetLog(7, &got); !errors.Is(err, errCheck) {
			t.Errorf("%s: %v, want %v", name, err, errCheck)
		}
	}
	if len(f.errs()) != 0 {
		t.Errorf("reading ended the node: %v", f.errs())
	}
}

// An entry that stands under another index than its own is not taken, though
// every byte of it is right.
func TestLogStore_EntryInTheWrongPlace(t *testing.T) {
	under := &faultyStore{InmemStore: raft.NewInmemStore()}
	s, f := newTestLogStore(under)
	l := raft.Log{Index: 5, Term: 1, Type: raft.LogCommand, Data: []byte("x")}
	if err := s.StoreLog(&l); err != nil {
		t.Fatal(err)
	}
	moved := l
	moved.Index = 6
	if err := s.StoreLog(&moved); !errors.Is(err, errCheck) {
		t.Errorf("an entry sent under another index was stored: %v", err)
	}
	if len(f.errs()) != 1 {
		t.Errorf("fatal errors: %v", f.errs())
	}
	var got raft.Log
	if err := s.GetLog(6, &got); !errors.Is(err, raft.ErrLogNotFound) {
		t.Errorf("it is in the log: %v, %v", got, err)
	}
}

func TestLogStore_ErrorsEndTheNode(t *testing.T) {
	entry := func() *raft.Log { return &raft.Log{Index: 1, Term: 1, Data: []byte("x")} }
	t.Run("write", func(t *testing.T) {
		under := &faultyStore{InmemStore: raft.NewInmemStore(), storeErr: errors.New("no space left")}
		s, f := newTestLogStore(under)
		if err := s.StoreLog(entry()); !errors.Is(err, under.storeErr) {
			t.Errorf("error %v", err)
		}
		under.storeErr = nil
		if err := s.StoreLog(entry()); !errors.Is(err, errEnded) {
			t.Errorf("a write after a failed one: %v", err)
		}
		if under.stores != 1 {
			t.Errorf("the store was written %d times: a failed write was tried again", under.stores)
		}
		if len(f.errs()) != 1 {
			t.Errorf("fatal errors: %v", f.errs())
		}
	})
	t.Run("delete", func(t *testing.T) {
		under := &faultyStore{InmemStore: raft.NewInmemStore(), deleteErr: errors.New("i/o error")}
		s, f := newTestLogStore(under)
		if err := s.DeleteRange(1, 2); !errors.Is(err, under.deleteErr) {
			t.Errorf("error %v", err)
		}
		if len(f.errs()) != 1 {
			t.Errorf("fatal errors: %v", f.errs())
		}
	})
}

func TestLogStore_StallEndsTheNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		under := &faultyStore{InmemStore: raft.NewInmemStore(), stall: make(chan struct{})}
		s, f := newTestLogStore(under)
		go func() { _ = s.StoreLog(&raft.Log{Index: 1}) }()
		time.Sleep(14 * time.Second)
		synctest.Wait()
		if len(f.errs()) != 0 {
			t.Fatalf("ended after 14 s: %v", f.errs())
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if len(f.errs()) != 1 {
			t.Errorf("a write has taken 16 s: fatal errors %v", f.errs())
		}
		close(under.stall)
	})
}

func TestLogStore_PassesOnWhatRaftCompares(t *testing.T) {
	under := &faultyStore{InmemStore: raft.NewInmemStore(), missing: fmt.Errorf("wrapped: %w", raft.ErrLogNotFound)}
	s, _ := newTestLogStore(under)
	c := newLogCache(s, 1<<20)
	var l raft.Log
	if err := c.GetLog(1, &l); err != raft.ErrLogNotFound { //nolint:errorlint // Raft compares with ==
		t.Errorf("a miss is %v, not raft.ErrLogNotFound itself", err)
	}
	for _, monotonic := range []bool{true, false} {
		under.monotonic = monotonic
		if got := c.IsMonotonic(); got != monotonic {
			t.Errorf("IsMonotonic of a store that says %v is %v", monotonic, got)
		}
	}
	if newLogCache(raft.NewInmemStore(), 1).IsMonotonic() {
		t.Error("a store that does not say so is monotonic")
	}
}

func TestLogSizes(t *testing.T) {
	s := logSizes{full: make(chan struct{}, 1)}
	s.setLimit(10 * markBytes)
	for i := range 40 {
		s.add(uint64(100+i), markBytes/2)
	}
	select {
	case <-s.full:
	default:
		t.Error("no notice after twice the limit")
	}
	if got, want := s.pending(), int64(20*markBytes); got != want {
		t.Errorf("pending %d, want %d", got, want)
	}
	fresh := s.begin()
	s.add(140, 5)
	s.put(fresh)
	if got, want := s.pending(), int64(20*markBytes+5); got != want {
		t.Errorf("pending after a snapshot that failed %d, want %d", got, want)
	}
	for _, limit := range []int64{1 << 40, 4 * markBytes, markBytes, 10} {
		n := s.trailing(limit, 1)
		if bytes := int64(n) * markBytes / 2; bytes > limit+markBytes/2 {
			t.Errorf("%d entries for at most %d bytes", n, limit)
		}
	}
	if n := s.trailing(4*markBytes, 1); n > 2 {
		t.Errorf("%d entries after all but the last were given up", n)
	}
	s = logSizes{full: make(chan struct{}, 1)}
	for i := range 40 {
		s.add(uint64(100+i), markBytes)
	}
	for i := range 5 { // the end is rewritten
		s.add(uint64(110+i), markBytes)
	}
	if got := s.trailing(1<<40, 1); got != 15 {
		t.Errorf("%d entries after a rewrite, want 15", got)
	}
}

// A quarter of the bound is kept whoever needs it, more for a follower that
// lacks it, and never more than the bound.
func TestLogSizes_KeepsWhatAFollowerNeeds(t *testing.T) {
	for _, c := range []struct {
		needed uint64
		least  uint64
		most   uint64
	}{{0, 4, 5}, {199, 4, 5}, {190, 10, 11}, {185, 15, 16}, {120, 19, 20}, {1, 19, 20}} {
		s := logSizes{full: make(chan struct{}, 1)}
		for i := range 100 {
			s.add(uint64(100+i), markBytes)
		}
		if got := s.trailing(20*markBytes, c.needed); got < c.least || got > c.most {
			t.Errorf("%d entries kept when %d is needed, want %d to %d", got, c.needed, c.least, c.most)
		}
	}
}
