package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hashicorp/raft"

	"cairn/snapshot"
)

// Installing a snapshot. Raft's own way is one stream from the leader, during
// which the follower's Raft does nothing else, and which begins anew after every
// fault. So the leader offers the manifest first; the follower fetches the files
// that it lacks, from any node, while its Raft goes on, and says how far it is.
// When all are there, Raft's message carries the manifest alone and the install
// takes a moment. A follower that can't fetch asks for the stream.
const (
	callOffer    = "offer"
	offerPause   = 200 * time.Millisecond // between two questions how far a follower is
	offerTimeout = 5 * time.Second        // of one question
	maxOffer     = maxCallBody / 2        // bytes of a manifest; it travels as base64
)

// Offer is a snapshot that the leader wants to install on this node.
type Offer struct {
	Leader   string `json:"leader"`   // node id
	Snapshot string `json:"snapshot"` // its id, at the leader
	Manifest []byte `json:"manifest"`
}

// Preparation says how far a node is with what it was offered.
type Preparation struct {
	Stream  bool   `json:"stream,omitempty"`  // it can't fetch: Raft is to carry the files
	Ready   bool   `json:"ready,omitempty"`   // all files are there
	Fetched int64  `json:"fetched,omitempty"` // bytes
	Total   int64  `json:"total,omitempty"`   // bytes that it lacked
	Error   string `json:"error,omitempty"`   // why it gave up; the next offer begins anew
}

// Preparer brings the files of snapshots to this node.
type Preparer interface {
	// Offered returns at once. The first call with a snapshot begins to fetch it,
	// further ones say how far that is.
	Offered(o Offer) Preparation
}

// serveOffer answers the leader.
func (n *Node) serveOffer(_ context.Context, body []byte) ([]byte, error) {
	var o Offer
	if err := json.Unmarshal(body, &o); err != nil {
		return nil, fmt.Errorf("decode an offer: %w", err)
	}
	p := Preparation{Stream: true}
	if n.cfg.Preparer != nil {
		p = n.cfg.Preparer.Offered(o)
	}
	return json.Marshal(p)
}

// offer has a server prepare a snapshot, and returns true when it is ready and
// false if it wants the stream. It gives up when this node no longer leads.
func (n *Node) offer(id raft.ServerID, addr, name string, manifest []byte) (ready bool, err error) {
	if len(manifest) > maxOffer {
		return false, nil
	}
	body, err := json.Marshal(Offer{Leader: n.cfg.NodeID, Snapshot: name, Manifest: manifest})
	if err != nil {
		return false, fmt.Errorf("encode an offer: %w", err)
	}
	begun := time.Now()
	for {
		p, err := n.askPrepared(addr, body)
		switch {
		case err != nil && n.ending.Err() != nil:
			return false, ErrClosed
		case err != nil:
			return false, fmt.Errorf("offer snapshot %s to %s: %w", name, id, err)
		case p.Error != "":
			return false, fmt.Errorf("%s could not fetch snapshot %s: %s", id, name, p.Error)
		case p.Stream:
			return false, nil
		case p.Ready:
			n.logger.Info("snapshot prepared", "server", id, "snapshot", name, "bytes", p.Total, "took", time.Since(begun))
			return true, nil
		}
		select {
		case <-time.After(offerPause):
		case <-n.ending.Done():
			return false, ErrClosed
		}
		if n.views.load().leader != raft.ServerID(n.cfg.NodeID) {
			return false, ErrNoLeader
		}
	}
}

func (n *Node) askPrepared(addr string, body []byte) (Preparation, error) {
	ctx, cancel := context.WithTimeout(n.ending, offerTimeout)
	defer cancel()
	answer, err := n.peers.call(ctx, addr, callOffer, body)
	if p := (*PeerError)(nil); errors.As(err, &p) && p.Code == codeNoHandler {
		return Preparation{Stream: true}, nil
	}
	if err != nil {
		return Preparation{}, err
	}
	var p Preparation
	if err := json.Unmarshal(answer, &p); err != nil {
		return Preparation{}, fmt.Errorf("decode the answer to an offer: %w", err)
	}
	return p, nil
}

// InstallSnapshot offers a snapshot, and sends what the server then needs.
func (t *raftTransport) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	send := func(args *raft.InstallSnapshotRequest, data io.Reader) error {
		return t.NetworkTransport.InstallSnapshot(id, t.at(id, target), args, resp, data)
	}
	source, ok := data.(io.ReadCloser)
	if !ok || t.offer == nil {
		return send(args, data)
	}
	meta, ok := snapshotMeta(source)
	if !ok {
		return send(args, data)
	}
	manifest, whole, err := snapshot.ReadHead(data)
	if err != nil {
		return err
	}
	addr := target
	if current, ok := t.address(id); ok {
		addr = current
	}
	ready, err := t.offer(id, string(addr), meta.ID, manifest)
	if err != nil {
		return err
	}
	if !ready {
		return send(args, whole)
	}
	prepared, err := snapshot.EncodePrepared(manifest)
	if err != nil {
		return err
	}
	short := *args
	short.Size = int64(len(prepared))
	return send(&short, bytes.NewReader(prepared))
}
