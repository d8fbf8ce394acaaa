//go:build e2e

package e2e

import (
	"os"
	"syscall"
	"testing"
)

func stat(t *testing.T, file string) os.FileInfo {
	t.Helper()
	st, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// blocks is how much a file takes, in sectors of 512 bytes.
func blocks(st os.FileInfo) int64 { return st.Sys().(*syscall.Stat_t).Blocks }
