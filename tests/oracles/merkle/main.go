// Merkle answers questions about RFC 6962 trees with the code of transparency-dev/merkle, so that the tests can hold
// ours against it. Hashes are base64.
package main

import (
	"fmt"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/merkle/testonly"

	"sidecar/tests/oracles/lines"
)

type question struct {
	Ask          string
	Index, Size  uint64 // inclusion, climb
	Leaf, Root   []byte
	Size1, Size2 uint64 // consistency
	Root1, Root2 []byte
	Proof        [][]byte
	Leaves       [][]byte // tree: the leaves' data, not their hashes
}

type answer struct {
	Accepted    bool       `json:"accepted"`
	Root        []byte     `json:"root,omitempty"`
	Inclusion   [][][]byte `json:"inclusion,omitempty"`   // by index
	Consistency [][][]byte `json:"consistency,omitempty"` // from size 1, 2, ...
}

func reply(q question) (answer, error) {
	hasher := rfc6962.DefaultHasher
	switch q.Ask {
	case "inclusion":
		err := proof.VerifyInclusion(hasher, q.Index, q.Size, q.Leaf, q.Proof, q.Root)
		return answer{Accepted: err == nil}, nil
	case "consistency":
		err := proof.VerifyConsistency(hasher, q.Size1, q.Size2, q.Proof, q.Root1, q.Root2)
		return answer{Accepted: err == nil}, nil
	case "climb":
		root, err := proof.RootFromInclusionProof(hasher, q.Index, q.Size, q.Leaf, q.Proof)
		return answer{Accepted: err == nil, Root: root}, nil
	case "tree":
		return grow(q.Leaves)
	}
	return answer{}, fmt.Errorf("unknown question %q", q.Ask)
}

func grow(leaves [][]byte) (answer, error) {
	tree := testonly.New(rfc6962.DefaultHasher)
	tree.AppendData(leaves...)
	grown := answer{Accepted: true, Root: tree.Hash()}
	for index := range tree.Size() {
		path, err := tree.InclusionProof(index, tree.Size())
		if err != nil {
			return answer{}, err
		}
		grown.Inclusion = append(grown.Inclusion, path)
		steps, err := tree.ConsistencyProof(index+1, tree.Size())
		if err != nil {
			return answer{}, err
		}
		grown.Consistency = append(grown.Consistency, steps)
	}
	return grown, nil
}

func main() {
	lines.Serve(reply)
}
