package leaktest

import (
	"fmt"
	"os"
	"testing"
)

// GivesBack fails a test if what use maps stays mapped. It calls it many times, and looks at how much the process has
// mapped, for the runtime maps memory of its own at any time, and at the addresses that were just given back.
// REQUIRES: use maps 2 MiB or more.
func GivesBack(t testing.TB, use func()) {
	t.Helper()
	const times, most = 300, 300 << 20 // half of what would stay
	before := mapped(t)
	for range times {
		use()
	}
	if grown := mapped(t) - before; grown > most {
		t.Errorf("after %d times %d bytes more are mapped", times, grown)
	}
}

// mapped is how many bytes of addresses the process has.
func mapped(t testing.TB) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	var pages int
	if _, scan := fmt.Sscan(string(b), &pages); err != nil || scan != nil {
		t.Fatal(err, scan)
	}
	return pages * os.Getpagesize()
}
