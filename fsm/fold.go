package fsm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/uuid"

	"cairn/event"
	"cairn/index"
	eventlog "cairn/log"
)

// FoldOptions says what Fold makes of which log.
type FoldOptions struct {
	FS       vfs.FS
	LogDir   string // segments that are whole up to Position; what stands after it is not looked at
	StateDir string // a state as of an earlier savepoint of the same log, or nothing
	// Index and Position are (A, P), what the state is to be as of. Position
	// ends a frame, and no frame up to it is of an entry after Index.
	Index, Position uint64
	// SavepointBytes is how much is held in memory before it is written, in
	// bytes; up to twice as much is held for a moment. 0 means 64 MiB.
	SavepointBytes int64
	CacheBytes     int64        // bounds the index's block cache; 0 means 128 MiB
	Logger         *slog.Logger // nil = discard
	// OnError is called, once, when writing the state fails: parts of its store
	// are stopped then and only the end of the process frees them. nil = nothing;
	// the error that Fold returns says it too.
	OnError func(error)
	// Progress is called with the position reached, after every few thousand
	// events, on the goroutine of Fold. nil = nothing.
	Progress func(position uint64)
}

// Folded says what a state is as of after Fold.
type Folded struct {
	LogID   string
	Version uint32 // the cluster version in force
	Events  uint64 // that were folded, not those that the state held before
}

// Fold brings a state up to (A, P) by the events of a log alone: from the
// savepoint that StateDir holds, or from nothing. It is how a state is rebuilt,
// and how a node that has fetched frames catches up without the entries that
// they came from.
//
// What it guarantees when it returns nil: StateDir holds, durably but for its
// own name in the folder above, a savepoint at (A, P) with the answers, the
// ids, the tree, the members and the version that a Machine has which applied
// every entry up to A; opened by a Machine it goes on with the entry after A.
// Every record up to P that was not folded before has been read, and its CRCs,
// its digest and its frame were right. The log is not written to.
//
// When it ends early, by a crash, an error or ctx, StateDir is as of some
// savepoint before (A, P), each of which is exact too: another Fold goes on
// from there. Damage of the log is an *eventlog.CorruptError. A state that is
// beyond (A, P), or of another log, is an error and is left alone; so is an
// event whose meaning this program does not know. After an error of writing
// parts of the store may be stopped, and the process should end.
//
// Nothing else may use StateDir meanwhile, and nobody may change the segments
// up to P.
func Fold(ctx context.Context, o FoldOptions) (Folded, error) {
	f, err := openFolder(&o)
	if err != nil {
		return Folded{}, err
	}
	from := f.state.position
	if err = f.fold(ctx); err == nil {
		err = f.finish()
	}
	err = errors.Join(err, f.close())
	return Folded{LogID: f.state.logID, Version: f.state.version, Events: f.state.position - from}, err
}

// progressEvery is after how many events somebody is told how far it is.
const progressEvery = 4096

// folder folds events into a state. It belongs to one goroutine.
type folder struct {
	options *FoldOptions
	log     *eventlog.Log
	index   *index.Index
	state   state
	saving  chan error // gets what became of the savepoint under way; nil = there is none
}

