package cluster

import (
	"bytes"
	"errors"
	"testing"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"
)

// contiguousStore is a log store with the rules of raft-wal: no gaps, and
// deletion at either end only.
type contiguousStore struct {
	*raft.InmemStore
}

func (contiguousStore) IsMonotonic() bool { return true }

func (s contiguousStore) StoreLogs(logs []*raft.Log) error {
	if last, _ := s.LastIndex(); last > 0 && logs[0].Index != last+1 {
		return errors.New("a gap")
	}
	return s.InmemStore.StoreLogs(logs)
}

// DeleteRange refuses to leave a hole.
func (s contiguousStore) DeleteRange(first, last uint64) error {
	lo, _ := s.FirstIndex()
	hi, _ := s.LastIndex()
	if first > lo && last < hi {
		return errors.New("a hole")
	}
	return s.InmemStore.DeleteRange(max(first, lo), min(last, hi))
}

// The cache never changes what a reader sees, whatever is written, removed and
// rewritten, and stays within its bound.
func TestLogCache_Model(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.Int64Range(0, 2000).Draw(t, "limit")
		store := contiguousStore{raft.NewInmemStore()}
		c := newLogCache(store, limit)
		model := map[uint64][]byte{}
		first, last := uint64(0), uint64(0) // of the model; 0 = empty
		next := uint64(1)
		remove := func(from, to uint64) {
			if err := c.DeleteRange(from, to); err != nil {
				t.Fatal(err)
			}
			for i := from; i <= to; i++ {
				delete(model, i)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"store": func(t *rapid.T) {
				n := rapid.IntRange(1, 5).Draw(t, "n")
				var logs []*raft.Log
				for range n {
					data := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "data")
					logs = append(logs, &raft.Log{Index: next, Data: data})
					model[next] = data
					next++
				}
				if first == 0 {
					first = logs[0].Index
				}
				last = next - 1
				if err := c.StoreLogs(logs); err != nil {
					t.Fatal(err)
				}
			},
			"drop front": func(t *rapid.T) {
				if first == 0 {
					t.Skip("empty")
				}
				to := rapid.Uint64Range(first, last).Draw(t, "to")
				remove(first, to)
				if first = to + 1; to == last {
					first, last = 0, 0
				}
			},
			"drop back": func(t *rapid.T) {
				if first == 0 {
					t.Skip("empty")
				}
				from := rapid.Uint64Range(first, last).Draw(t, "from")
				remove(from, last)
				next = from
				if last = from - 1; from == first {
					first, last = 0, 0
				}
			},
			"drop all, go on elsewhere": func(t *rapid.T) {
				if first == 0 {
					t.Skip("empty")
				}
				remove(first, last)
				first, last = 0, 0
				next += rapid.Uint64Range(0, 10).Draw(t, "gap")
			},
			"": func(t *rapid.T) {
				for i := uint64(0); i <= next+1; i++ {
					var l raft.Log
					err := c.GetLog(i, &l)
					data, ok := model[i]
					switch {
					case ok && (err != nil || l.Index != i || !bytes.Equal(l.Data, data)):
						t.Fatalf("entry %d: %v, %v; want %d bytes", i, l, err, len(data))
					case !ok && !errors.Is(err, raft.ErrLogNotFound):
						t.Fatalf("entry %d, which is not there: %v, %v", i, l, err)
					}
				}
				held := int64(0)
				for _, l := range c.logs {
					held += logSize(l)
				}
				if c.size() != held || held > limit {
					t.Fatalf("the cache says %d bytes, holds %d, may hold %d", c.size(), held, limit)
				}
			},
		})
	})
}

// The newest entries come from memory.
func TestLogCache_ServesTheNewest(t *testing.T) {
	store := contiguousStore{raft.NewInmemStore()}
	c := newLogCache(store, 1000)
	for i := uint64(1); i <= 20; i++ {
		if err := c.StoreLog(&raft.Log{Index: i, Data: make([]byte, 100-logOverhead)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.InmemStore.DeleteRange(1, 20); err != nil { // behind its back
		t.Fatal(err)
	}
	for i := uint64(1); i <= 20; i++ {
		var l raft.Log
		if err := c.GetLog(i, &l); (err == nil) != (i > 10) {
			t.Errorf("entry %d: %v", i, err)
		}
	}
}

// After a gap, which a store may allow, nothing is taken for its neighbour.
func TestLogCache_Gap(t *testing.T) {
	c := newLogCache(raft.NewInmemStore(), 1<<20)
	for _, i := range []uint64{1, 2, 3, 10, 11} {
		if err := c.StoreLog(&raft.Log{Index: i}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range uint64(13) {
		var l raft.Log
		err := c.GetLog(i, &l)
		if there := i > 0 && i <= 3 || i == 10 || i == 11; (err == nil) != there || err == nil && l.Index != i {
			t.Errorf("entry %d: %v, %v", i, l.Index, err)
		}
	}
}
