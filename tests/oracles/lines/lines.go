// Package lines is how the oracles are spoken to: one JSON question a line on standard input, one JSON answer a line on
// standard output, in the same order. Whatever is no question ends the program with status 1.
package lines

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// Serve answers every question on standard input and returns at its end.
func Serve[Question, Answer any](reply func(Question) (Answer, error)) {
	if err := serve(reply); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve[Question, Answer any](reply func(Question) (Answer, error)) error {
	questions := json.NewDecoder(bufio.NewReader(os.Stdin))
	questions.DisallowUnknownFields()
	out := bufio.NewWriter(os.Stdout)
	answers := json.NewEncoder(out)
	for {
		var asked Question
		if err := questions.Decode(&asked); errors.Is(err, io.EOF) {
			return out.Flush()
		} else if err != nil {
			return err
		}
		answer, err := reply(asked)
		if err != nil {
			return err
		}
		if err := answers.Encode(answer); err != nil {
			return err
		}
	}
}
