package httpapi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sort"
	"strings"
	"sync"

	"cairn/event"
)

const testLog = "0192f0c1-0000-7000-8000-000000000001"

var (
	errFakeNotFound = errors.New("fake: no such event")
	errFakeNoLeader = errors.New("fake: no leader")
	errFakeBusy     = errors.New("fake: busy")
	errFakeUnknown  = errors.New("fake: nobody knows")
	errFakeMember   = errors.New("fake: no such member")
)

// damagedError is the fake's damaged file.
type damagedError struct{}

func (damagedError) Error() string { return "segment damaged" }

var discard = slog.New(slog.NewTextHandler(io.Discard, nil))

func classifyFake(err error) (Fault, bool) {
	var damaged damagedError
	switch {
	case errors.Is(err, errFakeNotFound), errors.Is(err, errFakeMember):
		return Fault{Code: NotFound}, true
	case errors.Is(err, errFakeNoLeader):
		return Fault{Code: NoLeader}, true
	case errors.Is(err, errFakeBusy):
		return Fault{Code: Overloaded}, true
	case errors.Is(err, errFakeUnknown):
		return Fault{Code: OutcomeUnknown}, true
	case errors.Is(err, errFakeDefinition):
		return Fault{Code: BadDefinition, Detail: err.Error(), Path: "when.T", Line: 2, Column: 7}, true
	case errors.Is(err, errFakeBuilding):
		return Fault{Code: Building, Progress: 0.43}, true
	case errors.Is(err, errFakeNumber):
		return Fault{Code: SchemaConflict, Newest: 2}, true
	case errors.Is(err, errFakeVersion):
		return Fault{Code: InvalidRequest}, true
	case errors.As(err, &damaged):
		return Fault{Code: Corrupt, File: "log/00000000000000000001.seg", Offset: 4711}, true
	}
	return Fault{}, false
}

// fakeStore is a node with a log in a slice. Its zero value is an empty log
// that is not born; newFakeStore gives birth to it.
type fakeStore struct {
	mu       sync.Mutex
	events   []event.Event
	logID    string
	changed  chan struct{}
	limit    uint64 // not 0 = positions above are not applied here yet
	hook     func(context.Context, *event.Append) error
	readErr  error // of every cursor and event
	indexed  error // of ReadIndex
	notYet   error // of Ready
	leader   string
	views    int // open ones
	together int // most appends that were proposed together
	selects  int
	removed  []string
	moved    []string
	file     []byte // contents of fakeFile

	ids      map[string]uint64 // positions of chosen ids, by stream and id
	versions map[string]uint64
}

func newFakeStore() *fakeStore {
	f := &fakeStore{changed: make(chan struct{}), logID: testLog, leader: "http://leader:7070"}
	f.clear()
	f.add(event.Event{Stream: event.StreamLog, Type: event.TypeLogCreated, ID: "birth", Data: []byte(`{}`)})
	return f
}

// clear makes the log one that is not born.
func (f *fakeStore) clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events, f.ids, f.versions = nil, map[string]uint64{}, map[string]uint64{}
}

// add appends without asking.
func (f *fakeStore) add(events ...event.Event) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.addLocked(events...)
}

func (f *fakeStore) addLocked(events ...event.Event) uint64 {
	for _, e := range events {
		e.Position = uint64(len(f.events)) + 1
		f.versions[e.Stream]++
		e.Version = f.versions[e.Stream]
		if e.IDChosen {
			f.ids[e.Stream+"\x00"+e.ID] = e.Position
		}
		if e.Time == 0 {
			e.Time = int64(1_700_000_000_000_000_000 + e.Position*1e9)
		}
		if e.Data == nil {
			e.Data = []byte("null")
		}
		f.events = append(f.events, e)
	}
	f.wakeLocked()
	return uint64(len(f.events))
}

func (f *fakeStore) wakeLocked() {
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *fakeStore) versionLocked(stream string, at uint64) uint64 {
	if at >= uint64(len(f.events)) {
		return f.versions[stream]
	}
	for i := int(at) - 1; i >= 0; i-- {
		if f.events[i].Stream == stream {
			return f.events[i].Version
		}
	}
	return 0
}

