// An executor in Go that checks a permit offline, from proto/SIGNING.md ("Permit") alone, with nothing but the standard library. To run it:
//
//	go run ./permit CHAIN IDENTITY EXECUTOR ACTION TYPE ID ARGUMENTS < permit
//
// CHAIN and IDENTITY (hex) are those of its trust file. It prints the decision's id and exits 0 if it may act now, once: a real executor
// remembers which decisions it has acted on.
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

var names = []string{"chain", "decision", "seq", "agent", "executor", "target", "arguments", "not_after"}

func main() {
	if len(os.Args) != 8 {
		fmt.Fprintln(os.Stderr, "usage: permit CHAIN IDENTITY EXECUTOR ACTION TYPE ID ARGUMENTS < permit")
		os.Exit(2)
	}
	decision, err := check(os.Stdin, os.Args[1:], time.Now())
	if err != nil {
		fmt.Fprintln(os.Stderr, "permit refused:", err)
		os.Exit(1)
	}
	fmt.Println(decision)
}

func check(from io.Reader, given []string, now time.Time) (string, error) {
	chain, executor, arguments := given[0], given[2], given[6]
	identity, err := hex.DecodeString(given[1])
	if err != nil || len(identity) != ed25519.PublicKeySize {
		return "", errors.New("the identity key is not 32 bytes in hex")
	}
	note, err := io.ReadAll(io.LimitReader(from, 16_384+1)) // LEDGER.md: the longest note
	if err != nil || len(note) > 16_384 {
		return "", errors.New("it is too long")
	}
	text, err := opened(note, "sidecar.v1/"+chain+"/identity", identity)
	if err != nil {
		return "", err
	}
	permit, err := lines(text)
	if err != nil {
		return "", err
	}
	if arguments == "" {
		arguments = "{}"
	}
	done := sha256.Sum256([]byte("sidecar/v1/arguments\x00" + arguments))
	for name, due := range map[string]string{
		"chain": chain, "executor": executor, "target": target(given[3:6]), "arguments": hex.EncodeToString(done[:]),
	} {
		if permit[name] != due {
			return "", fmt.Errorf("it is for another %s", name)
		}
	}
	until, err := strconv.ParseInt(permit["not_after"], 10, 64)
	if err != nil || strconv.FormatInt(until, 10) != permit["not_after"] || now.UnixNano() >= until {
		return "", errors.New("it has expired")
	}
	return permit["decision"], nil
}

// opened gives the text of a signed note with exactly one signature, by this key under this name (C2SP signed-note).
func opened(note []byte, name string, key ed25519.PublicKey) (string, error) {
	end := bytes.LastIndex(note, []byte("\n\n"))
	if end < 0 {
		return "", errors.New("it is no signed note")
	}
	text, line := note[:end+1], string(note[end+2:])
	encoded, found := strings.CutPrefix(line, "— "+name+" ")
	encoded, whole := strings.CutSuffix(encoded, "\n")
	said, err := base64.StdEncoding.Strict().DecodeString(encoded)
	hash := sha256.Sum256(append([]byte(name+"\n\x01"), key...))
	if !found || !whole || err != nil || strings.ContainsAny(encoded, "\r\n") || len(said) != 4+ed25519.SignatureSize || !bytes.Equal(said[:4], hash[:4]) {
		return "", errors.New("it has not one signature by the sidecar's key")
	}
	if !ed25519.Verify(key, text, said[4:]) {
		return "", errors.New("the signature is not the sidecar's")
	}
	return string(text), nil
}

func lines(text string) (map[string]string, error) {
	all := strings.Split(text, "\n")
	if len(all) != len(names)+2 || all[0] != "sidecar/v1/permit" || all[len(all)-1] != "" {
		return nil, errors.New("it is no permit")
	}
	read := map[string]string{}
	for at, name := range names {
		value, found := strings.CutPrefix(all[at+1], name+" ")
		if !found {
			return nil, fmt.Errorf("it has no %s in its place", name)
		}
		read[name] = value
	}
	return read, nil
}

func target(fields []string) string {
	hash := sha256.New()
	hash.Write([]byte("sidecar/v1/target\x00"))
	for _, field := range fields {
		hash.Write(binary.BigEndian.AppendUint32(nil, uint32(len(field))))
		hash.Write([]byte(field))
	}
	return hex.EncodeToString(hash.Sum(nil))
}
