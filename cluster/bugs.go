package cluster

import (
	"time"

	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/types"
)

// What package bug lists and is more than a line. Nothing here runs in a binary
// built without the tag faults.

// pretend answers for a server that it has what it is sent, and sends it a
// moment later. To a server that lacks something it sends in earnest, until it
// has it.
func (t *raftTransport) pretend(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	send := func(answer *raft.AppendEntriesResponse) error {
		err := t.NetworkTransport.AppendEntries(id, t.at(id, target), args, answer)
		if err == nil && answer.Success {
			t.behind.Delete(id)
		} else {
			t.behind.Store(id, true)
		}
		return err
	}
	if _, behind := t.behind.Load(id); behind {
		return send(resp)
	}
	go func() {
		time.Sleep(300 * time.Millisecond)
		_ = send(&raft.AppendEntriesResponse{}) // it has noted what came of it
	}()
	*resp = raft.AppendEntriesResponse{Term: args.Term, LastLog: args.Entries[len(args.Entries)-1].Index, Success: true}
	return nil
}

// neverSynced is a file system whose files are written and never fsynced.
type neverSynced struct{ types.VFS }

// Create makes a file.
func (v neverSynced) Create(dir, name string, size uint64) (types.WritableFile, error) {
	f, err := v.VFS.Create(dir, name, size)
	return unsyncedFile{f}, err
}

// OpenWriter opens one.
func (v neverSynced) OpenWriter(dir, name string) (types.WritableFile, error) {
	f, err := v.VFS.OpenWriter(dir, name)
	return unsyncedFile{f}, err
}

type unsyncedFile struct{ types.WritableFile }

// Sync does nothing.
func (unsyncedFile) Sync() error { return nil }

// forgetTail removes the last entries of Raft's log.
func forgetTail(wal raft.LogStore) error {
	first, err := wal.FirstIndex()
	if err != nil {
		return err
	}
	last, err := wal.LastIndex()
	if err != nil || last < first+10 {
		return err
	}
	return wal.DeleteRange(last-4, last)
}