// openFolder opens state and log and makes sure that the one is a beginning of
// the other.
func openFolder(o *FoldOptions) (*folder, error) {
	if o.SavepointBytes == 0 {
		o.SavepointBytes = 64 << 20
	}
	log, err := eventlog.Open(eventlog.Options{FS: o.FS, Dir: o.LogDir, Through: o.Position, Logger: o.Logger})
	if err != nil {
		return nil, err
	}
	x, saved, err := index.Open(index.Options{FS: o.FS, Dir: o.StateDir, CacheBytes: o.CacheBytes, Logger: o.Logger, OnError: o.OnError})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the state in %s: %w", o.StateDir, err), log.Close())
	}
	f := &folder{options: o, log: log, index: x}
	f.state, err = decodeState(saved.Index, saved.Position, saved.Extra)
	switch {
	case err != nil:
	case saved.Index > o.Index || saved.Position > o.Position:
		err = fmt.Errorf("the state in %s is as of index %d, position %d, which is beyond index %d, position %d",
			o.StateDir, saved.Index, saved.Position, o.Index, o.Position)
	case f.state.logID != "":
		if err = errors.Join(supports(f.state.version), checkIdentity(o.LogDir, log, &f.state)); err == nil {
			f.state.catalog, err = loadCatalog(x, log, f.state.position)
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}

// fold takes in the frames after the state, saving whenever memory is full.
func (f *folder) fold(ctx context.Context) error {
	progress := f.options.Progress
	if progress == nil {
		progress = func(uint64) {}
	}
	return foldFrames(ctx, f.log, &f.state, f.index, f.rows(ctx), progress, func() error {
		if f.index.OverlayBytes() < f.options.SavepointBytes {
			return nil
		}
		return f.save()
	})
}

// finish makes the state one as of (A, P). The entries between the last frame
// and A have added nothing.
func (f *folder) finish() error {
	o := f.options
	switch {
	case f.state.position != o.Position:
		return fmt.Errorf("%s: the log ends at position %d, not %d", o.LogDir, f.state.position, o.Position)
	case f.state.index > o.Index:
		return fmt.Errorf("%s: position %d is of entry %d, which comes after entry %d", o.LogDir, o.Position, f.state.index, o.Index)
	}
	if err := checkIdentity(o.LogDir, f.log, &f.state); err != nil {
		return err
	}
	f.state.index = o.Index
	if err := f.save(); err != nil {
		return err
	}
	return f.settle()
}

// save begins a savepoint of all that was folded, which is written while the
// next frames are read.
func (f *folder) save() error {
	if err := f.settle(); err != nil {
		return err
	}
	sp := index.Savepoint{Index: f.state.index, Position: f.state.position, Extra: f.state.encode()}
	allowMerges(f.index, &f.state)
	f.index.Freeze()
	f.saving = make(chan error, 1)
	go func() { f.saving <- f.index.Commit(sp) }() // joined by settle
	return nil
}

// settle waits for the savepoint under way.
func (f *folder) settle() error {
	if f.saving == nil {
		return nil
	}
	err := <-f.saving
	f.saving = nil
	return err
}

func (f *folder) close() error {
	return errors.Join(f.settle(), f.index.Close(), f.log.Close())
}

// sink takes what a fold adds to the index.
type sink interface {
	// Add adds the next event.
	Add(e *event.Event)
	// Put adds a record of the state machine's own.
	Put(key, value []byte)
}

// rowFold folds the rows of projections with guards. nil = not.
type rowFold func(st *state, e *event.Event) error

// rows folds into the index of the folder as Apply did: at the event that puts
// a generation in force, all before it; after that each event before it is
// added.
func (f *folder) rows(ctx context.Context) rowFold {
	return func(st *state, e *event.Event) error {
		if event.IsSystem(e.Stream) {
			return f.takeOver(ctx, st, e)
		}
		if len(st.catalog.Guarding()) == 0 {
			return nil
		}
		rows := newGuarded(st.catalog, f.index)
		for _, g := range st.catalog.Guarding() {
			if !g.Matches(e) {
				continue
			}
			if err := rows.foldAccepted(g, e); err != nil {
				return err
			}
		}
		f.index.AddAppend(nil, rows.pairs)
		return nil
	}
}

func (f *folder) takeOver(ctx context.Context, st *state, e *event.Event) error {
	for _, g := range st.catalog.WentLive(e.Position) {
		if err := foldUpTo(st.catalog, g, f.log, e.Position-1, f.index, func(uint64) error { return ctx.Err() }); err != nil {
			return err
		}
	}
	return nil
}

// foldFrames folds what a log holds after st, and calls complete after each
// frame.
func foldFrames(ctx context.Context, log *eventlog.Log, st *state, into sink, rows rowFold, progress func(position uint64), complete func() error) error {
	s := log.ScanFrames(st.position + 1)
	defer s.Close()
	segments, _, _ := log.Identity()
	id := uuid.UUID(segments).String()
	named := id // by the last event that names the log
	for s.Next() {
		e, frame := s.Event(), s.Frame()
		err := st.fold(e, s.Header(), frame, into)
		if err == nil && rows != nil {
			err = rows(st, e)
		}
		if err != nil {
			return fmt.Errorf("fold position %d: %w", e.Position, err)
		}
		if e.Stream == event.StreamLog { // a restored log was born under another id
			named, st.logID = st.logID, id
		}
		if e.Position%progressEvery == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			progress(e.Position)
		}
		if e.Position == frame.Last {
			if err := complete(); err != nil {
				return err
			}
		}
	}
	if err := s.Err(); err != nil {
		return err
	}
	if named != id {
		return fmt.Errorf("the segments are of log %s, their events of log %s", id, named)
	}
	return nil
}

// fold takes in the next event of the log as Apply did when it accepted it:
// into the index, the tree and what the machine knows beside them. Index and
// time are those of the last frame that is complete.
func (s *state) fold(e *event.Event, header []byte, frame eventlog.Frame, into sink) error {
	if e.Position == frame.First && (frame.Index <= s.index || s.logID == "" && e.Stream != event.StreamLog) {
		return fmt.Errorf("a frame of entry %d does not go on where entry %d ended", frame.Index, s.index)
	}
	if err := s.take(e); err != nil {
		return err
	}
	if err := s.tree.add(eventlog.Leaf(header), into.Put); err != nil {
		return err
	}
	into.Add(e)
	s.position = e.Position
	if e.Position == frame.Last {
		s.index, s.time = frame.Index, frame.Time
	}
	return nil
}
