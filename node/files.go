package node

import (
	"context"
	"errors"
	"os"

	"cairn/cluster"
	"cairn/fsm"
	"cairn/httpapi"
	eventlog "cairn/log"
	"cairn/snapshot"
)

// given is what a node gives away, as httpapi.Files.
type given struct {
	machine *fsm.Machine
	store   *snapshot.Store
	members *cluster.Node
	turn    chan struct{} // holds a token while somebody asks for a snapshot
}

// Log describes the log's files.
func (f given) Log() (httpapi.LogFiles, error) {
	have, err := f.machine.LogFiles()
	if err != nil {
		return httpapi.LogFiles{}, err
	}
	list := httpapi.LogFiles{Log: have.LogID, Position: have.Position, Segments: []httpapi.SegmentFile{}}
	for _, s := range have.Sealed {
		list.Segments = append(list.Segments, httpapi.SegmentFile{Name: s.Name, Base: s.Base, Last: s.Last, Size: s.Size, Hash: s.Hash})
	}
	if have.Active != "" {
		list.Segments = append(list.Segments, httpapi.SegmentFile{Name: have.Active, Base: have.ActiveBase, Last: have.Position, Size: have.ActiveSize})
	}
	return list, nil
}

// OpenSegment opens a file of the log.
func (f given) OpenSegment(name string) (httpapi.File, error) {
	file, size, err := f.machine.OpenSegment(name)
	if err != nil {
		return httpapi.File{}, err
	}
	return httpapi.File{ReaderAt: file, Closer: file, Size: size}, nil
}

// OpenState opens a file of a snapshot's state.
func (f given) OpenState(id, name string) (httpapi.File, error) {
	file, size, err := f.store.OpenState(id, name)
	if errors.Is(err, os.ErrNotExist) {
		return httpapi.File{}, errors.Join(eventlog.ErrNotFound, err)
	}
	if err != nil {
		return httpapi.File{}, err
	}
	return httpapi.File{ReaderAt: file, Closer: file, Size: size}, nil
}

// Snapshot takes a snapshot, unless there is one that was taken while the call
// waited for its turn, or that nothing has followed.
func (f given) Snapshot(ctx context.Context) (httpapi.SnapshotInfo, error) {
	wanted, _ := f.machine.Applied()
	select {
	case f.turn <- struct{}{}:
		defer func() { <-f.turn }()
	case <-ctx.Done():
		return httpapi.SnapshotInfo{}, ctx.Err()
	}
	meta, manifest, err := f.store.Newest()
	if err == nil && (meta == nil || manifest.Index < wanted) {
		if err = f.members.Snapshot(ctx); err == nil {
			meta, manifest, err = f.store.Newest()
		}
	}
	if err != nil {
		return httpapi.SnapshotInfo{}, err
	}
	if meta == nil {
		return httpapi.SnapshotInfo{}, errors.New("there is nothing to take a snapshot of")
	}
	return httpapi.SnapshotInfo{ID: meta.ID, Index: manifest.Index, Position: manifest.Position, Bytes: meta.Size}, nil
}
