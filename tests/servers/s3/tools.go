//go:build tools

// Package s3 pins the S3 server that the tests build: versitygw, whose posix back end knows Object Lock.
package s3

import _ "github.com/versity/versitygw/cmd/versitygw"
