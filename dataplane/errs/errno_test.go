package errs

import (
	"syscall"
	"testing"
)

// Every Kind has an errno of its own, and comes back from it.
func TestErrno(t *testing.T) {
	seen := map[syscall.Errno]Kind{}
	for i := range names {
		k := Kind(i)
		e := k.Errno()
		if other, ok := seen[e]; ok {
			t.Errorf("%v and %v are both %v", k, other, e)
		}
		seen[e] = k
		if back := FromErrno(e); back != k {
			t.Errorf("%v became %v by way of %v", k, back, e)
		}
	}
	for e, want := range map[syscall.Errno]Kind{syscall.ETIMEDOUT: Unreachable, syscall.ECONNRESET: Unreachable,
		syscall.EPIPE: Unreachable, syscall.ENXIO: IO, syscall.EAGAIN: IO} {
		if got := FromErrno(e); got != want {
			t.Errorf("%v is %v, want %v", e, got, want)
		}
	}
	if FromErrno(Kind(200).Errno()) != Unreachable {
		t.Error("an unknown kind is taken for something known")
	}
}
