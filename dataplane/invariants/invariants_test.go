package invariants

import (
	"strings"
	"testing"
)

func TestAssert(t *testing.T) {
	Assert(true, "never")
	defer func() {
		if s, _ := recover().(string); !strings.HasPrefix(s, "BUG: page 7") {
			t.Errorf("panicked with %q", s)
		}
	}()
	Assert(false, "page %d", 7)
}
