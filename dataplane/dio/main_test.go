package dio

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestMain fails the binary if descriptors outlive the tests.
func TestMain(m *testing.M) {
	if r, w, err := os.Pipe(); err == nil {
		// The runtime's own poller comes with the first pipe.
		r.Close()
		w.Close()
	}
	before := descriptors()
	code := m.Run()
	if after := descriptors(); code == 0 && len(after) > len(before) {
		fmt.Printf("descriptors leaked: before %q, after %q\n", before, after)
		code = 1
	}
	os.Exit(code)
}

func descriptors() (out []string) {
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && !strings.Contains(target, "/proc/") {
			out = append(out, e.Name()+" "+target)
		}
	}
	return out
}
