// Note signs and opens notes with golang.org/x/mod/sumdb/note, the code that the C2SP signed-note format was written
// down from, so that the tests can hold ours against it. Notes are base64, because not every one is valid UTF-8.
package main

import (
	"fmt"

	"golang.org/x/mod/sumdb/note"

	"sidecar/tests/oracles/lines"
)

type question struct {
	Ask  string
	Key  string // sign: the signer's key; open, key: the verifier's key
	Text string // sign
	Note []byte // open
}

type answer struct {
	Accepted bool   `json:"accepted"`
	Text     string `json:"text,omitempty"` // open
	Note     []byte `json:"note,omitempty"` // sign
}

func reply(q question) (answer, error) {
	switch q.Ask {
	case "key":
		_, err := note.NewVerifier(q.Key)
		return answer{Accepted: err == nil}, nil
	case "open":
		return open(q)
	case "sign":
		signer, err := note.NewSigner(q.Key)
		if err != nil {
			return answer{}, err
		}
		signed, err := note.Sign(&note.Note{Text: q.Text}, signer)
		return answer{Accepted: err == nil, Note: signed}, nil
	}
	return answer{}, fmt.Errorf("unknown question %q", q.Ask)
}

func open(q question) (answer, error) {
	verifier, err := note.NewVerifier(q.Key)
	if err != nil {
		return answer{}, err
	}
	opened, err := note.Open(q.Note, note.VerifierList(verifier))
	if err != nil {
		return answer{}, nil
	}
	return answer{Accepted: true, Text: opened.Text}, nil
}

func main() {
	lines.Serve(reply)
}
