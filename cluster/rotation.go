package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"time"

	raftwal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"

	"cairn/bug"
)

// OpenWAL opens Raft's log in a folder on vfs. Which files it has stands in meta;
// segmentSize is that of a file in bytes, 0 = 64 MiB.
func OpenWAL(dir string, vfs types.VFS, meta types.MetaStore, segmentSize int, logger *slog.Logger) (*raftwal.WAL, error) {
	if bug.Is(bug.SkipFsync) {
		vfs = neverSynced{vfs}
	}
	wal, err := raftwal.Open(dir, raftwal.WithMetaStore(&rotation{meta, vfs}), raftwal.WithSegmentFiler(segment.NewFiler(dir, vfs)),
		raftwal.WithSegmentSize(segmentSize), raftwal.WithLogger(newRaftLogger(logger, "raft-wal")))
	if err != nil {
		return nil, errors.Join(err, meta.Close()) // a lock of it would be held
	}
	if bug.Is(bug.LostTail) {
		err = forgetTail(wal)
	}
	return wal, err
}

// rotation wraps the meta store of a raft-wal so that a crash in the middle of a
// rotation does not leave a log that nothing can be written to.
//
// raft-wal (v0.4.2) seals a full segment in the write of its last entries and
// notes that in its meta store afterwards. After a crash in between it takes the
// segment for its tail, finds it sealed, and refuses every write, also after any
// further start. So does it when that last write is torn: it drops the entries,
// but not its belief that the segment is sealed. Load puts both right before
// raft-wal looks: it notes the seal, or wipes what is left of the torn write.
//
// A crash while Load runs is as one before it: it finds the same again, or less
// of the torn write, or finds it done.
type rotation struct {
	types.MetaStore
	vfs types.VFS
}

// Load returns the state, with the rotation that a crash has cut short finished.
func (r *rotation) Load(dir string) (types.PersistentState, error) {
	state, err := r.MetaStore.Load(dir)
	n := len(state.Segments)
	if err != nil || n == 0 || !state.Segments[n-1].SealTime.IsZero() {
		return state, err
	}
	t, err := readTail(dir, r.vfs, state.Segments[n-1])
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return state, nil // raft-wal makes it
	case err != nil:
		return state, fmt.Errorf("look at the last segment of Raft's log: %w", err)
	case t.indexStart == 0:
		return state, t.syncTail(dir, r.vfs)
	case t.torn:
		return state, t.wipe(dir, r.vfs)
	}
	if err := t.syncTail(dir, r.vfs); err != nil {
		return state, err
	}
	now := time.Now()
	sealed := &state.Segments[n-1]
	sealed.SealTime, sealed.MaxIndex, sealed.IndexStart = now, t.last, t.indexStart
	state.Segments = append(state.Segments, types.SegmentInfo{
		ID: state.NextSegmentID, BaseIndex: t.last + 1, MinIndex: t.last + 1,
		SizeLimit: sealed.SizeLimit, Codec: sealed.Codec, CreateTime: now,
	})
	state.NextSegmentID++
	return state, r.CommitState(state)
}

// tail is what recovery makes of the last segment.
type tail struct {
	info       types.SegmentInfo
	last       uint64 // index of its last entry, 0 if it has none
	indexStart uint64 // offset of the index that seals it, 0 if there is none
	torn       bool   // the write that was to seal it is not whole
	end        int64  // of torn: offset behind the last whole write
}

// frameHeader is the size of what stands before each frame of raft-wal: its
// type in the first byte, its length in the last four, little-endian. Payloads
// are filled up to a multiple of it.
const frameHeader = 8

func readTail(dir string, vfs types.VFS, info types.SegmentInfo) (t tail, err error) {
	w, err := segment.NewFiler(dir, vfs).RecoverTail(info)
	if err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	t.info, t.last = info, w.LastIndex()
	if _, t.indexStart, err = w.Sealed(); err != nil || t.indexStart == 0 {
		return t, err
	}
	file, err := vfs.OpenReader(dir, segment.FileName(info))
	if err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	writer := w.(*segment.Writer)
	whole, err := t.wholeIndex(file, writer)
	if t.torn = !whole; err != nil || whole || t.last == 0 {
		return t, err
	}
	offset, err := writer.OffsetForFrame(t.last)
	if err != nil {
		return t, err
	}
	bytes, err := frameLength(file, int64(offset))
	if err != nil {
		return t, err
	}
	payload := (int64(bytes) + frameHeader - 1) / frameHeader * frameHeader
	t.end = int64(offset) + frameHeader + payload + frameHeader // behind the commit of that write
	return t, nil
}

// wholeIndex reports whether the index that seals the segment leads to each of
// its entries and to no more. An index that was to name an entry of a write that
// is torn, or that is torn itself, does not: from then on nothing else would
// tell where the entries are.
func (t *tail) wholeIndex(file io.ReaderAt, w *segment.Writer) (bool, error) {
	entries := uint64(0)
	if t.last > 0 {
		entries = t.last - t.info.BaseIndex + 1
	}
	bytes, err := frameLength(file, int64(t.indexStart)-frameHeader)
	if err != nil || uint64(bytes) != 4*entries {
		return false, err
	}
	index := make([]byte, bytes)
	if _, err := file.ReadAt(index, int64(t.indexStart)); err != nil && err != io.EOF {
		return false, err
	}
	for i := max(t.info.MinIndex, t.info.BaseIndex); i <= t.last; i++ { // what is below was cut off and is not read
		offset, err := w.OffsetForFrame(i)
		if err != nil {
			return false, err
		}
		if binary.LittleEndian.Uint32(index[4*(i-t.info.BaseIndex):]) != offset {
			return false, nil
		}
	}
	return true, nil
}

// syncTail makes durable what is in the last segment: after a crash of the
// process alone its last write may be in memory only, and nobody would sync a
// segment any more that is sealed.
func (t *tail) syncTail(dir string, vfs types.VFS) (err error) {
	file, err := vfs.OpenWriter(dir, segment.FileName(t.info))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return file.Sync()
}

func frameLength(file io.ReaderAt, offset int64) (uint32, error) {
	var header [frameHeader]byte
	if _, err := file.ReadAt(header[:], offset); err != nil && err != io.EOF {
		return 0, err
	}
	return binary.LittleEndian.Uint32(header[4:]), nil
}

// wipe makes everything behind the last whole write zero, as raft-wal expects
// it. None of it was ever acknowledged.
func (t *tail) wipe(dir string, vfs types.VFS) (err error) {
	file, err := vfs.OpenWriter(dir, segment.FileName(t.info))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	var found, zeros [64 << 10]byte
	for offset := t.end; ; {
		n, err := file.ReadAt(found[:], offset)
		if err != nil && err != io.EOF {
			return err
		}
		if n == 0 {
			return file.Sync()
		}
		if found != zeros {
			if _, err := file.WriteAt(zeros[:n], offset); err != nil {
				return err
			}
		}
		clear(found[:])
		offset += int64(n)
	}
}
