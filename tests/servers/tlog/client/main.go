// Client follows a transparency log over HTTP with the code of torchwood and golang.org/x/mod, which know nothing of
// ours: it opens the checkpoint, fetches tiles and entry bundles, and checks every entry and some proofs.
//
//	client URL VKEY [OLDER-CHECKPOINT-FILE]
//
// It prints one JSON object, or fails.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type answer struct {
	Origin  string   `json:"origin"`
	Size    int64    `json:"size"`
	Entries []string `json:"entries"`
	Older   int64    `json:"older"`
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	ctx := context.Background()
	verifier, err := note.NewVerifier(args[1])
	if err != nil {
		return err
	}
	fetcher, err := torchwood.NewTileFetcher(args[0])
	if err != nil {
		return err
	}
	signed, err := fetcher.ReadEndpoint(ctx, "checkpoint")
	if err != nil {
		return err
	}
	opened, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		return err
	}
	tip, err := torchwood.ParseCheckpoint(opened.Text)
	if err != nil {
		return err
	}
	client, err := torchwood.NewClient(fetcher)
	if err != nil {
		return err
	}
	out := answer{Origin: tip.Origin, Size: tip.N}
	for i, entry := range client.Entries(ctx, tip.Tree, 0) {
		if i != int64(len(out.Entries)) {
			return fmt.Errorf("entry %d came out of order", i)
		}
		out.Entries = append(out.Entries, string(entry))
	}
	if err := client.Err(); err != nil {
		return err
	}
	// What the iterator left for a fuller bundle is asked for by its index, with its proof.
	for i := int64(len(out.Entries)); i < tip.N; i++ {
		entry, proof, err := client.Entry(ctx, tip.Tree, i)
		if err != nil {
			return err
		}
		if err := tlog.CheckRecord(proof, tip.N, tip.Hash, i, tlog.RecordHash(entry)); err != nil {
			return err
		}
		out.Entries = append(out.Entries, string(entry))
	}
	if len(args) > 2 {
		if out.Older, err = consistent(ctx, fetcher, tip, verifier, args[2]); err != nil {
			return err
		}
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}

func consistent(
	ctx context.Context, fetcher torchwood.TileReader, tip torchwood.Checkpoint, verifier note.Verifier, path string,
) (int64, error) {
	signed, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	opened, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		return 0, err
	}
	older, err := torchwood.ParseCheckpoint(opened.Text)
	if err != nil {
		return 0, err
	}
	hashes := torchwood.TileHashReaderWithContext(ctx, tip.Tree, fetcher)
	proof, err := tlog.ProveTree(tip.N, older.N, hashes)
	if err != nil {
		return 0, err
	}
	return older.N, tlog.CheckTree(proof, tip.N, tip.Hash, older.N, older.Hash)
}
