package fsm

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
)

// subtreeLevel is the level of the subtrees whose roots are kept: 2^8 leaves.
const subtreeLevel = 8

// tree is the Merkle tree of RFC 6962 over all record headers, as far as it is
// needed to go on: the roots of its perfect subtrees, from left to right.
type tree struct {
	roots *compact.Range
}

var treeFactory = &compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}

func newTree() tree { return tree{roots: treeFactory.NewEmptyRange(0)} }

func loadTree(size uint64, frontier [][]byte) (tree, error) {
	r, err := treeFactory.NewRange(0, size, frontier)
	if err != nil {
		return tree{}, fmt.Errorf("load the tree of %d events: %w", size, err)
	}
	return tree{roots: r}, nil
}

// frontier returns the roots, for a savepoint. They are not changed afterwards.
func (t tree) frontier() [][]byte { return slices.Clone(t.roots.Hashes()) }

// root returns the root of all leaves so far.
func (t tree) root() ([]byte, error) {
	if t.roots.End() == 0 {
		return rfc6962.DefaultHasher.EmptyRoot(), nil
	}
	return t.roots.GetRootHash(nil)
}

// add appends the next leaf and calls keep with each full subtree of 256
// leaves that it completes.
func (t tree) add(leaf [32]byte, keep func(key, root []byte)) error {
	return t.roots.Append(leaf[:], func(id compact.NodeID, hash []byte) {
		if id.Level == subtreeLevel {
			keep(subtreeKey(id.Index), hash)
		}
	})
}

// subtreeKey is where the index keeps the root of the i-th full subtree.
func subtreeKey(i uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte("tree/"), i)
}
