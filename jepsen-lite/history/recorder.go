package history

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Recorder collects what happens in a run, in memory and, if it has a
// directory, line by line in history.ndjson there, so that a harness that dies
// leaves what it had seen. All methods may be called by any number of
// goroutines.
type Recorder struct {
	dir   string
	began time.Time

	mu   sync.Mutex // guards what follows
	h    History
	file *os.File // nil without a directory, and after Finish
	err  error    // the first of writing to file
}

// NewRecorder begins a record now. It creates dir and begins history.ndjson in
// it anew; with dir "" it keeps everything in memory and touches no file.
func NewRecorder(dir string) (*Recorder, error) {
	r := &Recorder{dir: dir, began: time.Now()}
	if dir == "" {
		return r, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	f, err := os.Create(filepath.Join(dir, linesName))
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	r.file = f
	return r, nil
}

// Now returns the time since the record began, on a monotonic clock.
func (r *Recorder) Now() time.Duration { return time.Since(r.began) }

// Op adds an operation that has ended. Its ID is given here, and anew by
// Finish, in the order of Start.
func (r *Recorder) Op(op Op) {
	r.mu.Lock()
	defer r.mu.Unlock()
	op.ID = len(r.h.Ops) + 1
	r.h.Ops = append(r.h.Ops, op)
	r.writeLocked(line{Op: &op})
}

// Delivery adds an event that a follower was given. Those of one follower must
// be added in the order in which it was given them.
func (r *Recorder) Delivery(d Delivery) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.h.Deliveries = append(r.h.Deliveries, d)
	r.writeLocked(line{Delivery: &d})
}

// Fault adds a fault that has been healed.
func (r *Recorder) Fault(f Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.h.Faults = append(r.h.Faults, f)
	r.writeLocked(line{Fault: &f})
}

func (r *Recorder) writeLocked(l line) {
	if r.file == nil || r.err != nil {
		return
	}
	b, err := json.Marshal(l)
	if err == nil {
		_, err = r.file.Write(append(b, '\n'))
	}
	r.err = err
}

// Finish ends the record: h, which has everything else, gets the recorded
// operations in the order of Start with IDs 1, 2, 3, …, the deliveries and the
// faults, and is saved if there is a directory. Nobody may add anything any
// more. The history is complete also where saving it was not possible.
func (r *Recorder) Finish(h History) (*History, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h.Ops, h.Deliveries, h.Faults = r.h.Ops, r.h.Deliveries, r.h.Faults
	h.order()
	if r.dir == "" {
		return &h, nil
	}
	err := r.err
	if r.file != nil {
		if closed := r.file.Close(); err == nil {
			err = closed
		}
		r.file = nil
	}
	if err != nil {
		return &h, fmt.Errorf("history: write %s: %w", linesName, err)
	}
	return &h, h.Save(r.dir)
}

// order brings operations and faults into the order of Start and numbers the
// operations. Deliveries stay as they came: their order is what is judged.
func (h *History) order() {
	slices.SortStableFunc(h.Ops, func(a, b Op) int { return cmp.Compare(a.Start, b.Start) })
	for i := range h.Ops {
		h.Ops[i].ID = i + 1
	}
	slices.SortStableFunc(h.Faults, func(a, b Fault) int { return cmp.Compare(a.Start, b.Start) })
}

// Sum returns the Event.Sum of an event with that data.
func Sum(data []byte) string {
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:len(s)/2])
}
