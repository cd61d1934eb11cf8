package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// pledgeFile stands beside Raft's stable store from a node's pledge to its
// first entry.
const pledgeFile = "pledge.json"

// pledge is a node's word to take part in forming one cluster and no other.
type pledge struct {
	Coordinator string         `json:"coordinator"` // node id of the one who may write the list
	Attempt     string         `json:"attempt"`     // random; tells its attempts apart
	Servers     []listedServer `json:"servers"`     // by id
}

// listedServer is one voter of the cluster to be.
type listedServer struct {
	ID   string `json:"id"`
	Addr string `json:"addr"`
}

// pledgeStore keeps the pledge of one node.
type pledgeStore interface {
	// load returns the pledge, nil if there is none.
	load() (*pledge, error)
	// save returns when the pledge is durable; nil takes it back.
	save(p *pledge) error
}

// former is the state of forming a cluster on one node.
type former struct {
	store pledgeStore

	mu      sync.Mutex // held while a pledge is written, never during a call
	held    *pledge    // what is in the store, nil = nothing; under mu
	rival   bool       // another coordinator wanted our pledge meanwhile; under mu
	attempt *pledge    // our own attempt, nil = none or given up; under mu
	writing bool       // our attempt is going into Raft and can't be given up; under mu
	done    bool       // we wrote the list; under mu
	agreed  bool       // in this run we pledged ourselves or wrote; under mu
}

// pledged returns the pledge this node is bound by, nil if none.
func (f *former) pledged() *pledge {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.held
}

// wanted says that another coordinator was refused because of the pledge held.
func (f *former) wanted() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rival
}

// tookPart says that this node has agreed to form a cluster, or is bound to,
// in this run. It may be a voter then although its disk was empty at start.
func (f *former) tookPart() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.agreed || f.held != nil
}

// holdLocked makes p the pledge.
func (f *former) holdLocked(p *pledge) error {
	if err := f.store.save(p); err != nil {
		return fmt.Errorf("keep the pledge to form a cluster: %w", err)
	}
	f.held, f.rival = p, false
	return nil
}

// accept binds this node to p unless it is bound to another coordinator. A new
// attempt of the same one replaces the last: only the coordinator could have
// used that, and it has given it up.
func (f *former) accept(p *pledge) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.writing || f.done:
		return errors.New("is forming a cluster itself")
	case f.held != nil && f.held.Coordinator != p.Coordinator:
		f.rival = true
		return fmt.Errorf("has pledged itself to %s", f.held.Coordinator)
	}
	f.attempt = nil // our own one, if any: who pledges itself stops
	f.agreed = true
	return f.holdLocked(p)
}

// release takes back the pledge to one attempt, if it still is the one held.
func (f *former) release(attempt string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.held == nil || f.held.Attempt != attempt {
		return nil
	}
	return f.holdLocked(nil)
}

// begin starts an attempt of our own, unless this node is bound to another one.
func (f *former) begin(p *pledge) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.held != nil {
		return fmt.Errorf("has pledged itself to %s", f.held.Coordinator)
	}
	f.attempt = p
	return nil
}

// commit passes the point after which an attempt can't be given up; false says
// that it was given up before.
func (f *former) commit(p *pledge) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.attempt != p {
		return false
	}
	f.writing, f.agreed = true, true
	return true
}

// written notes that the list of our attempt is in Raft.
func (f *former) written() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done = true
}

// giveUp ends an attempt of ours; false says that it may have been written. An
// attempt we do not know, of an earlier run, was not, if Raft has no state.
func (f *former) giveUp(attempt string, state bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.writing || f.done || state {
		return false
	}
	// Whichever it is: calls may overtake each other, and the node that takes an
	// attempt back may have pledged itself to a later one before.
	f.attempt = nil
	return true
}

// memoryPledge is the pledge of a node without files.
type memoryPledge struct{ p *pledge }

func (s *memoryPledge) load() (*pledge, error) { return s.p, nil }

func (s *memoryPledge) save(p *pledge) error {
	s.p = p
	return nil
}

// PledgeStore keeps the pledge of a node that is given its stores.
type PledgeStore interface {
	// Load returns what was saved, nil if there is nothing.
	Load() ([]byte, error)
	// Save returns when b is durable; nil takes back what was saved.
	Save(b []byte) error
}

// storedPledge is the pledge in a PledgeStore.
type storedPledge struct{ PledgeStore }

func (s storedPledge) load() (*pledge, error) {
	b, err := s.Load()
	if err != nil || b == nil {
		return nil, err
	}
	p := new(pledge)
	return p, json.Unmarshal(b, p)
}

func (s storedPledge) save(p *pledge) error {
	if p == nil {
		return s.Save(nil)
	}
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return s.Save(b)
}

// filePledge is the pledge in a file.
type filePledge string

func (path filePledge) load() (*pledge, error) {
	b, err := os.ReadFile(string(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	p := new(pledge)
	if err := json.Unmarshal(b, p); err != nil {
		return nil, fmt.Errorf("%s: %w", string(path), err)
	}
	return p, nil
}

// save writes a new file and renames it over the old one; the folder is synced
// in any case, so that a pledge can neither vanish nor come back.
func (path filePledge) save(p *pledge) error {
	if p == nil {
		if err := os.Remove(string(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return syncFolder(filepath.Dir(string(path)))
	}
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	fresh := string(path) + ".new"
	f, err := os.OpenFile(fresh, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(fresh, string(path)); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(string(path)))
}

func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