func (f *fakeStore) Propose(ctx context.Context, a *event.Append) (event.Outcome, error) {
	if err := f.meet(ctx, a); err != nil {
		return event.Outcome{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.appendLocked(a), nil
}

// ProposeAll writes none if the hook refuses one.
func (f *fakeStore) ProposeAll(ctx context.Context, appends []*event.Append) ([]event.Outcome, error) {
	for _, a := range appends {
		if err := f.meet(ctx, a); err != nil {
			return nil, err
		}
		if len(a.Conditions) > 0 {
			panic("an append with conditions among others")
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.together = max(f.together, len(appends))
	outcomes := make([]event.Outcome, len(appends))
	for i, a := range appends {
		outcomes[i] = f.appendLocked(a)
	}
	return outcomes, nil
}

// meet calls the hook.
func (f *fakeStore) meet(ctx context.Context, a *event.Append) error {
	if err := a.Check(); err != nil {
		panic("an append that breaks a rule got through: " + err.Error())
	}
	f.mu.Lock()
	hook := f.hook
	f.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook(ctx, a)
}

func (f *fakeStore) appendLocked(a *event.Append) event.Outcome {
	o, fresh := f.decideLocked(a)
	if fresh {
		o.Time = 1_800_000_000_000_000_000
		events := slices.Clone(a.Events)
		for i := range events {
			events[i].Time = o.Time
		}
		f.addLocked(events...)
		o.Versions = f.versionsLocked(a)
	}
	return o
}

// decideLocked is the state machine in short.
func (f *fakeStore) decideLocked(a *event.Append) (o event.Outcome, fresh bool) {
	var reused []event.IDAt
	first := uint64(0)
	same := true
	for i, e := range a.Events {
		at := f.ids[e.Stream+"\x00"+e.ID]
		if at == 0 {
			same = false
			continue
		}
		if i == 0 {
			first = at
		}
		stored := f.events[at-1]
		same = same && at == first+uint64(i) && string(stored.Data) == string(e.Data) && stored.Type == e.Type
		reused = append(reused, event.IDAt{ID: e.ID, Stream: e.Stream, Position: at})
	}
	if len(reused) > 0 {
		if !same {
			return event.Outcome{Code: event.IDReused, Reused: reused}, false
		}
		return event.Outcome{Code: event.Duplicate, First: first, Last: first + uint64(len(a.Events)) - 1, Versions: f.versionsLocked(a), Time: f.events[first-1].Time}, false
	}
	for i, c := range a.Conditions {
		version := f.versionLocked(c.Stream, uint64(len(f.events)))
		conflict := event.Conflict{Condition: i, Kind: c.Kind, Stream: c.Stream, Expected: c.Version, Actual: version}
		holds := true
		switch c.Kind {
		case event.StreamAtVersion:
			holds = version == c.Version
		case event.StreamExists:
			holds = version > 0
		case event.StreamMissing:
			holds = version == 0
		case event.NoMatch:
			for _, e := range f.events {
				if e.Position > c.After && c.Query.Matches(&e) {
					conflict.Position, holds = e.Position, false
					break
				}
			}
		}
		if !holds {
			return event.Outcome{Code: event.ConditionFailed, Conflict: &conflict}, false
		}
	}
	n := uint64(len(f.events))
	return event.Outcome{Code: event.Accepted, First: n + 1, Last: n + uint64(len(a.Events))}, true
}

func (f *fakeStore) versionsLocked(a *event.Append) []event.StreamVersion {
	var list []event.StreamVersion
	for _, e := range a.Events {
		if !slices.ContainsFunc(list, func(v event.StreamVersion) bool { return v.Stream == e.Stream }) {
			list = append(list, event.StreamVersion{Stream: e.Stream, Version: f.versionLocked(e.Stream, uint64(len(f.events)))})
		}
	}
	return list
}

func (f *fakeStore) Applied() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.appliedLocked()
}

func (f *fakeStore) appliedLocked() uint64 {
	n := uint64(len(f.events))
	if f.limit != 0 {
		n = min(n, f.limit)
	}
	return n
}

func (f *fakeStore) setLimit(n uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.limit = n
	f.wakeLocked()
}

func (f *fakeStore) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeStore) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.events)
}

func (f *fakeStore) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

