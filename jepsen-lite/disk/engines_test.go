//go:build linux

package disk

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"go.etcd.io/bbolt"
)

// engine is what a node stores its data in. Entries have numbers from 1 on. It
// runs in a process of its own: one that maps a file of the file system that it
// serves can stop itself for good.
type engine struct {
	put func(i uint64) error // durable when it returns
	get func(i uint64) []byte
}

const perRound = 50

func entryKey(i uint64) []byte   { return fmt.Appendf(nil, "%08d", i) }
func entryValue(i uint64) []byte { return bytes.Repeat(entryKey(i), 100) }

// TestEngines kills each engine in an fsync, cuts the power, and wants all that was
// synced and no damage, several times over.
func TestEngines(t *testing.T) {
	for _, name := range []string{"bbolt", "pebble", "wal"} {
		t.Run(name, func(t *testing.T) {
			d, dir := mount(t)
			rng := seeded(t)
			t.Setenv("DISK_TEST_LEAST", "0")
			for round, keep := range []float64{0, 0.5, 0.5, 0.9, 1} {
				kill := start(t, name, dir)
				before := d.Counters().Stalled
				release, err := d.Inject(Fault{Kind: Stall, Ops: Sync})
				must(t, err)
				for d.Counters().Stalled == before {
					time.Sleep(time.Millisecond)
				}
				kill()
				release()
				loss, err := d.PowerLoss(rng, keep)
				must(t, err)
				t.Logf("round %d, keep %v: %+v", round, keep, loss)
				if keep == 0 && loss == (Loss{}) {
					t.Error("nothing was lost")
				}
				t.Setenv("DISK_TEST_LEAST", strconv.Itoa((round+1)*perRound))
			}
			start(t, name, dir)()
		})
	}
}

// runEngine checks what an engine has, which must be at least what it promised,
// without gaps; it adds a round of entries, and goes on until it is killed.
func runEngine(open func(dir string) (engine, error)) func(string) error {
	return func(dir string) error {
		e, err := open(dir)
		if err != nil {
			return err
		}
		least, err := strconv.ParseUint(os.Getenv("DISK_TEST_LEAST"), 10, 64)
		if err != nil {
			return err
		}
		last := uint64(0)
		for v := e.get(1); v != nil; v = e.get(last + 1) {
			last++
			if !bytes.Equal(v, entryValue(last)) {
				return fmt.Errorf("entry %d: %.20q", last, v)
			}
		}
		if last < least {
			return fmt.Errorf("%d entries, want %d", last, least)
		}
		for i := range uint64(perRound) {
			if err := e.put(last + 1 + i); err != nil {
				return err
			}
		}
		go func() {
			for i := last + perRound + 1; e.put(i) == nil; i++ {
			}
		}()
		return nil
	}
}

func syncPath(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func openBolt(dir string) (engine, error) {
	db, err := bbolt.Open(dir+"/bolt.db", 0o600, nil)
	if err != nil {
		return engine{}, err
	}
	bucket := []byte("b")
	err = db.Update(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			return err
		}
		_, err := tx.CreateBucketIfNotExists(bucket)
		return err
	})
	return engine{
		put: func(i uint64) error {
			return db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucket).Put(entryKey(i), entryValue(i)) })
		},
		get: func(i uint64) (v []byte) {
			_ = db.View(func(tx *bbolt.Tx) error {
				v = bytes.Clone(tx.Bucket(bucket).Get(entryKey(i)))
				return nil
			})
			return v
		},
	}, errors.Join(err, syncPath(dir)) // it leaves its own name to the caller
}

type quiet struct{}

func (quiet) Infof(string, ...any)         {}
func (quiet) Errorf(string, ...any)        {}
func (quiet) Fatalf(f string, args ...any) { panic(fmt.Sprintf(f, args...)) }

// openPebble flushes often, and makes checkpoints (of hard links) beside it.
func openPebble(dir string) (engine, error) {
	db, err := pebble.Open(filepath.Join(dir, "state"), &pebble.Options{MemTableSize: 64 << 10, Logger: quiet{}})
	if err != nil {
		return engine{}, err
	}
	checkpoint := filepath.Join(dir, "checkpoint")
	return engine{
		put: func(i uint64) error {
			if i%20 == 0 {
				if err := errors.Join(os.RemoveAll(checkpoint), db.Checkpoint(checkpoint)); err != nil {
					return err
				}
			}
			return db.Set(entryKey(i), entryValue(i), pebble.Sync)
		},
		get: func(i uint64) []byte {
			v, closer, err := db.Get(entryKey(i))
			if err != nil {
				return nil
			}
			defer closer.Close()
			return bytes.Clone(v)
		},
	}, syncPath(dir)
}

// openWAL uses one segment: a log that dies between sealing a segment and noting
// it refuses the next append, which this test would run into now and then.
func openWAL(dir string) (engine, error) {
	at := filepath.Join(dir, "wal")
	if err := os.MkdirAll(at, 0o755); err != nil {
		return engine{}, err
	}
	w, err := wal.Open(at, wal.WithSegmentSize(4<<20))
	if err != nil {
		return engine{}, err
	}
	return engine{
		put: func(i uint64) error {
			return w.StoreLogs([]*raft.Log{{Index: i, Term: 1, Data: entryValue(i)}})
		},
		get: func(i uint64) []byte {
			var l raft.Log
			if w.GetLog(i, &l) != nil {
				return nil
			}
			return l.Data
		},
		// It leaves its directory's name, and that of its meta.db, to the caller.
	}, errors.Join(syncPath(dir), syncPath(at))
}
