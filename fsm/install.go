package fsm

import (
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"

	eventlog "cairn/log"
	"cairn/snapshot"
)

// Reasons why a snapshot can't be taken now; the caller tries again.
var (
	ErrSavepointBusy = errors.New("a savepoint is still being written")
	ErrReplaying     = errors.New("entries from before the last savepoint are still being replayed")
)

// Snapshot freezes the state in this very call, so that no command lies between
// the snapshot's savepoint and the index that Raft notes for it: Raft removes
// its entries up to there.
func (m *Machine) Snapshot() (raft.FSMSnapshot, error) {
	if err := m.stopped(); err != nil {
		return nil, err
	}
	if m.seen < m.state.index {
		return nil, ErrReplaying
	}
	switch current := m.savepoint.current; {
	case current.writing():
		return nil, ErrSavepointBusy
	case current != nil && current.err != nil:
		return nil, current.err
	}
	return &persister{m: m, f: m.savepoint.freeze(true)}, nil
}

// persister hands a frozen savepoint's manifest to the snapshot store.
type persister struct {
	m *Machine
	f *frozen
}

// Persist returns when the savepoint is durable and its manifest is written.
func (p *persister) Persist(sink raft.SnapshotSink) error {
	<-p.f.done
	if err := errors.Join(p.f.err, p.f.manifestErr); err != nil {
		return err
	}
	b, err := snapshot.EncodeLocal(&p.f.manifest)
	if err != nil {
		return err
	}
	if _, err := sink.Write(b); err != nil {
		return fmt.Errorf("write the manifest: %w", err)
	}
	return nil
}

// Release is called when Raft is done with the snapshot. A checkpoint that the
// store did not take over would keep old tables on the disk.
func (p *persister) Release() {
	<-p.f.done
	if p.f.err != nil {
		return
	}
	fs := p.m.opts.FS
	if err := fs.RemoveAll(fs.PathJoin(p.f.gen.dir, snapshot.StateName(p.f.savepoint.Index))); err != nil {
		p.m.logger.Warn("removing a checkpoint that was not used", "error", err)
	}
}

// checkpoint makes hard links of the state as of the savepoint just committed,
// and describes what belongs to it; the snapshot store adds the hashes. It runs
// on the savepoint's goroutine, so that no other savepoint is committed
// meanwhile.
func (m *Machine) checkpoint(f *frozen) (snapshot.Manifest, error) {
	fs, sp := m.opts.FS, f.savepoint
	name := snapshot.StateName(sp.Index)
	dir := fs.PathJoin(f.gen.dir, name)
	if err := fs.RemoveAll(dir); err != nil {
		return snapshot.Manifest{}, fmt.Errorf("remove an old checkpoint: %w", err)
	}
	if err := f.gen.checkpoint(dir); err != nil {
		return snapshot.Manifest{}, err
	}
	man := snapshot.Manifest{
		Format: snapshot.ManifestFormat, LogID: f.logID, Version: f.version, Generation: fs.PathBase(f.gen.dir),
		Index: sp.Index, Position: sp.Position, State: name,
	}
	man.Segments = manifestSegments(f.gen.log.Sealed(sp.Position))
	active, length, err := f.gen.log.ActiveAt(sp.Position)
	if err == nil && active != "" { // what is damaged here must not be given to others
		err = eventlog.VerifyPrefix(fs, fs.PathJoin(f.gen.logDir, active), length)
	}
	man.Active = snapshot.File{Name: active, Size: length}
	return man, err
}

// Restore goes over to the data generation that an install has staged. The
// snapshot's bytes were taken in and checked by the store before; here they
// only come into force, by one rename.
func (m *Machine) Restore(source io.ReadCloser) error {
	manifest, err := snapshot.ReadManifest(source)
	if err := errors.Join(err, source.Close(), m.stopped()); err != nil {
		return err
	}
	if err := m.install(manifest); err != nil {
		return m.fail(fmt.Errorf("install a snapshot: %w", err))
	}
	return nil
}

func (m *Machine) install(manifest *snapshot.Manifest) error {
	m.savepoint.settle()
	if manifest.Generation == m.opts.Generations.Current() {
		return fmt.Errorf("its data generation %s is in use already", manifest.Generation)
	}
	// An older program must refuse before it opens what it can't read.
	if err := supports(manifest.Version); err != nil {
		return err
	}
	if err := m.opts.RaiseVersion(manifest.Version); err != nil {
		return fmt.Errorf("note cluster version %d: %w", manifest.Version, err)
	}
	if _, err := m.opts.Generations.Promote(manifest.Generation); err != nil {
		return err
	}
	gen, st, saved, err := m.openGeneration()
	if err != nil {
		return err
	}
	if err := gen.log.Cut(); err != nil {
		return errors.Join(err, gen.close())
	}
	if st.index < m.state.index || m.state.logID != "" && st.logID != m.state.logID {
		return errors.Join(fmt.Errorf("it is of log %s as of index %d, this node has log %s as of index %d",
			st.logID, st.index, m.state.logID, m.state.index), gen.close())
	}
	born := m.state.logID == "" && st.logID != ""
	old := m.gen
	m.genMu.Lock()
	m.gen = gen
	m.genMu.Unlock()
	m.state, m.seen = st, st.index
	m.durable.set(saved.Index, saved.Position)
	m.published.setMembers(st.membership())
	if born {
		if err := m.opts.OnBirth(st.logID); err != nil {
			return err
		}
	}
	m.published.advance(&st)
	m.stats.installs.Add(1)
	old.superseded.Store(true)
	old.release()
	return nil
}
