package config

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"

	"vstor/dataplane/errs"
)

// A rotten bit in the kept settings may well leave good TOML, of another deployment than this one. So their
// last line is a checksum of those before it. A file without that line is taken as it is: whoever edits the
// file removes it.
const sumPrefix = "# check "

func withSum(b []byte) []byte {
	return append(append(append(b[:len(b):len(b)], sumPrefix...), sumOf(b)...), '\n')
}

func sumOf(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:8])
}

// checkSum verifies the kept settings. Corrupt if they are not as vstor wrote them.
func checkSum(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil // whoever reads them says so
	}
	at := bytes.LastIndex(b, []byte(sumPrefix))
	if at < 0 || at > 0 && b[at-1] != '\n' {
		return nil
	}
	if got := string(bytes.TrimSpace(b[at+len(sumPrefix):])); got != sumOf(b[:at]) {
		return errs.New(errs.Corrupt, "%s is not as vstor wrote it: damaged, or edited. See that its settings are right, "+
			"and remove its last line", path)
	}
	return nil
}