func (f *fakeStore) WaitPosition(ctx context.Context, position uint64) error {
	for {
		changed := f.Changed()
		if f.Applied() >= position {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (f *fakeStore) LogID() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.appliedLocked() == 0 {
		return ""
	}
	return f.logID
}

func (f *fakeStore) View(at uint64) View {
	f.mu.Lock()
	defer f.mu.Unlock()
	applied := f.appliedLocked()
	if at == 0 || at > applied {
		at = applied
	}
	f.views++
	return &fakeView{f: f, at: at, events: f.events[:at], err: f.readErr}
}

type fakeView struct {
	f      *fakeStore
	at     uint64
	events []event.Event
	err    error
	closed bool
}

func (v *fakeView) Position() uint64 { return v.at }

func (v *fakeView) Close() {
	if v.closed {
		panic("view closed twice")
	}
	v.closed = true
	v.f.set(func() { v.f.views-- })
}

func (v *fakeView) Version(stream string) (uint64, error) {
	v.f.mu.Lock()
	defer v.f.mu.Unlock()
	return v.f.versionLocked(stream, v.at), v.err
}

func (v *fakeView) Event(position uint64) (event.Event, error) {
	if v.err != nil {
		return event.Event{}, v.err
	}
	if position > v.at {
		return event.Event{}, errFakeNotFound
	}
	return v.events[position-1], nil
}

func (v *fakeView) EventAt(stream string, version uint64) (event.Event, error) {
	if v.err != nil {
		return event.Event{}, v.err
	}
	for _, e := range v.events {
		if e.Stream == stream && e.Version == version {
			return e, nil
		}
	}
	return event.Event{}, errFakeNotFound
}

func (v *fakeView) Streams(prefix, after string, limit int) ([]event.StreamVersion, error) {
	versions := map[string]uint64{}
	for _, e := range v.events {
		versions[e.Stream] = e.Version
	}
	var list []event.StreamVersion
	for name, version := range versions {
		if strings.HasPrefix(name, prefix) && name > after {
			list = append(list, event.StreamVersion{Stream: name, Version: version})
		}
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Stream < list[j].Stream })
	return list[:min(limit, len(list))], v.err
}

func (v *fakeView) Select(s Selection) (Cursor, error) {
	v.f.set(func() { v.f.selects++ })
	return v.cursor(s.Backward, func(e *event.Event) bool {
		return e.Position > s.After && (s.Before == 0 || e.Position < s.Before) && s.Filter.Matches(e)
	}), nil
}

func (v *fakeView) Stream(name string, from uint64, backward bool) (Cursor, error) {
	return v.cursor(backward, func(e *event.Event) bool {
		return e.Stream == name && (e.Version == from || e.Version > from != backward)
	}), nil
}

func (v *fakeView) cursor(backward bool, matches func(*event.Event) bool) Cursor {
	c := &fakeCursor{v: v}
	for i := range v.events {
		if matches(&v.events[i]) {
			c.events = append(c.events, v.events[i])
		}
	}
	if backward {
		slices.Reverse(c.events)
	}
	return c
}

type fakeCursor struct {
	v      *fakeView
	events []event.Event
	at     int
}

func (c *fakeCursor) Next() bool {
	if c.v.closed {
		panic("cursor of a closed view")
	}
	c.at++
	return c.v.err == nil && c.at <= len(c.events)
}
func (c *fakeCursor) Event() *event.Event { return &c.events[c.at-1] }
func (c *fakeCursor) Err() error          { return c.v.err }
func (c *fakeCursor) Close()              {}

func (f *fakeStore) ReadIndex(ctx context.Context) error {
	f.mu.Lock()
	err := f.indexed
	f.mu.Unlock()
	return err
}

func (f *fakeStore) Ready() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.notYet
}

func (f *fakeStore) Leader() (id, url string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return "node-9", f.leader
}

func (f *fakeStore) Status(context.Context) ClusterStatus {
	return ClusterStatus{Log: testLog, Leader: "node-9", Term: 3, Members: []Member{
		{ID: "node-9", HTTP: "http://leader:7070", Role: "leader", Alive: true, Applied: f.Applied(), Version: "test"},
	}}
}

func (f *fakeStore) Transfer(_ context.Context, to string) error {
	if to != "" && to != "node-2" {
		return errFakeMember
	}
	f.set(func() { f.moved = append(f.moved, to) })
	return nil
}

func (f *fakeStore) Remove(_ context.Context, id string) error {
	if id != "node-2" {
		return errFakeMember
	}
	f.set(func() { f.removed = append(f.removed, id) })
	return nil
}

// fakeFile is the only file of a fakeStore, of its log as of its snapshot.
const fakeFile = "00000000000000000001.seg"

func (f *fakeStore) Log() (LogFiles, error) {
	return LogFiles{Log: f.LogID(), Position: f.Applied(), Segments: []SegmentFile{{Name: fakeFile, Base: 1, Last: f.Applied(), Size: int64(len(f.file))}}}, nil
}

func (f *fakeStore) OpenSegment(name string) (File, error) {
	if name != fakeFile {
		return File{}, errFakeNotFound
	}
	return File{ReaderAt: bytes.NewReader(f.file), Closer: io.NopCloser(nil), Size: int64(len(f.file))}, nil
}

func (f *fakeStore) OpenState(snapshot, name string) (File, error) {
	if snapshot != "snap" {
		return File{}, errFakeNotFound
	}
	return f.OpenSegment(name)
}

func (f *fakeStore) Snapshot(ctx context.Context) (SnapshotInfo, error) {
	return SnapshotInfo{ID: "snap", Index: 9, Position: f.Applied(), Bytes: int64(len(f.file))}, ctx.Err()
}
