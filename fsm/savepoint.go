package fsm

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"cairn/event"
	"cairn/index"
	"cairn/snapshot"
)

// savepointer makes the machine's disk state durable beside Apply. Apply
// freezes the overlay in O(1) and goes on with a fresh one; one goroutine
// writes what was frozen:
//
//  1. fsync the segments up to P, and their folder
//  2. commit postings, heads, ids, tree and (A, P) in one synced batch
//  3. note (A, P) in SAVEPOINT
//
// A crash before 2 leaves the savepoint before; the log's tail is cut and Raft
// gives the entries again. A crash between 2 and 3 leaves a note that is older
// than the state, which is allowed; the other way round means that the state
// lost what it had.
type savepointer struct {
	m       *Machine
	jobs    chan *frozen // the goroutine takes one at a time; closed by stop
	current *frozen      // newest job, or nil; owned by the goroutine that applies
	pushing atomic.Bool  // Apply is filling the second overlay beyond reason
	raised  uint32       // cluster version under which savepoints were taken; owned by the goroutine
	done    sync.WaitGroup
}

// frozen is one savepoint on its way to disk.
type frozen struct {
	gen       *generation
	savepoint index.Savepoint
	version   uint32
	logID     string
	// manifest is asked for by Snapshot; the savepoint's checkpoint is made then.
	wantManifest bool
	manifest     snapshot.Manifest
	manifestErr  error         // why there is none; the savepoint is durable all the same
	done         chan struct{} // closed when it is durable or has failed
	err          error         // set before done is closed
}

func (f *frozen) writing() bool {
	if f == nil {
		return false
	}
	select {
	case <-f.done:
		return false
	default:
		return true
	}
}

func startSavepointer(m *Machine) *savepointer {
	s := &savepointer{m: m, jobs: make(chan *frozen, 1)}
	s.done.Go(s.run)
	return s
}

func (s *savepointer) run() {
	for f := range s.jobs {
		if f.err = s.m.stopped(); f.err == nil || errors.Is(f.err, ErrClosed) {
			f.err = s.write(f)
		}
		f.gen.release()
		close(f.done)
		s.pushing.Store(false) // after done: see consider
	}
}

// pressed reports whether Apply may soon have to wait.
func (s *savepointer) pressed() bool { return s.pushing.Load() }

// consider is called by Apply after each entry. It freezes when the overlay is
// full, and waits only when the one before is still being written and this one
// has grown to twice its bound.
func (s *savepointer) consider() error {
	x, o := s.m.gen.index, &s.m.opts
	fill := max(float64(x.OverlayBytes())/float64(o.SavepointBytes), float64(x.OverlayEvents())/float64(o.SavepointEvents))
	if fill < 1 {
		return nil
	}
	if s.current.writing() {
		s.pushing.Store(fill >= 1.5)
		if !s.current.writing() { // it has ended meanwhile, and cleared the flag before it was set
			s.pushing.Store(false)
		}
		if fill < 2 {
			return nil
		}
		s.m.stats.waits.Add(1)
		<-s.current.done
	}
	if s.current != nil && s.current.err != nil {
		return s.current.err
	}
	s.freeze(false)
	return nil
}

// freeze hands what was applied so far to the goroutine. No job may be under
// way.
func (s *savepointer) freeze(wantManifest bool) *frozen {
	st := &s.m.state
	f := &frozen{
		gen: s.m.gen, version: st.version, logID: st.logID, wantManifest: wantManifest, done: make(chan struct{}),
		savepoint: index.Savepoint{Index: st.index, Position: st.position, Extra: st.encode()},
	}
	f.gen.acquire()
	allowMerges(f.gen.index, st)
	f.gen.index.Freeze()
	s.current = f
	s.jobs <- f
	return f
}

// allowMerges lets the index write what programs of the first cluster version
// can't read. They refuse a state of a later one before they look at it.
func allowMerges(x *index.Index, s *state) {
	if s.version >= event.ClusterVersionProjections {
		x.AllowMerges()
	}
}

// last takes a savepoint of all that was applied, when nothing more will be.
func (s *savepointer) last() error {
	if s.current != nil {
		<-s.current.done
		if s.current.err != nil {
			return s.current.err
		}
	}
	if index, _ := s.m.durable.get(); index == s.m.state.index {
		return nil
	}
	f := s.freeze(false)
	<-f.done
	return f.err
}

// settle waits until no savepoint is being written.
func (s *savepointer) settle() {
	if s.current != nil {
		<-s.current.done
	}
}

func (s *savepointer) stop() {
	close(s.jobs)
	s.done.Wait()
}

// write makes one savepoint durable. An error stops the machine: after a
// failed fsync nobody knows what the disk holds.
func (s *savepointer) write(f *frozen) error {
	start := time.Now()
	if err := s.writeSteps(f); err != nil {
		return s.m.fail(fmt.Errorf("savepoint at index %d, position %d: %w", f.savepoint.Index, f.savepoint.Position, err))
	}
	s.m.stats.savepoint(time.Since(start))
	s.m.logger.Debug("savepoint", "index", f.savepoint.Index, "position", f.savepoint.Position, "took", time.Since(start))
	return nil
}

func (s *savepointer) writeSteps(f *frozen) error {
	if f.version > s.raised {
		if err := s.m.opts.RaiseVersion(f.version); err != nil {
			return fmt.Errorf("note cluster version %d: %w", f.version, err)
		}
		s.raised = f.version
	}
	sp := f.savepoint
	if err := f.gen.log.Sync(sp.Position); err != nil {
		return err
	}
	if err := f.gen.commit(sp); err != nil {
		return err
	}
	if err := snapshot.WriteSavepoint(s.m.opts.FS, f.gen.dir, sp.Index, sp.Position); err != nil {
		return err
	}
	s.m.durable.set(sp.Index, sp.Position)
	if f.wantManifest {
		f.manifest, f.manifestErr = s.m.checkpoint(f)
	}
	return nil
}
