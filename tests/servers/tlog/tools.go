//go:build tools

// Package tlog pins the witness that the tests build: torchwood's litewitness.
package tlog

import _ "filippo.io/torchwood/cmd/litewitness"
