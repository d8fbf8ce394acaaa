// Package invariants switches the expensive self-checks. Cheap ones run always, through Assert;
// those that would cost on a hot path stand behind `if invariants.Enabled`.
package invariants

import "fmt"

// Fail stops the process with a sentence. On a hot path write `if !ok { invariants.Fail(...) }`: the
// arguments of Assert are boxed on every call, those of Fail only when it is called.
func Fail(format string, args ...any) {
	panic("BUG: " + fmt.Sprintf(format, args...))
}

// Assert stops the process with a sentence if ok is false. It is for bugs of ours alone: a broken
// disk returns an error, a bad peer loses its connection.
func Assert(ok bool, format string, args ...any) {
	if !ok {
		Fail(format, args...)
	}
}
